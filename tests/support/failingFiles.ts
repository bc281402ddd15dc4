/**
 * Lets one call of the file system fail, wherever the studio makes it: in this process and in the children it starts. The
 * library's thread is out of reach (what it does is asked of its functions directly), and so is native code.
 */
import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { pathToFileURL } from 'node:url';

type Call = 'mkdir' | 'open' | 'write' | 'writeFile' | 'appendFile' | 'copyFile' | 'rename' | 'sync';

interface WatchedCall {
  /** With or without `Sync`; `write`, `writeFile` and `sync` of open files too. */
  call: Call;
  /** The end of the path it writes to, as a regular expression. */
  path: string;
}

export interface FailingCall extends WatchedCall {
  code: 'ENOSPC' | 'EIO';
  /** Calls that go well before. */
  after?: number;
}

type Any = (...args: unknown[]) => unknown;
/** As they were. */
const { readFileSync, appendFileSync, writeFileSync, openSync, writeSync, closeSync, rmSync } = fs;
const rulesOf = () => process.env['VMOBA_FAILING_FILES'] ?? '';

/** Starts to look at every call; `folder` is where the rule lies for the children. */
export function watchFiles(folder: string) {
  const rules = `${folder}/failing.json`;
  const seen = `${folder}/failed.txt`;
  process.env['VMOBA_FAILING_FILES'] = rules;
  process.env['NODE_OPTIONS'] =
    `${process.env['NODE_OPTIONS'] ?? ''} --import ${pathToFileURL(import.meta.filename).href}`;
  install();
  return {
    /** A call of this process goes well, and something is done before it, once. */
    meet(call: WatchedCall, act: () => void): void {
      met = { ...call, act };
    },
    fail(call: FailingCall): void {
      rmSync(seen, { force: true });
      writeFileSync(rules, JSON.stringify(call));
    },
    /** Everything goes well again. Returns the calls that failed. */
    stop(): string[] {
      rmSync(rules, { force: true });
      return fs.existsSync(seen) ? readFileSync(seen, 'utf8').trim().split('\n') : [];
    },
  };
}

let passed = 0;
let last = '';
let met: (WatchedCall & { act(): void }) | undefined;

const isOf = (wanted: WatchedCall, call: Call, path: unknown) =>
  wanted.call === call && typeof path === 'string' && new RegExp(`${wanted.path}$`).test(path);

function check(call: Call, path: unknown, data?: unknown): void {
  if (met && isOf(met, call, path)) {
    const { act } = met;
    met = undefined;
    act();
  }
  let text: string;
  try {
    text = readFileSync(rulesOf(), 'utf8');
  } catch {
    return;
  }
  if (text !== last) [last, passed] = [text, 0];
  const rule = JSON.parse(text) as FailingCall;
  if (!isOf(rule, call, path) || passed++ < (rule.after ?? 0)) return;
  appendFileSync(rulesOf().replace(/failing\.json$/, 'failed.txt'), `${call} ${String(path)}\n`);
  // As a disk that fills up does it: a part arrives.
  if (typeof data === 'string' || data instanceof Uint8Array) {
    const file = openSync(String(path), call === 'writeFile' ? 'w' : 'a');
    writeSync(file, Buffer.from(data).subarray(0, data.length / 2));
    closeSync(file);
  }
  throw Object.assign(new Error(`${rule.code}: made to fail, ${call} '${String(path)}'`), { code: rule.code, path });
}

function install(): void {
  const calls: Call[] = ['mkdir', 'open', 'writeFile', 'appendFile', 'copyFile', 'rename'];
  const sync = fs as unknown as Record<string, Any>;
  const promised = fs.promises as unknown as Record<string, Any>;
  for (const call of calls) {
    // Where something goes is the second path of a call with two.
    const target = (args: unknown[]) => args[call === 'copyFile' || call === 'rename' ? 1 : 0];
    const data = (args: unknown[]) => (call === 'writeFile' || call === 'appendFile' ? args[1] : undefined);
    const harmless = (args: unknown[]) => call === 'open' && args[1] === 'r';
    const now = sync[`${call}Sync`] as Any;
    sync[`${call}Sync`] = (...args) => {
      if (!harmless(args)) check(call, target(args), data(args));
      return now(...args);
    };
    const later = promised[call] as Any;
    promised[call] = async (...args) => {
      if (!harmless(args)) check(call, target(args), data(args));
      const result = await later(...args);
      if (call === 'open') watchHandle(result as Record<string, Any>, args[0]);
      return result;
    };
  }
  syncBuiltinESMExports();
}

function watchHandle(handle: Record<string, Any>, path: unknown): void {
  for (const call of ['write', 'writeFile', 'sync'] as const) {
    const own = handle[call] as Any;
    handle[call] = async (...args) => {
      check(call, path);
      return own.apply(handle, args);
    };
  }
}

if (rulesOf() !== '') install();
