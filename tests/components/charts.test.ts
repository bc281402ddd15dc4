import { describe, expect, test } from 'vitest';
import { page, userEvent } from 'vitest/browser';
import { magmaAt, themeColour } from '../../renderer/charts/colours.ts';
import Heat from '../../renderer/charts/Heat.svelte';
import Plot from '../../renderer/charts/Plot.svelte';
import { readMaps } from '../../renderer/state/maps.ts';
import { mapsOf } from '../../renderer/transport/fake/rendering.ts';
import { mountAlone, mountApp, openLive } from './support/studio.ts';

type Colour = [number, number, number];

const rgb = (hex: string): Colour => {
  const value = Number.parseInt(hex.slice(1), 16);
  return [value >> 16, (value >> 8) & 255, value & 255];
};
const token = (name: string) => rgb(themeColour(name));
const canvasOf = (selector: string) => document.querySelector(`${selector} canvas`) as HTMLCanvasElement;
const pixelsOf = (canvas: HTMLCanvasElement) =>
  canvas.getContext('2d')?.getImageData(0, 0, canvas.width, canvas.height);

function pixel(canvas: HTMLCanvasElement, x: number, y: number): number[] {
  return [...(canvas.getContext('2d')?.getImageData(Math.floor(x), Math.floor(y), 1, 1).data ?? [])];
}

/** How many pixels have exactly a colour. */
function countOf(canvas: HTMLCanvasElement, [r, g, b]: Colour): number {
  const data = pixelsOf(canvas)?.data ?? [];
  let found = 0;
  for (let at = 0; at < data.length; at += 4)
    if (data[at] === r && data[at + 1] === g && data[at + 2] === b && data[at + 3] === 255) found++;
  return found;
}

describe('a heat picture', () => {
  test('has one pixel for each value, row by row, beyond the scale its ends', async () => {
    await mountAlone(Heat, { values: [0, 0.5, 1, -3, 7, Number.NaN], width: 3, height: 2 });
    const canvas = canvasOf('#app');
    expect([canvas.width, canvas.height]).toEqual([3, 2]);
    const drawn = [0, 1].flatMap((y) => [0, 1, 2].map((x) => pixel(canvas, x, y).slice(0, 3)));
    expect(drawn.slice(0, 5)).toEqual([magmaAt(0), magmaAt(0.5), magmaAt(1), magmaAt(0), magmaAt(1)]);
  });

  test('of nothing is nothing', async () => {
    await mountAlone(Heat, { values: [], width: 0, height: 0 });
    expect(canvasOf('#app')).toBeTruthy();
  });
});

describe('a chart over steps', () => {
  const chart = (props: Partial<Parameters<typeof Plot>[1]> = {}) => ({
    label: 'Seconds of each step',
    x: [1, 2, 3, 4],
    until: 4,
    series: [{ label: 'measured', colour: 'sparse', values: [1, 2, 3, 4] as (number | null)[] }],
    height: 120,
    format: (value: number) => `${value} s`,
    theme: 'dark',
    ...props,
  });
  const canvas = () => canvasOf('[role=img]');
  const drawn = (colour: string) => countOf(canvas(), token(colour));

  test('draws its line in its colour, and has a name', async () => {
    await mountAlone(Plot, chart());
    await expect.element(page.getByRole('img', { name: 'Seconds of each step' })).toBeVisible();
    await expect.poll(() => drawn('sparse')).toBeGreaterThan(50);
  });

  test('without a step it is an empty chart, and takes the first one when it comes', async () => {
    const empty = { label: 'measured', colour: 'sparse', values: [] };
    const mounted = await mountAlone(Plot, chart({ x: [], series: [empty] }));
    await expect.poll(() => canvas()?.width).toBeGreaterThan(100);
    expect(drawn('sparse')).toBe(0);
    await mounted.rerender({ x: [1], series: [{ ...empty, values: [2] }] });
    await expect.poll(() => drawn('sparse')).toBeGreaterThan(0);
  });

  test.each([
    ['nulls', [null, null, null, null]],
    ['one infinite', [1, Infinity, 3, 4]],
    ['one that is no number', [1, Number.NaN, 3, 4]],
    ['zeros', [0, 0, 0, 0]],
    ['huge ones', [1e15, 2e15, 3e15, 4e15]],
  ] as [string, (number | null)[]][])('values with %s do no harm', async (_, values) => {
    await mountAlone(Plot, chart({ series: [{ label: 'measured', colour: 'sparse', values }] }));
    await expect.poll(() => canvas()?.width).toBeGreaterThan(100);
    const finite = values.filter((value) => value !== null && Number.isFinite(value)).length;
    if (finite >= 2) await expect.poll(() => drawn('sparse')).toBeGreaterThan(10);
    else expect(drawn('sparse')).toBe(0);
  });

  test('100,000 steps are drawn within the chart', async () => {
    const x = Array.from({ length: 100_000 }, (_, index) => index + 1);
    const values = x.map((step) => 2 + Math.sin(step / 3000));
    await mountAlone(Plot, chart({ x, until: x.length, series: [{ label: 'measured', colour: 'sparse', values }] }));
    await expect.poll(() => drawn('sparse')).toBeGreaterThan(200);
  });

  test('stacked kinds lie on each other in their order', async () => {
    const colours = ['linears', 'sparse', 'warning'];
    await mountAlone(
      Plot,
      chart({ stacked: true, series: colours.map((colour) => ({ label: colour, colour, values: [1, 1, 1, 1] })) }),
    );
    await expect.poll(() => colours.map((colour) => drawn(colour) > 100)).toEqual([true, true, true]);
    const shown = canvas();
    const upwards = (x: number) => {
      const found: string[] = [];
      for (let y = shown.height - 1; y >= 0; y--) {
        const here = pixel(shown, x, y).slice(0, 3).join();
        const name = colours.find((colour) => token(colour).join() === here);
        if (name && found.at(-1) !== name) found.push(name);
      }
      return found.join();
    };
    const found = new Set(Array.from({ length: shown.width / 4 }, (_, index) => upwards(index * 4)));
    expect([...found].sort()).toEqual(['', colours.join()]);
    const areas = colours.map(drawn);
    expect(Math.max(...areas) / Math.min(...areas)).toBeLessThan(1.15);
  });

  test('takes the colours of the other theme', async () => {
    const mounted = await mountAlone(Plot, chart());
    await expect.poll(() => drawn('sparse')).toBeGreaterThan(50);
    document.documentElement.dataset['theme'] = 'light';
    await mounted.rerender({ theme: 'light' });
    await expect.poll(() => drawn('sparse')).toBeGreaterThan(50);
    expect(token('sparse')).toEqual(rgb('#0b6f63'));
  });
});

describe('the density map', () => {
  const map = () => page.getByRole('button', { name: /^Heat map of density/ });
  const cell = () => page.getByTestId('cell');

  /** One dense step, one of planted densities, the rest still to come. */
  async function planted() {
    const live = await openLive(2, { settings: { reducedMotion: 'on' } });
    const [first, second] = live.planted;
    if (!first || !second) throw new Error('Two steps should be done.');
    for (const layer of first.layers) Object.assign(layer, { dense: true, density: 1, reason: 'the policy says so' });
    second.layers.forEach((layer, index) =>
      Object.assign(layer, { dense: index === 5, density: index / 20, reason: index === 5 ? 'too few tokens' : null }),
    );
    await mountApp(live);
    live.app.navigation.go('live');
    await expect.element(map()).toBeVisible();
    await expect.poll(() => canvasOf('.map').width).toBeGreaterThan(100);
    return live;
  }
  const at = (step: number, layer: number, steps: number): [HTMLCanvasElement, number, number] => {
    const canvas = canvasOf('.map');
    return [canvas, ((step + 0.5) * canvas.width) / steps, ((layer + 0.5) * canvas.height) / 12];
  };

  test('draws each density in its colour, dense ones hatched, those to come empty', async () => {
    const { render } = await planted();
    const { steps } = render.settings;
    // The scale ends at the next tenth above the largest sparse density, 0.55.
    for (const layer of [0, 1, 4, 8, 11])
      expect([layer, pixel(...at(1, layer, steps)).slice(0, 3)]).toEqual([layer, magmaAt(layer / 20 / 0.6)]);
    expect(pixel(...at(2, 3, steps)).slice(0, 3)).toEqual(token('raised'));
    const [canvas] = at(0, 0, steps);
    const hatched = new Set<string>();
    const cellHeight = canvas.height / 12;
    for (const layer of [0, 11])
      for (let y = layer * cellHeight + 1; y < (layer + 1) * cellHeight - 2; y++)
        hatched.add(pixel(canvas, 8, y).join());
    expect(hatched.size).toBeGreaterThan(1);
    expect(hatched).toContain([...token('raised'), 255].join());
  });

  test('the keyboard moves the cell, says what it holds, and stays inside', async () => {
    const { app, render } = await planted();
    map().element().focus();
    await expect
      .element(map())
      .toHaveAccessibleName(
        `Heat map of density, 12 layers by ${render.settings.steps} steps. Arrow keys choose a cell.`,
      );
    await userEvent.keyboard('{ArrowDown}');
    await expect.element(cell()).toMatchTextContent('Layer 1, step 2 · density 0.05');
    await userEvent.keyboard('{ArrowDown}{ArrowDown}{ArrowDown}{ArrowDown}');
    await expect.element(cell()).toMatchTextContent('Layer 5, step 2 · dense: too few tokens');
    await userEvent.keyboard('{ArrowLeft}{ArrowLeft}{ArrowLeft}');
    await expect.element(cell()).toMatchTextContent('Layer 5, step 1 · dense: the policy says so');
    await userEvent.keyboard('{ArrowRight}{ArrowRight}');
    await expect.element(cell()).toMatchTextContent('Layer 5, step 3 · not run yet');
    for (let press = 0; press < 10; press++) await userEvent.keyboard('{ArrowDown}');
    await expect.poll(() => app.live.cell).toEqual({ step: 2, layer: 11 });
    await userEvent.keyboard('{Escape}');
    await expect.element(cell()).toMatchTextContent('choose a cell');
  });

  test('the pointer names the cell it is over, and chooses it', async () => {
    const { app, render } = await planted();
    const { width, height } = map().element().getBoundingClientRect();
    const position = { x: (1.5 * width) / render.settings.steps, y: (8.5 * height) / 12 };
    await map().hover({ position });
    await expect.element(cell()).toMatchTextContent('Layer 8, step 2 · density 0.40');
    await map().click({ position });
    await expect.poll(() => app.live.cell).toEqual({ step: 1, layer: 8 });
  });

  test('a new step is drawn when it comes', async () => {
    const { world, render } = await planted();
    const { steps } = render.settings;
    world.advance();
    await expect
      .poll(() =>
        pixel(...at(2, 3, steps))
          .slice(0, 3)
          .join(),
      )
      .not.toBe(token('raised').join());
  });
});

describe('attention maps', () => {
  async function live() {
    const opened = await openLive(6, { settings: { reducedMotion: 'on' } });
    await mountApp(opened);
    opened.app.navigation.go('live');
    await expect.poll(() => opened.app.live.maps?.selectionMap?.size).toBeGreaterThan(1);
    const { header, data } = mapsOf(opened.render.settings, 5, 0, 8);
    return { ...opened, maps: readMaps(header, data) };
  }

  test('the block map draws queries downwards and keys across, and says what it shows', async () => {
    const { maps } = await live();
    const { size, data } = maps.selectionMap ?? { size: 0, data: new Float32Array() };
    const picture = page.getByRole('img', { name: /^How often each of/ });
    await expect
      .element(picture)
      .toHaveAccessibleName(`How often each of ${size} blocks of queries selects each block of keys, layer 0, step 6.`);
    const canvas = picture.element().querySelector('canvas') as HTMLCanvasElement;
    expect([canvas.width, canvas.height]).toEqual([size, size]);
    for (const [query, key] of [
      [0, 0],
      [2, 0],
      [0, 2],
      [size - 1, 1],
    ] as const)
      expect(pixel(canvas, key, query).slice(0, 3)).toEqual(magmaAt(data[query * size + key] ?? 0));
    const { width, height } = picture.element().getBoundingClientRect();
    await picture.hover({ position: { x: width * (0.5 / size), y: height * (2.5 / size) } });
    await expect.element(page.getByText(`block 2 → 0: ${(data[2 * size] ?? 0).toFixed(2)}`)).toBeVisible();
  });

  test('a chosen word lies over the picture where it acts, and goes when chosen again', async () => {
    const { app } = await live();
    const word = page.getByRole('button', { name: 'green', exact: true });
    await word.click();
    await expect.element(word).toHaveAttribute('aria-pressed', 'true');
    await expect.element(page.getByTestId('overlay')).toBeInTheDocument();
    const canvas = canvasOf('[data-testid=overlay]');
    const [, rows, columns] = app.live.maps?.grid ?? [0, 0, 0];
    expect([canvas.width, canvas.height]).toEqual([columns, rows]);
    // In the first frame the shape is at a quarter of the width and 0.7 of the height.
    const opaque = Array.from(
      { length: rows * columns },
      (_, index) => pixel(canvas, index % columns, index / columns)[3] ?? 0,
    );
    const strongest = opaque.indexOf(Math.max(...opaque));
    expect([columns / 4 - 1, columns / 4]).toContain(strongest % columns);
    expect(Math.floor(strongest / columns)).toBe(Math.floor(0.7 * rows));
    await word.click();
    await expect.element(page.getByTestId('overlay')).not.toBeInTheDocument();
  });

  test('every chart is there as a table', async () => {
    const { planted } = await live();
    await page.getByRole('button', { name: 'As a table' }).click();
    const rows = page.getByRole('dialog').getByRole('row');
    await expect.poll(() => rows.elements().length).toBe(1 + planted.length);
    await expect.element(rows.nth(6)).toMatchTextContent(/^6/);
  });
});
