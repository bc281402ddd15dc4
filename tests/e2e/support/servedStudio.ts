/** A studio served by a process of its own, as `vmoba-studio serve` does. */
import { WebSocket } from 'ws';
import { StudioClient } from '../../../contract/client.ts';
import type { RenderSettings } from '../../../contract/renderSettings.ts';
import { type RunningCli, startCli } from '../../support/cli.ts';
import { commandOf, descendants } from '../../support/processes.ts';
import { isTrained, standIn } from './model.ts';

export class ServedStudio {
  readonly library: string;
  readonly #env: Record<string, string>;
  #cli: RunningCli | undefined;
  #url = '';

  constructor(library: string, env: Record<string, string> = {}) {
    this.library = library;
    this.#env = env;
  }

  /** Where a browser signs in. */
  get url(): string {
    return this.#url;
  }

  async start(): Promise<void> {
    this.#cli = startCli(['serve', '--library', this.library, '--port', '0', '--json'], this.#env);
    const ready = await this.#cli.line((line) => line.event === 'ready');
    if (!ready) throw new Error(`The studio did not start: ${(await this.#cli.result).stderr}`);
    this.#url = String(ready['url']);
    await this.with(async (client) => {
      // One thread at normal priority: on a busy machine two would wait for each other.
      await client.call('settings.update', { threads: 1, engineNice: 0 });
      // The trained model comes with the studio; its stand-in has to be brought.
      if (isTrained) return;
      const { items } = await client.call('models.list');
      if (items.length === 0) await client.call('models.import', { path: standIn, name: 'Nano' });
    });
  }

  async stop(): Promise<void> {
    this.#cli?.child.kill('SIGTERM');
    await this.#cli?.result;
    this.#cli = undefined;
  }

  /** Speaks to the studio as a program does, beside the page. */
  async with<Result>(use: (client: StudioClient) => Promise<Result>): Promise<Result> {
    const { origin, searchParams } = new URL(this.#url);
    const headers = { authorization: `Bearer ${searchParams.get('token') ?? ''}` };
    const socket = new WebSocket(`${origin.replace('http', 'ws')}/studio`, { headers, perMessageDeflate: false });
    await new Promise((resolve, reject) => socket.once('open', resolve).once('error', reject));
    const client = new StudioClient({ send: (message) => socket.send(message), close: () => socket.close() });
    socket.on('message', (data: Buffer) => client.receive(data));
    try {
      return await use(client);
    } finally {
      client.close();
    }
  }

  /** The settings of a small, quick render with the first model. */
  async settings(changes: Partial<RenderSettings> = {}): Promise<RenderSettings> {
    const { items } = await this.with((client) => client.call('models.list'));
    const [model] = items;
    if (!model) throw new Error('There is no model.');
    const policy = { version: 1, name: 'vmoba-trained', mode: 'threshold', scope: 'head_global', tau: 0.25 } as const;
    return {
      model: model.id,
      prompt: 'a red ball bounces on a blue floor',
      negativePrompt: '',
      width: 96,
      height: 96,
      frames: 17,
      fps: 16,
      steps: 6,
      guidanceScale: 3,
      shift: 3,
      scheduler: 'unipc',
      seed: '7',
      policy: { ...policy, denseSteps: 0.34, minimumTokens: 0 },
      ...changes,
    };
  }

  /** Puts a render into the queue and waits for its end. Returns the take's id. */
  async render(changes: Partial<RenderSettings> = {}): Promise<string> {
    const settings = await this.settings(changes);
    return this.with(async (client) => {
      const { id } = await client.call('renders.create', { settings });
      for (;;) {
        const render = await client.call('renders.get', { id });
        if (render.takeId) return render.takeId;
        if (render.state === 'failed') throw new Error(render.error?.message);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
    });
  }

  /** The process that renders. */
  enginePids(): number[] {
    const host = this.#cli?.child.pid;
    return host === undefined ? [] : descendants(host).filter((pid) => commandOf(pid).includes('engineProcess'));
  }
}
