/** `vmoba-studio verify`: reference fixtures through the real engine. */
import { resolve } from 'node:path';
import { Command } from 'commander';
import type { VerifyRow, VerifySummary } from '../engine/protocol.ts';
import { withEngine } from './engine.ts';
import { exitCodes } from './exitCodes.ts';

interface VerifyFlags {
  backend: string;
  threads: number;
  json?: boolean;
}

export function verifyCommand(): Command {
  return new Command('verify')
    .description('Run every reference fixture of a folder through the engine; exit code 1 if anything differs')
    .argument('<folder>')
    .option('--backend <device>', 'device that computes', 'cpu')
    .option('--threads <n>', '0 = all cores', Number, 0)
    .option('--json', 'print JSON lines')
    .action(async (folder: string, { backend, threads, json }: VerifyFlags) => {
      const print = json ? (row: VerifyRow) => console.log(JSON.stringify({ event: 'row', ...row })) : printRow;
      const summary = await withEngine((engine) =>
        engine.verify({ directory: resolve(folder), device: backend, threads }, print),
      );
      console.log(json ? JSON.stringify({ event: 'summary', ...summary }) : inWords(summary));
      if (summary.failed > 0) process.exitCode = exitCodes.failure;
    });
}

function printRow(row: VerifyRow): void {
  const limit = row.tolerance === 0 ? 'exact' : `≤ ${row.tolerance.toPrecision(2)}`;
  const verdict = row.pass ? 'PASS' : 'FAIL';
  const name = `${row.file.padEnd(24)} ${row.tensor.padEnd(36)}`;
  console.log(
    `${verdict}  ${name} ${row.error.toPrecision(3).padStart(9)}  ${limit}${row.note ? `  ${row.note}` : ''}`,
  );
}

function inWords({ compared, files, failed, seconds }: VerifySummary): string {
  return `${compared} tensors of ${files} files compared in ${seconds.toFixed(1)} s, ${failed} differ: ${failed === 0 ? 'PASS' : 'FAIL'}`;
}
