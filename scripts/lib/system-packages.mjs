/**
 * What the project needs from the operating system, how to tell that it is there, and installing what is missing with apt
 * where that is allowed. Where it is not, the missing names are printed and the script stops.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync } from 'node:fs';
import { CommandFailed, hasCommand, run } from './run.mjs';

const header = (path) => () =>
  ['/usr/include', '/usr/local/include', '/opt/homebrew/include'].some((at) => existsSync(`${at}/${path}`));
const command = (name) => () => hasCommand(name);
const sanitizerRuntime = () =>
  existsSync('/usr/lib/gcc') &&
  readdirSync('/usr/lib/gcc').some((target) =>
    readdirSync(`/usr/lib/gcc/${target}`).some((version) => existsSync(`/usr/lib/gcc/${target}/${version}/libasan.so`)),
  );

const fuzzerRuntime = () => {
  const { stdout } = spawnSync('clang++', ['-print-runtime-dir'], { encoding: 'utf8' });
  const folder = (stdout ?? '').trim();
  return existsSync(folder) && readdirSync(folder).some((file) => file.startsWith('libclang_rt.fuzzer'));
};

/** `for`: what needs it. build = the engine, test = the whole test command. */
const packages = [
  { name: 'g++', present: command('g++'), for: 'build' },
  { name: 'cmake', present: command('cmake'), for: 'build' },
  { name: 'ninja-build', present: command('ninja'), for: 'build' },
  { name: 'libdnnl-dev', present: header('dnnl.hpp'), for: 'build' },
  { name: 'libhwy-dev', present: header('hwy/highway.h'), for: 'build' },
  { name: 'libgtest-dev', present: header('gtest/gtest.h'), for: 'test' },
  { name: 'ffmpeg', present: command('ffprobe'), for: 'test' },
  { name: 'chromium', present: () => existsSync(process.env.CHROMIUM ?? '/usr/bin/chromium'), for: 'test' },
  { name: 'clang', present: command('clang++'), for: 'test' },
  { name: 'libclang-rt-dev', present: fuzzerRuntime, for: 'test' },
  { name: 'clang-format', present: command('clang-format'), for: 'test' },
  { name: 'libgcc-12-dev', present: sanitizerRuntime, for: 'test' },
];

/** Makes sure that everything of the given purposes is installed. */
export function ensureSystemPackages(purposes) {
  if (process.platform !== 'linux') return;
  const missing = () =>
    packages.filter((item) => purposes.includes(item.for) && !item.present()).map((item) => item.name);
  const wanted = missing();
  if (wanted.length === 0) return;
  const apt = installer();
  if (!apt) {
    throw new CommandFailed(
      `These system packages are missing and cannot be installed from here: ${wanted.join(' ')}\n` +
        `Install them (Debian and Ubuntu: sudo apt-get install ${wanted.join(' ')}) and run the command again.`,
    );
  }
  console.log(`Installing system packages: ${wanted.join(' ')}`);
  const env = { DEBIAN_FRONTEND: 'noninteractive' };
  run(apt[0], [...apt.slice(1), 'update', '-qq'], { env });
  run(apt[0], [...apt.slice(1), 'install', '-y', '-qq', '--no-install-recommends', ...wanted], { env });
  const still = missing();
  if (still.length > 0) throw new CommandFailed(`Still missing after installing: ${still.join(' ')}`);
}

/** The command that installs packages here without asking, or null. */
function installer() {
  if (!hasCommand('apt-get')) return null;
  if (process.getuid?.() === 0) return ['apt-get'];
  const passwordless = hasCommand('sudo') && spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0;
  return passwordless ? ['sudo', '-n', 'DEBIAN_FRONTEND=noninteractive', 'apt-get'] : null;
}
