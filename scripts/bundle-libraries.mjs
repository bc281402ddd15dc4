/**
 * electron-builder's afterPack: on Linux, what the native addon links beyond any distribution's base system goes beside it, where its
 * run path ($ORIGIN) finds it. Users' machines have no oneDNN.
 */
import { execFileSync } from 'node:child_process';
import { copyFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** The C and C++ runtime and the loader: every desktop has them, and a second copy beside Electron's would do harm. */
const base = /^(ld-linux.*|linux-vdso|lib(c|m|dl|pthread|rt|gcc_s|stdc\+\+))\.so/;

export default function bundleLibraries({ appOutDir, electronPlatformName }) {
  if (electronPlatformName !== 'linux') return;
  const native = join(appOutDir, 'resources', 'native');
  const addon = join(native, 'vmoba.node');
  for (const [, name, path] of execFileSync('ldd', [addon], { encoding: 'utf8' }).matchAll(
    /^\s*(\S+) => (\S+|not found)/gm,
  )) {
    if (base.test(name)) continue;
    if (path === 'not') throw new Error(`${basename(addon)} needs ${name}, which is not on this machine.`);
    copyFileSync(path, join(native, name));
  }
}
