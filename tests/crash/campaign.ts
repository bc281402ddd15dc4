/**
 * Kills a working studio over and over and looks at what is left: nothing enqueued lost or doubled, no child process outliving
 * its parent, every clip whole and the same as that of an uninterrupted render, a sound database, no file without a row.
 */
import { type ChildProcess, fork } from 'node:child_process';
import { existsSync, readdirSync, statSync, watch } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import Database from 'better-sqlite3';
import type { Failpoint } from '../../main/studio/failpoints.ts';
import { projectRoot } from '../support/cli.ts';
import { makeRandomModel } from '../support/models.ts';
import { probe } from '../support/clips.ts';
import { commandOf, descendants, exists, until } from '../support/processes.ts';
import type { HostMessage, HostPlan } from './host.ts';

const hostEntry = fileURLToPath(new URL('./host.ts', import.meta.url));
/** A child notices its parent's end twice a second. */
const orphanMs = 5000;

export type Kill = 'tree' | 'main' | 'engine' | 'encoder' | 'while-checkpointing' | 'failpoint';

interface StoredTake {
  seed: number;
  file: string;
  poster: string | null;
  maps: string | null;
  latentHash: string;
  framesHash: string;
  frames: number;
  bitIdentical: number;
}

export class Campaign {
  readonly folder: string;
  readonly kills: Partial<Record<Kill, number>> = {};
  readonly faults: string[] = [];
  starts = 0;
  retries: string[] = [];
  readonly #model: string;
  readonly #steps: number;
  readonly #random: () => number;
  /** Seed → id, as the studio said it before it was killed. */
  readonly #promised = new Map<number, string>();
  readonly #seeds: number[] = [];
  #openMs = 1500;
  readonly #deleted: number[] = [];

  constructor(root: string, { steps = 6, chance = 1 } = {}) {
    this.folder = join(root, 'killed');
    this.#steps = steps;
    this.#random = mulberry(chance);
    const model = join(root, 'tiny');
    this.#model = existsSync(model) ? model : makeRandomModel(model, 'tiny');
  }

  get killCount(): number {
    return Object.values(this.kills).reduce((sum, count) => sum + count, 0);
  }

  get renders(): number {
    return this.#seeds.length;
  }

  want(count: number): void {
    for (let index = 0; index < count; index++) this.#seeds.push(this.#seeds.length + 1);
  }

  /** Whether every render that is wanted is done; needs a studio that has ended by itself. */
  async finish(): Promise<void> {
    const host = this.#start({});
    await host.ended;
    if (!host.finished) this.faults.push('the last start did not come to an end by itself');
  }

  /** Starts the studio and lets it work until it reaches the failpoint. */
  async dieAt(name: Failpoint, count: number, { pause = false, remove = 0 } = {}): Promise<void> {
    if (remove > 0) this.#deleted.push(remove);
    const host = this.#start({ VMOBA_FAILPOINT: `${name}:${count}` }, pause);
    await host.ended;
    if (host.finished) this.faults.push(`the failpoint ${name}:${count} was never reached`);
    this.#count('failpoint');
    await this.#nothingSurvives(host.children);
  }

  /** Starts the studio and kills parts of it until main itself is dead or all is done. Returns whether all is done. */
  async harass(most: number): Promise<boolean> {
    const host = this.#start({});
    const fromStart = this.#random() < 0.25;
    const began = performance.now();
    if (!fromStart) {
      await Promise.race([host.opened, host.ended]);
      this.#openMs = Math.max(1000, performance.now() - began);
    }
    while (host.alive) {
      // As long as a start takes here, or twice that: slow machines get their share of every phase too.
      await Promise.race([delay(50 + this.#random() * (fromStart ? 1 : 2) * this.#openMs), host.ended]);
      if (!host.alive) break;
      const kind = this.#choose();
      if (await this.#strike(kind, host)) this.#count(kind);
      if (this.killCount >= most && host.alive && kind !== 'tree' && kind !== 'main') await host.ended;
    }
    await this.#nothingSurvives(host.children);
    return host.finished;
  }

  #choose(): Kill {
    const chance = this.#random();
    if (chance < 0.45) return 'tree';
    if (chance < 0.6) return 'main';
    if (chance < 0.8) return 'engine';
    return chance < 0.9 ? 'encoder' : 'while-checkpointing';
  }

  /** Returns whether there was something to kill. */
  async #strike(kind: Kill, host: Host): Promise<boolean> {
    const { pid } = host.child;
    if (pid === undefined) return false;
    host.children = descendants(pid);
    const named = (entry: string) => host.children.filter((child) => commandOf(child).includes(entry));
    switch (kind) {
      case 'tree':
        for (const target of [pid, ...host.children]) kill(target);
        await host.ended;
        return true;
      case 'main':
        kill(pid);
        await host.ended;
        return true;
      case 'engine':
      case 'encoder': {
        const targets = named(kind === 'engine' ? 'engineProcess' : 'encodeProcess');
        const target = targets[Math.floor(this.#random() * targets.length)];
        if (target !== undefined) kill(target);
        return target !== undefined;
      }
      case 'while-checkpointing': {
        if (!(await checkpointBegins(join(this.folder, 'work'), 2000)) || !host.alive) return false;
        for (const target of [pid, ...descendants(pid)]) kill(target);
        await host.ended;
        return true;
      }
      case 'failpoint':
        return false;
    }
  }

  #start(env: Record<string, string>, pause = false): Host {
    this.starts++;
    const host = new Host(
      {
        folder: this.folder,
        model: this.#model,
        seeds: this.#seeds,
        steps: this.#steps,
        deleted: this.#deleted,
        pause,
      },
      env,
      (message) => this.#hear(message),
    );
    return host;
  }

  #hear(message: HostMessage): void {
    if (message.kind === 'retried') this.retries.push(message.reason);
    if (message.kind !== 'enqueued') return;
    const before = this.#promised.get(message.seed);
    if (before !== undefined && before !== message.id) this.faults.push(`seed ${message.seed} was enqueued twice`);
    this.#promised.set(message.seed, message.id);
  }

  #count(kind: Kill): void {
    this.kills[kind] = (this.kills[kind] ?? 0) + 1;
  }

  async #nothingSurvives(children: number[]): Promise<void> {
    if (await until(() => !children.some(isOurs), orphanMs)) return;
    const left = children.filter(isOurs);
    this.faults.push(`${left.map(commandOf).join(', ')} outlived its parent`);
    for (const pid of left) kill(pid);
  }

  /** Everything that must hold in the end. `reference`: another campaign that was never disturbed. */
  examine(reference?: Campaign): string[] {
    const faults = [...this.faults];
    const db = new Database(join(this.folder, 'library.db'), { readonly: true });
    const integrity = db.pragma('integrity_check', { simple: true });
    if (integrity !== 'ok') faults.push(`integrity_check: ${String(integrity)}`);
    if ((db.pragma('foreign_key_check') as unknown[]).length > 0) faults.push('a foreign key points to nothing');
    const renders = db.prepare(`SELECT id, state, settings ->> '$.seed' AS seed FROM renders`).all() as {
      id: string;
      state: string;
      seed: string;
    }[];
    db.close();
    const takes = this.takes();
    const wanted = this.#seeds.filter((seed) => !this.#deleted.includes(seed));
    for (const seed of wanted) {
      const own = renders.filter((render) => Number(render.seed) === seed);
      if (own.length !== 1) faults.push(`seed ${seed} is in the queue ${own.length} times`);
      if (own[0]?.state !== 'done') faults.push(`seed ${seed} is ${own[0]?.state ?? 'lost'}`);
      if (own[0]?.id !== this.#promised.get(seed)) faults.push(`seed ${seed} is not the promised render`);
    }
    if (renders.length !== wanted.length) faults.push(`${renders.length} renders instead of ${wanted.length}`);

    const expected = new Map(reference?.takes().map((take) => [take.seed, take]));
    for (const take of takes) {
      const { seed } = take;
      if (probe(join(this.folder, take.file)).nb_read_frames !== String(take.frames))
        faults.push(`seed ${seed}: clip is not whole`);
      if (!take.bitIdentical) faults.push(`seed ${seed}: says that it is not bit-identical`);
      if (take.poster === null) faults.push(`seed ${seed}: no poster`);
      const other = expected.get(seed);
      if (!reference) continue;
      if (take.latentHash !== other?.latentHash) faults.push(`seed ${seed}: another latent than uninterrupted`);
      if (take.framesHash !== other?.framesHash) faults.push(`seed ${seed}: other frames than uninterrupted`);
    }
    return [...faults, ...this.#orphans(takes)];
  }

  /** Files that no row speaks of, and rows whose file is missing. */
  #orphans(takes: StoredTake[]): string[] {
    const rows = new Set(
      takes.flatMap(({ file, poster, maps }) => [file, poster, maps]).filter((path) => path !== null),
    );
    const files = readdirSync(join(this.folder, 'takes')).map((name) => `takes/${name}`);
    const places = ['.', 'takes', 'backups', 'exports', 'models', 'downloads'];
    const temporary = places
      .flatMap((place) => readdirSync(join(this.folder, place)))
      .filter((name) => name.endsWith('.part'));
    return [
      ...files.filter((file) => !rows.has(file)).map((file) => `${file} belongs to nothing`),
      ...[...rows].filter((row) => !files.includes(row)).map((row) => `${row} is missing`),
      ...[...rows]
        .filter((row) => files.includes(row) && statSync(join(this.folder, row)).size === 0)
        .map((row) => `${row} is empty`),
      ...readdirSync(join(this.folder, 'work')).map((name) => `work/${name} was left`),
      ...temporary.map((name) => `${name} was left`),
    ];
  }

  takes(): StoredTake[] {
    const db = new Database(join(this.folder, 'library.db'), { readonly: true });
    try {
      return db
        .prepare(
          `SELECT CAST(settings ->> '$.seed' AS INTEGER) AS seed, file, poster, maps, latent_hash AS latentHash,
             frames_hash AS framesHash, clip ->> '$.frames' AS frames, bit_identical AS bitIdentical FROM takes`,
        )
        .all() as StoredTake[];
    } finally {
      db.close();
    }
  }
}

class Host {
  readonly child: ChildProcess;
  readonly opened: Promise<void>;
  readonly ended: Promise<void>;
  finished = false;
  alive = true;
  children: number[] = [];

  constructor(plan: HostPlan, env: Record<string, string>, hear: (message: HostMessage) => void) {
    // In the host's eyes nobody is its parent: a failpoint ends it, and not the test.
    const { VMOBA_PARENT_PID: _parent, VMOBA_FAILPOINT: _failpoint, ...rest } = process.env;
    // Compiled once, as the command line does it: starts are most of the work.
    const compiled = { NODE_COMPILE_CACHE: join(projectRoot, 'node_modules', '.cache', 'compile') };
    this.child = fork(hostEntry, [JSON.stringify(plan)], { execArgv: [], env: { ...rest, ...compiled, ...env } });
    this.opened = new Promise((resolve) =>
      this.child.on('message', (message: HostMessage) => {
        // Children come and go; the last look is the one that counts.
        this.children = this.child.pid === undefined ? [] : descendants(this.child.pid);
        if (message.kind === 'open') resolve();
        if (message.kind === 'finished') this.finished = true;
        hear(message);
      }),
    );
    this.ended = new Promise((resolve) =>
      this.child.on('exit', () => {
        this.alive = false;
        resolve();
      }),
    );
  }
}

function kill(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL');
  } catch {
    // It has ended by itself.
  }
}

const isOurs = (pid: number) => exists(pid) && /engineProcess|encodeProcess/.test(commandOf(pid));

/** Resolves at the first file that appears for a checkpoint under way. */
function checkpointBegins(work: string, timeoutMs: number): Promise<boolean> {
  return new Promise((resolve) => {
    const end = (seen: boolean) => {
      watcher?.close();
      clearTimeout(timer);
      resolve(seen);
    };
    const timer = setTimeout(() => end(false), timeoutMs);
    const watcher = existsSync(work)
      ? watch(work, { recursive: true }, (_, name) => {
          if (name !== null && /checkpoint\.safetensors.+/.test(name)) end(true);
        })
      : undefined;
    watcher?.on('error', () => end(false));
  });
}

/** A small generator of numbers in [0, 1): the same kills for the same seed, as far as time allows. */
function mulberry(seed: number): () => number {
  let state = seed;
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
