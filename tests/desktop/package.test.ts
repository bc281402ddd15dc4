/** Packs the app around a given Electron, here an empty one, and looks into the package. */
import { spawnSync } from 'node:child_process';
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { listPackage } from '@electron/asar';
import { FuseV1Options, getCurrentFuseWire } from '@electron/fuses';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { projectRoot } from '../support/cli.ts';

const folder = mkdtempSync(join(tmpdir(), 'vmoba-package-'));
const packed = join(folder, 'dist', 'linux-unpacked');
const resources = join(packed, 'resources');

/** What electron-builder needs of an Electron: its folder, its version, and a binary whose fuses can be set. */
function emptyElectron(): string {
  const at = join(folder, 'electron');
  for (const part of ['resources', 'locales']) mkdirSync(join(at, part), { recursive: true });
  const wire = Buffer.concat([
    Buffer.from('dL7pKGdnNz796PbbjQWNKmHXBZaB9tsX'),
    Buffer.from([1, 9]),
    Buffer.from('1'.repeat(9)),
  ]);
  writeFileSync(join(at, 'electron'), wire);
  chmodSync(join(at, 'electron'), 0o755);
  const { devDependencies } = JSON.parse(readFileSync(join(projectRoot, 'package.json'), 'utf8')) as {
    devDependencies: Record<string, string>;
  };
  writeFileSync(join(at, 'version'), devDependencies['electron'] ?? '');
  return at;
}

beforeAll(() => {
  const { status, stdout, stderr } = spawnSync(
    join(projectRoot, 'node_modules', '.bin', 'electron-builder'),
    ['--linux', 'dir', `-c.electronDist=${emptyElectron()}`, `-c.directories.output=${join(folder, 'dist')}`],
    { cwd: projectRoot, encoding: 'utf8' },
  );
  expect({ status, output: status === 0 ? '' : stdout + stderr }).toEqual({ status: 0, output: '' });
});
afterAll(() => rmSync(folder, { recursive: true, force: true }));

test('what native code opens by path lies beside the archive: engine, kernels, Nano, gallery', () => {
  expect(readdirSync(resources).sort()).toEqual(
    ['app.asar', 'app.asar.unpacked', 'gallery', 'icons', 'models', 'native'].sort(),
  );
  const built = join(projectRoot, 'build/release/native');
  const kernels = existsSync(join(built, 'backends'))
    ? readdirSync(join(built, 'backends')).filter((name) => name.includes('vmoba_cuda.'))
    : [];
  const native = readdirSync(join(resources, 'native')).filter((name) => !/^lib\w+\.so\.\d+$/.test(name));
  expect(native.sort()).toEqual([...kernels, 'vmoba.node'].sort());
  expect(readFileSync(join(resources, 'native/vmoba.node')).equals(readFileSync(join(built, 'addon/vmoba.node')))).toBe(
    true,
  );
  for (const part of ['models/nano', 'gallery', 'icons'])
    expect(readdirSync(join(resources, part))).toEqual(readdirSync(join(projectRoot, 'resources', part)));
  const unpacked = join(resources, 'app.asar.unpacked/node_modules');
  expect(existsSync(join(unpacked, `better-sqlite3/prebuilds/${process.platform}-${process.arch}.node`))).toBe(true);
  expect(readdirSync(join(unpacked, `@seydx`)).some((name) => name.startsWith('node-av-linux'))).toBe(true);
});

test('the addon finds its libraries beside itself, and needs only the base system else', () => {
  const { stdout } = spawnSync('ldd', [join(resources, 'native/vmoba.node')], { encoding: 'utf8' });
  const elsewhere = stdout
    .split('\n')
    .filter((line) => line.includes('=>') && !line.includes(resources))
    .map((line) => line.trim().split(/[.\s]/)[0]);
  expect(stdout).toContain(join(resources, 'native/libdnnl.so'));
  expect(elsewhere.filter((name) => !['libc', 'libm', 'libgcc_s', 'libstdc++'].includes(name ?? ''))).toEqual([]);
});

test('the archive holds the built app and what it runs with, nothing of the workshop', () => {
  const files = listPackage(join(resources, 'app.asar'), { isPack: false });
  for (const file of [
    'main/main.js',
    'main/engineProcess.js',
    'main/encodeProcess.js',
    'main/libraryWorker.js',
    'preload/preload.cjs',
    'renderer/index.html',
  ])
    expect(files).toContain(`/out/${file}`);
  const top = new Set(files.map((file) => file.split('/')[1]));
  expect([...top].sort()).toEqual(['LICENSE', 'node_modules', 'out', 'package.json']);
  expect(
    files.filter((file) => /node_modules\/(node-(linux|win)-|electron\/|svelte\/|vite)|\.(ts|map|cpp)$/.test(file)),
  ).toEqual([]);
});

test('its fuses are set: no Node in disguise, the archive checked and the only code', async () => {
  const wire = (await getCurrentFuseWire(join(packed, 'vmoba-studio'))) as unknown as Record<number, number>;
  const set = (option: FuseV1Options) => String.fromCharCode(wire[option] ?? 0);
  expect({
    runAsNode: set(FuseV1Options.RunAsNode),
    nodeOptions: set(FuseV1Options.EnableNodeOptionsEnvironmentVariable),
    inspect: set(FuseV1Options.EnableNodeCliInspectArguments),
    integrity: set(FuseV1Options.EnableEmbeddedAsarIntegrityValidation),
    onlyAsar: set(FuseV1Options.OnlyLoadAppFromAsar),
    fileProtocol: set(FuseV1Options.GrantFileProtocolExtraPrivileges),
  }).toEqual({ runAsNode: '0', nodeOptions: '0', inspect: '0', integrity: '1', onlyAsar: '1', fileProtocol: '0' });
});
