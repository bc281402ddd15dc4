/**
 * Tables about the CUDA kernels for docs/BENCHMARKS.md: what ptxas said of each (registers, spills), and the cost model.
 *   node scripts/kernel-tables.mjs [log of scripts/build-cuda, default build/cuda/build.log] [--write]
 * Prints them, or with --write puts them into the page. Ends with 1 where a kernel spills registers or the log holds a warning
 * (or ptxas says that it serialises wgmma, which it calls an information).
 * A log that grew over several builds counts only the last word on each kernel.
 */
import { spawnSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { costTable, sizes } from './lib/cost-model.mjs';
import { CommandFailed, main, root } from './lib/run.mjs';

const page = join(root, 'docs', 'BENCHMARKS.md');

await main(() => {
  const { values, positionals } = parseArgs({ options: { write: { type: 'boolean' } }, allowPositionals: true });
  const log = positionals[0] ?? join(root, 'build', 'cuda', 'build.log');
  if (!existsSync(log)) throw new CommandFailed(`${log} is not there: run scripts/build-cuda first`);
  const text = readFileSync(log, 'utf8');
  const kernels = readPtxas(text);
  if (kernels.length === 0)
    throw new CommandFailed(`${log} says nothing of any kernel: run scripts/build-cuda in an empty build/cuda`);
  const tables = {
    ptxas: markdown(ptxasTable(kernels)),
    ...Object.fromEntries(sizes.map((size) => [`cost-${size.tokens}`, markdown(costTable(size))])),
  };
  if (values.write) writeFileSync(page, Object.entries(tables).reduce(replaced, readFileSync(page, 'utf8')));
  else for (const [name, table] of Object.entries(tables)) console.log(`${name}\n\n${table}\n`);

  const spilling = kernels.filter((kernel) => kernel.spilledBytes > 0);
  for (const { name, architecture, spilledBytes } of spilling)
    console.error(`${name} spills ${spilledBytes} bytes on ${architecture}`);
  const warnings = text
    .split('\n')
    .filter((line) => /\bwarning\b|performance loss/i.test(line) && !line.startsWith('--'));
  for (const line of warnings) console.error(line);
  console.error(`${kernels.length} kernels, ${spilling.length} spilling, ${warnings.length} warnings`);
  return spilling.length + warnings.length > 0 ? 1 : 0;
});

/** One entry per kernel and architecture: { name, architecture, registers, spilledBytes, attention }. */
function readPtxas(text) {
  const found = new Map();
  let entry;
  for (const line of text.split('\n')) {
    const start = /Compiling entry function '(\w+)' for '(\w+)'/.exec(line);
    const spill = /(\d+) bytes spill stores, (\d+) bytes spill loads/.exec(line);
    const used = /Used (\d+) registers/.exec(line);
    if (start) entry = { symbol: start[1], architecture: start[2], spilledBytes: 0 };
    else if (entry && spill) entry.spilledBytes = Number(spill[1]) + Number(spill[2]);
    else if (entry && used) {
      entry.registers = Number(used[1]);
      // The hash of an unnamed namespace changes with the file's path.
      found.set(entry.symbol.replace(/_GLOBAL__N__\w+?_cu_[0-9a-f]+_\d{1,5}/, '') + entry.architecture, entry);
      entry = undefined;
    }
  }
  const kernels = [...found.values()];
  const plain = spawnSync('c++filt', { input: kernels.map((kernel) => kernel.symbol).join('\n'), encoding: 'utf8' });
  if (plain.status !== 0) throw new CommandFailed('c++filt (of binutils) is needed to read kernel names');
  const names = plain.stdout.split('\n');
  kernels.forEach((kernel, i) => {
    kernel.source = /_\d+_(\w+)_cu_/.exec(kernel.symbol)?.[1] ?? '';
    kernel.name =
      /entry<(.*)>\(/
        .exec(names[i])?.[1]
        .trim()
        .replaceAll(/\(anonymous namespace\)::|\w+::|\((?:int|bool)\)/g, '') ?? kernel.symbol;
  });
  return kernels.sort(
    (a, b) =>
      a.source.localeCompare(b.source) || a.name.localeCompare(b.name) || a.architecture.localeCompare(b.architecture),
  );
}

/** Kernels of the attention path, one row each, with registers per architecture. */
function ptxasTable(kernels) {
  const attention = kernels.filter(({ source }) =>
    /^(flash|hopper|plain|packing|merge|prepare|gate|selection\w*)$/.test(source),
  );
  const architectures = [...new Set(kernels.map((kernel) => kernel.architecture))].sort();
  const rows = new Map();
  for (const kernel of attention)
    rows.set(kernel.name, { ...rows.get(kernel.name), source: kernel.source, [kernel.architecture]: kernel });
  return [
    ['kernel', 'source', 'shared memory', ...architectures.map((name) => `registers ${name}`), 'spilled bytes'],
    ...[...rows].map(([name, row]) => [
      `\`${name}\``,
      `${row.source}.cu`,
      sharedMemory(name),
      ...architectures.map((architecture) => registers(name, row[architecture])),
      String(architectures.reduce((sum, architecture) => sum + (row[architecture]?.spilledBytes ?? 0), 0)),
    ]),
  ];
}

/** Where wgmma is missing, a kernel of wgmma is an empty one. */
function registers(name, kernel) {
  return name.startsWith('Hopper') && !kernel?.architecture.endsWith('a') ? '' : String(kernel?.registers ?? '');
}

/**
 * Attention's tiles lie in shared memory that is asked for at launch, so ptxas does not know it: 128 queries and two tiles of keys,
 * on Hopper six of 128 keys each (and 2 KB of barriers and notes).
 */
function sharedMemory(name) {
  const [, dim, keys] = /^Flash<(\d+), (\d+),/.exec(name) ?? [];
  const [, hopperDim] = /^Hopper<(\d+),/.exec(name) ?? [];
  if (hopperDim !== undefined) return `${((128 + 6 * 128) * Number(hopperDim) * 2) / 1024} KB`;
  return dim === undefined ? '' : `${((128 + 2 * Number(keys)) * Number(dim) * 2) / 1024} KB`;
}

/** A table as Prettier leaves it. */
function markdown(rows) {
  const widths = rows[0].map((_, at) => Math.max(3, ...rows.map((row) => row[at].length)));
  const line = (cells) => `| ${cells.map((cell, at) => cell.padEnd(widths[at])).join(' | ')} |`;
  return [line(rows[0]), line(widths.map((width) => '-'.repeat(width))), ...rows.slice(1).map(line)].join('\n');
}

function replaced(text, [name, table]) {
  const marks = [`<!-- ${name} -->`, `<!-- end of ${name} -->`];
  const [from, to] = marks.map((mark) => text.indexOf(mark));
  if (from < 0 || to < from) throw new CommandFailed(`${page} lacks the marks ${marks.join(' and ')}`);
  return `${text.slice(0, from)}${marks[0]}\n\n${table}\n\n${text.slice(to)}`;
}
