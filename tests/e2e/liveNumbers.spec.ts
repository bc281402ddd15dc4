/** What Live shows is what the engine measured; and this test would see it if it were not. */
import { mkdtempSync, readFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isDeepStrictEqual } from 'node:util';
import type { Page } from '@playwright/test';
import type { StepReport } from '../../main/engine/binding.ts';
import type { ServedStudio } from './support/servedStudio.ts';
import { expect, go, test } from './support/studio.ts';

const addon = fileURLToPath(new URL('./support/recordingAddon.ts', import.meta.url));

function environment(plant?: 'planted'): Record<string, string> {
  const record = join(mkdtempSync(join(tmpdir(), 'vmoba-record-')), 'steps.jsonl');
  return { VMOBA_ADDON: addon, VMOBA_RECORD: record, ...(plant ? { VMOBA_PLANT: '1' } : {}) };
}

interface Shown {
  measured: string;
  arithmetic: string;
  stepSeconds: string;
  parts: string[];
  meanDensity: string;
  densities: string[];
}

const parts = ['linears', 'attention', 'routing', 'other'] as const;

/** Renders and reads what the page says. */
async function shownBy(page: Page, studio: ServedStudio): Promise<Shown> {
  await go(page, 'Live');
  await studio.render();
  await expect(page.getByRole('button', { name: 'Play the take' })).toBeVisible();
  const text = (name: string) => page.getByTestId(name).innerText();
  // The last refresh of the statistics comes after the last step.
  await expect.poll(() => text('measured')).toMatch(/^\d/);
  await page.waitForTimeout(600);
  const map = page.getByRole('button', { name: /Heat map of density/ });
  await map.focus();
  await page.keyboard.press('ArrowLeft');
  await page.keyboard.press('ArrowRight');
  const densities: string[] = [];
  for (let layer = 0; layer < 3; layer++) {
    densities.push(await text('cell'));
    await page.keyboard.press('ArrowDown');
  }
  return {
    measured: await text('measured'),
    arithmetic: await text('arithmetic'),
    stepSeconds: await text('step-seconds'),
    parts: await Promise.all(parts.map((part) => text(`seconds-${part}`))),
    meanDensity: await text('mean-density'),
    densities,
  };
}

/** The same numbers, from the engine's own reports alone. */
function trueNumbers(record: string, plan: { linears: number; attentionDense: number }): Shown {
  const steps = readFileSync(record, 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as StepReport)
    // A short calibration may have come before: the render is the last run of step 0, 1, 2 ….
    .reduce<StepReport[]>((run, step) => (step.step === 0 ? [step] : [...run, step]), []);
  const dense = steps.filter(({ layers }) => layers.every((layer) => layer.dense));
  const sparse = steps.filter((step) => !dense.includes(step));
  const median = (values: number[]) => {
    const sorted = [...values].sort((a, b) => a - b);
    const half = sorted.length / 2;
    return sorted.length % 2 === 1
      ? (sorted[Math.floor(half)] ?? 0)
      : ((sorted[half - 1] ?? 0) + (sorted[half] ?? 0)) / 2;
  };
  const mean = (values: number[]) => values.reduce((sum, value) => sum + value, 0) / values.length;
  // The first step of a process packs weights and does not count where another dense one is there.
  const warm = dense.filter(({ step }) => step !== 0);
  const speedup =
    median((warm.length > 0 ? warm : dense).map(({ seconds }) => seconds.total)) /
    median(sparse.map(({ seconds }) => seconds.total));
  const density = mean(sparse.flatMap(({ layers }) => layers.map((layer) => layer.density)));
  const seconds = (value: number) => `${value.toFixed(value < 10 ? (value < 1 ? 3 : 2) : 1)} s`;
  const last = steps.at(-1) as StepReport;
  return {
    measured: `${speedup.toFixed(2)}×`,
    arithmetic: `${((plan.linears + plan.attentionDense) / (plan.linears + plan.attentionDense * density)).toFixed(2)}×`,
    stepSeconds: seconds(last.seconds.total),
    parts: parts.map((part) => seconds(last.seconds[part])),
    meanDensity: mean(steps.flatMap(({ layers }) => layers.map((layer) => layer.density))).toFixed(2),
    densities: last.layers
      .slice(0, 3)
      .map(({ layer, density: one, dense: whole, reason }) =>
        whole
          ? `Layer ${layer}, step ${last.step + 1} · dense: ${reason ?? ''}`
          : `Layer ${layer}, step ${last.step + 1} · density ${one.toFixed(2)}`,
      ),
  };
}

async function both(page: Page, studio: ServedStudio, env: Record<string, string>) {
  const shown = await shownBy(page, studio);
  const flops = await studio.with(async (client) => {
    const { items } = await client.call('renders.list', { states: ['done'] });
    return (await client.call('renders.statistics', { id: items[0]?.id ?? '' })).plan?.flops;
  });
  if (!flops) throw new Error('The render has no plan.');
  return { shown, truth: trueNumbers(env['VMOBA_RECORD'] ?? '', flops) };
}

test.describe('as the engine measured', () => {
  const env = environment();
  test.use({ env });
  test('Live shows the numbers that the engine measured', async ({ app, studio }) => {
    const { shown, truth } = await both(app, studio, env);
    expect(shown).toEqual(truth);
  });
});

test.describe('with wrong statistics planted', () => {
  const env = environment('planted');
  test.use({ env });
  test('each falsified number is noticed, and no other', async ({ app, studio }) => {
    const { shown, truth } = await both(app, studio, env);
    const differing = (Object.keys(truth) as (keyof Shown)[]).filter(
      (name) => !isDeepStrictEqual(shown[name], truth[name]),
    );
    // The engine's wrong density spoils what is computed from it; its wrong seconds the speed-up and their own row.
    expect(differing).toEqual(['measured', 'arithmetic', 'parts', 'meanDensity', 'densities']);
    const attention = parts.indexOf('attention');
    expect(shown.parts.map((part, index) => part === truth.parts[index] || index)).toEqual(
      parts.map((_, index) => (index === attention ? attention : true)),
    );
  });
});
