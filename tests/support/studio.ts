/** Studios for tests: real library, real files, real encoder; the engine is the faulty one unless another is asked for. */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { StudioClient } from '../../contract/client.ts';
import type { EventName, EventPayload, MethodInput } from '../../contract/index.ts';
import type { Render, RenderState } from '../../contract/renders.ts';
import { policyPresets } from '../../contract/attentionPolicy.ts';
import { Connection } from '../../main/studio/connection.ts';
import { Studio, type StudioOptions } from '../../main/studio/studio.ts';
import { faultyAddon } from './engine.ts';
import { writeModelFolder } from './models.ts';
import { until } from './processes.ts';

export type Settings = MethodInput<'renders.create'>['settings'];

export function settings(changes: Partial<Settings> = {}): Settings {
  return {
    model: 'test',
    prompt: 'a red ball',
    width: 32,
    height: 16,
    frames: 5,
    fps: 8,
    steps: 4,
    guidanceScale: 3,
    shift: 2,
    scheduler: 'unipc',
    seed: '1',
    policy: policyPresets.dense,
    ...changes,
  };
}

/** A studio with one connected client, and what that client was told. */
export interface OpenedStudio {
  studio: Studio;
  client: StudioClient;
  told: { name: EventName; payload: unknown }[];
  connect(id: string): StudioClient;
  eventsOf<Name extends EventName>(name: Name): EventPayload<Name>[];
  /** Waits until a render is in one of the states. */
  reaches(id: string, ...states: RenderState[]): Promise<Render>;
  close(): Promise<void>;
}

export class StudioTests {
  readonly root = mkdtempSync(join(tmpdir(), 'vmoba-studio-'));
  readonly #opened = new Set<OpenedStudio>();
  #folders = 0;

  /** A library folder that does not exist yet. */
  folder(): string {
    return join(this.root, `library-${++this.#folders}`);
  }

  /** A model folder for the faulty engine. */
  model(name = 'model', changes: Record<string, unknown> = {}): string {
    return writeModelFolder(join(this.root, name), changes);
  }

  async open(folder = this.folder(), options: Partial<StudioOptions> = {}): Promise<OpenedStudio> {
    mkdirSync(this.root, { recursive: true });
    const studio = await Studio.open({
      folder,
      version: '0',
      host: { kind: 'in-process' },
      addon: faultyAddon,
      embeddedModel: this.model(),
      spaceCheckMs: 50,
      ...options,
    });
    const told: OpenedStudio['told'] = [];
    const connect = (id: string): StudioClient => {
      // Both ways through the codec, as over any real pipe.
      const connection = new Connection(studio, id, { send: (message) => client.receive(message) });
      const client: StudioClient = new StudioClient({
        send: (message) => void connection.receive(message),
        close: () => connection.close(),
      });
      return client;
    };
    studio.events.listen((name, payload) => told.push({ name, payload }));
    const client = connect('test');
    const opened: OpenedStudio = {
      studio,
      client,
      told,
      connect,
      eventsOf: <Name extends EventName>(name: Name) =>
        told.flatMap((event) => (event.name === name ? [event.payload as EventPayload<Name>] : [])),
      async reaches(id, ...states) {
        let render: Render | undefined;
        const arrived = await until(async () => {
          render = await client.call('renders.get', { id });
          return states.includes(render.state);
        }, 60_000);
        if (!render || !arrived) throw new Error(`${id} is ${render?.state ?? 'unknown'}, not ${states.join(' or ')}`);
        return render;
      },
      close: async () => {
        this.#opened.delete(opened);
        await studio.close();
      },
    };
    this.#opened.add(opened);
    return opened;
  }

  #shared: OpenedStudio | undefined;

  /** One studio for tests that need none of their own: engines and encoder stay warm. Given back empty and running. */
  async shared(): Promise<OpenedStudio> {
    const opened = (this.#shared ??= await this.open());
    const { client, told } = opened;
    const open = await client.call('renders.list', { states: ['queued', 'running', 'paused'], limit: 500 });
    if (open.items.length > 0) await client.call('renders.remove', { ids: open.items.map(({ id }) => id) });
    await client.call('queue.resume');
    told.length = 0;
    return opened;
  }

  /** Those that a test opened for itself. */
  async closeOwn(): Promise<void> {
    const own = [...this.#opened].filter((opened) => opened !== this.#shared);
    await Promise.all(own.map((opened) => opened.close()));
  }

  async closeAll(): Promise<void> {
    await Promise.all([...this.#opened].map((opened) => opened.close()));
  }

  async end(): Promise<void> {
    await this.closeAll();
    rmSync(this.root, { recursive: true, force: true });
  }
}
