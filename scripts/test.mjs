/**
 * The whole test command: installs what is missing, then runs every check in order and says what failed.
 *   npm test                      everything
 *   npm test -- lint vitest       only these stages (and what they need built)
 *   npm test -- --list            the names of the stages
 * Output of each stage goes to build/test-logs/<stage>.log (or VMOBA_TEST_LOGS); a failed stage prints its end. The last line counts
 * all tests.
 */
import { existsSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { ensureNodeModules } from './lib/node-modules.mjs';
import { hasCommand, main, root, runLogged } from './lib/run.mjs';
import { ensureSystemPackages } from './lib/system-packages.mjs';

// Tests run beside each other: threads that wait must sleep, or they keep the others from the cores they wait for.
process.env.OMP_WAIT_POLICY ??= 'passive';

const logs = process.env.VMOBA_TEST_LOGS ?? join(root, 'build', 'test-logs');
const bin = (name) => join(root, 'node_modules', '.bin', name);

/** A check without tests of its own counts as one. */
const whole = ({ code }) => (code === 0 ? { passed: 1, failed: 0, skipped: 0 } : { passed: 0, failed: 1, skipped: 0 });

/** Counts from a JUnit file; a run that ended badly without a failed test counts as one failure. */
function junit(file) {
  return (result) => {
    if (!existsSync(file)) return { passed: 0, failed: 1, skipped: 0 };
    const head = readFileSync(file, 'utf8').match(/<testsuites?[^>]*>/g) ?? [];
    const suite = head[0] ?? '';
    const count = (name) => Number(new RegExp(`\\b${name}="(\\d+)"`).exec(suite)?.[1] ?? 0);
    const failed = count('failures') + count('errors');
    const skipped = count('skipped') + count('disabled');
    const passed = count('tests') - failed - skipped;
    return { passed, failed: failed || (result.code === 0 ? 0 : 1), skipped };
  };
}

/** Counts from Vitest's JSON report. */
function vitestJson(file) {
  return (result) => {
    if (!existsSync(file)) return { passed: 0, failed: 1, skipped: 0 };
    const report = JSON.parse(readFileSync(file, 'utf8'));
    const broken = report.testResults.filter(
      (suite) => suite.status === 'failed' && suite.assertionResults.length === 0,
    );
    const failed = report.numFailedTests + broken.length;
    return {
      passed: report.numPassedTests,
      failed: failed || (result.code === 0 ? 0 : 1),
      skipped: report.numPendingTests + report.numTodoTests,
    };
  };
}

/** Counts from Playwright's JSON report. */
function playwrightJson(file) {
  return (result) => {
    if (!existsSync(file)) return { passed: 0, failed: 1, skipped: 0 };
    const { expected, unexpected, flaky, skipped } = JSON.parse(readFileSync(file, 'utf8')).stats;
    return { passed: expected + flaky, failed: unexpected || (result.code === 0 ? 0 : 1), skipped };
  };
}

/** The compiler that scripts/build-cuda will take. */
const nvcc = process.env.CUDACXX ?? (hasCommand('nvcc') ? 'nvcc' : '/usr/local/cuda/bin/nvcc');
const report = (name) => join(logs, name);
const exists = (path) => existsSync(join(root, path));
const ctest = (folder, file) => ({
  command: ['ctest', ['--test-dir', folder, '--output-on-failure', '-j', '2', '--output-junit', report(file)]],
  count: junit(report(file)),
});

/** `needs`: a stage that must have succeeded; `when`: whether the stage applies to this tree; `skip`: why this machine cannot run it. */
const stages = [
  { name: 'format', command: [bin('prettier'), ['--check', '.', '--log-level', 'warn']], count: whole },
  { name: 'lint', command: [bin('eslint'), ['.', '--max-warnings', '0']], count: whole },
  { name: 'types', command: ['npm', ['run', '--silent', 'types']], count: whole },
  {
    name: 'svelte-types',
    when: () => exists('renderer/tsconfig.json'),
    command: [bin('svelte-check'), ['--tsconfig', 'renderer/tsconfig.json', '--fail-on-warnings']],
    count: whole,
  },
  { name: 'layers', command: ['npm', ['run', '--silent', 'layers']], count: whole },
  {
    name: 'cpp-format',
    when: () => exists('.clang-format') && exists('scripts/check-cpp-format'),
    command: ['bash', ['scripts/check-cpp-format']],
    count: whole,
  },
  { name: 'build-native', builds: true, command: ['node', ['scripts/build-native.mjs', '--tests']], count: whole },
  { name: 'ctest', needs: 'build-native', ...ctest('build/release', 'ctest.xml') },
  {
    name: 'build-app',
    builds: true,
    when: () => exists('electron.vite.config.ts'),
    command: [bin('electron-vite'), ['build']],
    count: whole,
  },
  {
    name: 'verify',
    needs: 'build-native',
    command: ['node', ['scripts/vmoba-studio.mjs', 'verify', 'tests/fixtures']],
    count: whole,
  },
  {
    name: 'verify-other',
    needs: 'build-native',
    command: ['node', ['scripts/vmoba-studio.mjs', 'verify', 'tests/fixtures-other']],
    count: whole,
  },
  {
    name: 'vitest',
    needs: 'build-native',
    command: [
      bin('vitest'),
      ['run', '--reporter=default', '--reporter=json', `--outputFile.json=${report('vitest.json')}`],
    ],
    count: vitestJson(report('vitest.json')),
  },
  {
    name: 'components',
    when: () => exists('renderer/tsconfig.json'),
    command: [
      bin('vitest'),
      [
        'run',
        '--config=tests/components/vitest.config.ts',
        '--reporter=default',
        '--reporter=json',
        `--outputFile.json=${report('components.json')}`,
      ],
    ],
    count: vitestJson(report('components.json')),
  },
  {
    name: 'desktop',
    needs: 'build-app',
    command: [
      bin('vitest'),
      [
        'run',
        '--config=tests/desktop/vitest.config.ts',
        '--reporter=default',
        '--reporter=json',
        `--outputFile.json=${report('desktop.json')}`,
      ],
    ],
    count: vitestJson(report('desktop.json')),
  },
  {
    name: 'e2e',
    needs: 'build-app',
    when: () => exists('playwright.config.ts'),
    command: [bin('playwright'), ['test', '--reporter=list,json']],
    env: { PLAYWRIGHT_JSON_OUTPUT_NAME: report('playwright.json') },
    count: playwrightJson(report('playwright.json')),
  },
  {
    name: 'build-sanitize',
    builds: true,
    command: ['node', ['scripts/build-native.mjs', '--sanitize']],
    count: whole,
  },
  {
    name: 'cuda',
    builds: true,
    skip: () => !hasCommand(nvcc) && `there is no nvcc here (${nvcc}): the kernels are tested in emulation only`,
    command: ['bash', ['-c', 'bash scripts/build-cuda && node scripts/kernel-tables.mjs']],
    count: whole,
  },
  // A short run keeps every fuzz target alive; findings are looked for with `scripts/fuzz 600`.
  { name: 'fuzz', command: ['bash', ['scripts/fuzz', '5']], count: whole },
  { name: 'ctest-sanitize', needs: 'build-sanitize', ...ctest('build/sanitize', 'ctest-sanitize.xml') },
];

await main(async () => {
  const { values, positionals } = parseArgs({ options: { list: { type: 'boolean' } }, allowPositionals: true });
  const names = stages.map((stage) => stage.name);
  if (values.list) return console.log(names.join('\n')) ?? 0;
  const unknown = positionals.filter((name) => !names.includes(name));
  if (unknown.length > 0) {
    console.error(`No such stage: ${unknown.join(', ')}. There are: ${names.join(', ')}`);
    return 2;
  }
  ensureSystemPackages(['build', 'test']);
  ensureNodeModules();
  rmSync(logs, { recursive: true, force: true });
  mkdirSync(logs, { recursive: true });

  const chosen = selected(positionals);
  const results = [];
  for (const stage of chosen) results.push(await runStage(stage, results));
  return summarize(results);
});

/** The named stages with what they need; all of them when none is named. */
function selected(named) {
  if (named.length === 0) return stages.filter((stage) => stage.when?.() ?? true);
  const wanted = new Set(named);
  for (const stage of stages) if (wanted.has(stage.name) && stage.needs) wanted.add(stage.needs);
  return stages.filter((stage) => wanted.has(stage.name));
}

async function runStage(stage, earlier) {
  const blocked = stage.needs && earlier.some((result) => result.name === stage.needs && result.failed > 0);
  if (blocked) {
    console.log(`FAIL  ${stage.name}: not run, because ${stage.needs} failed`);
    return { name: stage.name, passed: 0, failed: 1, skipped: 0, seconds: 0 };
  }
  const missing = stage.skip?.();
  if (missing) {
    console.log(`skip  ${stage.name}: ${missing}`);
    return { name: stage.name, passed: 0, failed: 0, skipped: 1, seconds: 0, missing };
  }
  process.stdout.write(`      ${stage.name} ...${process.stdout.isTTY ? '' : '\n'}`);
  const started = performance.now();
  const [command, args] = stage.command;
  const result = await runLogged(command, args, join(logs, `${stage.name}.log`), { env: stage.env });
  const seconds = (performance.now() - started) / 1000;
  const counts = stage.count(result);
  const verdict = counts.failed > 0 ? 'FAIL' : 'ok  ';
  const detail = counts.passed + counts.failed > 1 ? `: ${counts.passed} passed, ${counts.failed} failed` : '';
  console.log(`${process.stdout.isTTY ? '\r' : ''}${verdict}  ${stage.name}${detail} (${seconds.toFixed(1)} s)`);
  if (counts.failed > 0) console.log(indent(result.output.split('\n').slice(-120).join('\n')));
  return { name: stage.name, seconds, ...counts };
}

function summarize(results) {
  const sum = (key) => results.reduce((total, result) => total + result[key], 0);
  const failed = results.filter((result) => result.failed > 0).map((result) => result.name);
  console.log('');
  if (failed.length > 0) console.log(`Failed: ${failed.join(', ')} (whole output in ${logs})`);
  for (const { name, missing } of results) if (missing) console.log(`Skipped: ${name}, ${missing}`);
  const skipped = sum('skipped');
  console.log(`${sum('passed')} passed, ${sum('failed')} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
  return failed.length > 0 ? 1 : 0;
}

function indent(text) {
  return text.replace(/^/gm, '      ');
}
