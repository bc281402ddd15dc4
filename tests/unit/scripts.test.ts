// The scripts on machines that lack what they would use: they say so, and still leave their results.
import { spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterEach, beforeEach, expect, test } from 'vitest';

let folder: string;
beforeEach(() => void (folder = mkdtempSync(join(tmpdir(), 'vmoba-scripts-'))));
afterEach(() => rmSync(folder, { recursive: true, force: true }));

function run(command: string, args: string[], env: Record<string, string>) {
  const { status, stdout, stderr } = spawnSync(command, args, { encoding: 'utf8', env: { ...process.env, ...env } });
  return { status, lines: stdout.trimEnd().split('\n'), stderr };
}

test('without nvcc the test command skips the CUDA build, says so and still counts', () => {
  const nvcc = join(folder, 'nvcc');
  const result = run(process.execPath, ['scripts/test.mjs', 'cuda'], { CUDACXX: nvcc, VMOBA_TEST_LOGS: folder });
  const why = `there is no nvcc here (${nvcc}): the kernels are tested in emulation only`;
  expect(result).toEqual({
    status: 0,
    lines: [`skip  cuda: ${why}`, '', `Skipped: cuda, ${why}`, '0 passed, 0 failed, 1 skipped'],
    stderr: '',
  });
});

test('without a driver the GPU check stops before it builds, with a reason and a report', () => {
  const tools = join(folder, 'bin');
  mkdirSync(tools);
  for (const tool of ['bash', 'date', 'dirname', 'git', 'grep', 'mkdir', 'nproc', 'tail', 'timeout']) {
    const found = spawnSync('which', [tool], { encoding: 'utf8' }).stdout.trim();
    symlinkSync(found, join(tools, tool));
  }
  const { status, lines } = run('bash', ['scripts/gpu-check', folder], { PATH: tools, GPU_CHECK_REHEARSE: '' });
  const report = join(folder, 'report.md');
  expect({ status, lines: lines.slice(-2) }).toEqual({
    status: 1,
    lines: ['stopped: there is no NVIDIA driver here', `results in ${report}`],
  });
  const text = readFileSync(report, 'utf8');
  expect(text).toMatch(/^# GPU check of /);
  expect(text).toContain('## machine');
  expect(text.trimEnd().split('\n').at(-1)).toBe('Stopped: there is no NVIDIA driver here.');
});
