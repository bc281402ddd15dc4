/**
 * Writes docs/CONTRACT.md from the contract itself:  npm run docs:contract   (--check: fails when the page is not current)
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { format, resolveConfig } from 'prettier';
import { contractPage } from './lib/contractPage.ts';

const path = fileURLToPath(new URL('../docs/CONTRACT.md', import.meta.url));
const page = await format(contractPage(), { ...(await resolveConfig(path)), plugins: [], parser: 'markdown' });
if (!process.argv.includes('--check')) writeFileSync(path, page);
else if (!existsSync(path) || readFileSync(path, 'utf8') !== page) {
  console.error('docs/CONTRACT.md is not current: run npm run docs:contract');
  process.exitCode = 1;
}
