import { describe, expect, test } from 'vitest';
import { page, userEvent } from 'vitest/browser';
import { StudioError } from '../../contract/errors.ts';
import EstimateBar from '../../renderer/components/compose/EstimateBar.svelte';
import PolicyCard from '../../renderer/components/compose/PolicyCard.svelte';
import PromptBox from '../../renderer/components/compose/PromptBox.svelte';
import SamplingCard from '../../renderer/components/compose/SamplingCard.svelte';
import SizeCard from '../../renderer/components/compose/SizeCard.svelte';
import Settings from '../../renderer/screens/Settings.svelte';
import { before, mountApp, mountPart, openStudio } from './support/studio.ts';

const field = (name: string) => page.getByRole('spinbutton', { name, exact: true });
const value = (name: string) => (field(name).element() as HTMLInputElement).value;

/** Key by key, over what was there. */
async function type(name: string, text: string) {
  await field(name).click();
  await userEvent.keyboard(`{Control>}a{/Control}${text}`);
}

const leave = () => userEvent.tab();

describe('numbers', () => {
  const sizeCard = async (
    changes: Parameters<Awaited<ReturnType<typeof openStudio>>['app']['compose']['change']>[0],
  ) => {
    const studio = await openStudio();
    studio.app.compose.change(changes);
    await mountPart(studio, SizeCard);
    return studio.app.compose;
  };

  test.each([
    ['Frames', '30', { frames: 29 }, '29'],
    ['Frames', '31', { frames: 33 }, '33'],
    ['Frames', '0', { frames: 1 }, '1'],
    ['Frames', '9999', { frames: 4097 }, '4097'],
    ['Width', '100', { width: 96 }, '96'],
    ['Width', '-40', { width: 16 }, '16'],
    ['Height', '99999', { height: 8192 }, '8192'],
  ])('%s %s becomes what a model takes', async (name, typed, settings, shown) => {
    const compose = await sizeCard({ width: 144, height: 144 });
    await type(name, typed);
    expect(value(name)).toBe(typed);
    await leave();
    expect(compose.settings).toMatchObject(settings);
    expect(value(name)).toBe(shown);
  });

  test('a length in seconds can be typed digit by digit', async () => {
    const compose = await sizeCard({ fps: 16 });
    await type('Length', '2.5');
    expect(value('Length')).toBe('2.5');
    await leave();
    expect(compose.settings.frames).toBe(41);
    expect(value('Length')).toBe('2.56');
  });

  test('arrow keys go from one allowed value to the next', async () => {
    const compose = await sizeCard({ width: 150, height: 144, frames: 33 });
    await field('Frames').click();
    await userEvent.keyboard('{ArrowUp}{ArrowUp}{ArrowDown}');
    expect(compose.settings.frames).toBe(37);
    await field('Width').click();
    await userEvent.keyboard('{ArrowUp}');
    expect(compose.settings.width).toBe(160);
    await field('Length').click();
    await userEvent.keyboard('{ArrowDown}');
    expect(compose.settings.frames).toBe(33);
    await leave();
    expect([value('Frames'), value('Width')]).toEqual(['33', '160']);
  });

  test('arrow keys stop at the ends', async () => {
    const compose = await sizeCard({ frames: 1, fps: 240 });
    await field('Frames').click();
    await userEvent.keyboard('{ArrowDown}');
    await field('Frame rate').click();
    await userEvent.keyboard('{ArrowUp}');
    expect(compose.settings).toMatchObject({ frames: 1, fps: 240 });
  });

  test('rubbish changes nothing and goes when the field is left', async () => {
    const compose = await sizeCard({ frames: 33 });
    await type('Frames', '--e');
    expect((field('Frames').element() as HTMLInputElement).validity.badInput).toBe(true);
    await leave();
    expect(compose.settings.frames).toBe(33);
    expect(value('Frames')).toBe('33');
    expect((field('Frames').element() as HTMLInputElement).validity.badInput).toBe(false);
  });

  test('rubbish is not the same as nothing, where nothing has a meaning', async () => {
    const studio = await openStudio({ settings: { memoryLimitBytes: 4e9 } });
    await mountPart(studio, Settings);
    await type('Memory limit', 'e-');
    await leave();
    expect(studio.world.settings.memoryLimitBytes).toBe(4e9);
    expect(value('Memory limit')).toBe('4');
    await field('Memory limit').fill('');
    await leave();
    await expect.poll(() => studio.world.settings.memoryLimitBytes).toBeNull();
  });

  test('a size of the list fits the model', async () => {
    const compose = await sizeCard({});
    await page.getByRole('combobox', { name: /^Size:/ }).click();
    await page.getByRole('option', { name: /256 × 144/ }).click();
    expect(compose.settings).toMatchObject({ width: 256, height: 144 });
  });

  test('what the studio refuses is told at its field, and read out with it', async () => {
    const studio = await openStudio();
    await mountPart(studio, SamplingCard);
    await field('Steps').fill('5000');
    const steps = field('Steps').element();
    await expect.poll(() => steps.getAttribute('aria-invalid')).toBe('true');
    const described = document.getElementById(steps.getAttribute('aria-describedby') ?? '');
    expect(described?.textContent).toMatch(/1000/);
    await field('Steps').fill('50');
    await expect.poll(() => steps.getAttribute('aria-invalid')).toBeNull();
    expect(studio.app.compose.settings.steps).toBe(50);
  });

  test('a seed of one’s own is kept', async () => {
    const studio = await openStudio();
    await mountPart(studio, SamplingCard);
    await page.getByRole('textbox', { name: 'Seed' }).fill('18446744073709551616');
    await expect.element(page.getByText(/18446744073709551615/)).toBeVisible();
    await page.getByRole('textbox', { name: 'Seed' }).fill('42');
    expect(studio.app.compose).toMatchObject({ seedMode: 'locked', settings: { seed: '42' } });
    await expect.element(page.getByText(/18446744073709551615/)).not.toBeInTheDocument();
  });
});

describe('the prompt', () => {
  const prompt = () => page.getByRole('textbox', { name: 'Prompt', exact: true });

  test('an empty one is no problem until someone wants to render', async () => {
    const studio = await openStudio();
    await mountApp(studio);
    await expect.element(prompt()).not.toHaveAttribute('aria-invalid');
    await page.getByRole('button', { name: 'Render', exact: true }).click();
    await expect.element(prompt()).toHaveAttribute('aria-invalid', 'true');
    await expect.element(prompt()).toHaveAccessibleDescription('Say what the clip shows.');
    expect(studio.world.renders).toEqual([]);
    await prompt().fill('a red ball');
    await expect.element(prompt()).not.toHaveAttribute('aria-invalid');
    await page.getByRole('button', { name: 'Render', exact: true }).click();
    await expect.poll(() => studio.world.renders.map(({ settings }) => settings.prompt)).toEqual(['a red ball']);
  });

  test('the render key on another screen leads to the prompt that is missing', async () => {
    const studio = await openStudio();
    await mountApp(studio);
    studio.app.navigation.go('queue');
    await userEvent.keyboard('{Control>}{Enter}{/Control}');
    await expect.element(prompt()).toHaveFocus();
    await expect.element(page.getByText('Say what the clip shows.')).toBeVisible();
  });

  test('one that is too long says so, counted in bytes', async () => {
    const studio = await openStudio();
    await mountPart(studio, PromptBox);
    await prompt().fill('球'.repeat(3334));
    await expect.element(prompt()).toHaveAccessibleDescription(/at most 10000 bytes/);
  });

  test('an earlier prompt comes back with what the clip should not show', async () => {
    const studio = await openStudio({ waiting: 2 });
    await mountPart(studio, PromptBox);
    await page.getByRole('button', { name: 'Earlier prompts' }).click();
    await page.getByRole('menuitem', { name: 'a green square moves to the right' }).click();
    await expect.element(prompt()).toHaveValue('a green square moves to the right');
  });
});

describe('the attention dial', () => {
  const dial = () => page.getByRole('slider', { name: 'Attention: from reference to fastest' });
  const spoken = () => dial().element().getAttribute('aria-valuetext') ?? '';
  const opened = async () => {
    const studio = await openStudio();
    await mountPart(studio, PolicyCard);
    await expect.poll(() => studio.app.compose.dial.items.length).toBe(6);
    return studio.app.compose;
  };

  test('goes from the reference to the fastest by keyboard, each step less dense', async () => {
    const compose = await opened();
    dial().element().focus();
    await userEvent.keyboard('{Home}');
    await expect.poll(() => compose.dial.current).toBe(0);
    expect(compose.settings.policy.mode).toBe('dense');
    await expect.poll(spoken).toMatch(/the reference\. Density 1\.00$/);
    const densities: number[] = [];
    for (let step = 1; step < 6; step++) {
      await userEvent.keyboard('{ArrowRight}');
      await expect.poll(() => compose.dial.current).toBe(step);
      densities.push(compose.estimate?.expectedDensity ?? 1);
    }
    expect(densities).toEqual([...densities].sort((a, b) => b - a));
    expect(new Set(densities).size).toBe(5);
    expect(compose.settings.policy.tau).toBe(0.125);
  });

  test('a policy set by hand stands where its density belongs, and is called so', async () => {
    const compose = await opened();
    await page.getByRole('button', { name: /Partitions, blocks, dense steps/ }).click();
    await field('τ').fill('0.39');
    await expect.element(page.getByText('Own policy').first()).toBeVisible();
    expect(compose.settings.policy).toMatchObject({ name: 'own', tau: 0.39 });
    await expect.poll(() => compose.dial.current).toBeNull();
    expect(dial().element().getAttribute('aria-valuenow')).toBe('2');
  });

  test('all steps dense are 99 %, not one step', async () => {
    const compose = await opened();
    await page.getByRole('button', { name: /Partitions, blocks, dense steps/ }).click();
    await field('Dense steps').fill('100');
    await leave();
    expect(compose.settings.policy.denseSteps).toBe(0.99);
    expect(value('Dense steps')).toBe('99');
  });
});

describe('the token grid', () => {
  const picture = () => page.getByRole('img', { name: /^Token grid/ });
  const area = (kind: 'sheet' | 'block') =>
    [...document.querySelectorAll(`svg .${kind}`)].map((rect) => {
      const size = (name: string) => Number(rect.getAttribute(name));
      return { width: size('width'), height: size('height') };
    });

  test('says and draws the grid, and the tinted block of each partition', async () => {
    const studio = await openStudio();
    studio.app.compose.change({ width: 192, height: 192, frames: 33 });
    await mountPart(studio, SizeCard);
    await expect.element(picture()).toHaveAccessibleName(/9 frames, 12 rows and 12 columns; one block of the 3D/);
    expect(area('sheet')).toHaveLength(9);
    // Blocks of 3 × 2 × 3 tokens: three sheets tinted, a quarter wide, a sixth high.
    const [sheet] = area('sheet');
    expect(area('block')).toHaveLength(3);
    expect(area('block')[0]?.width).toBeCloseTo((sheet?.width ?? 0) / 4);
    expect(area('block')[0]?.height).toBeCloseTo((sheet?.height ?? 0) / 6);
    await page.getByRole('radio', { name: '2D' }).click();
    await expect.element(picture()).toHaveAccessibleName(/2D/);
    expect(area('block')).toHaveLength(9);
    await page.getByRole('radio', { name: '1D' }).click();
    await expect.poll(() => area('block')).toEqual([sheet]);
  });

  test('tints nothing and claims nothing where attention is dense', async () => {
    const studio = await openStudio();
    studio.app.compose.change({
      width: 192,
      height: 192,
      frames: 33,
      policy: { ...studio.app.compose.settings.policy, mode: 'dense' },
    });
    await mountPart(studio, SizeCard);
    await expect.element(picture()).toHaveAccessibleName('Token grid of 9 frames, 12 rows and 12 columns.');
    expect(area('block')).toEqual([]);
  });

  test('draws no more sheets and lines than can be told apart', async () => {
    const studio = await openStudio();
    studio.app.compose.change({ width: 1280, height: 720, frames: 4097 });
    await mountPart(studio, SizeCard);
    await expect.element(picture()).toHaveAccessibleName(/1,?025 frames/);
    expect(area('sheet')).toHaveLength(9);
    expect(document.querySelectorAll('svg line').length).toBeLessThan(100);
  });
});

describe('the estimate', () => {
  test('refused for what Compose has no field for, leads to where it is decided', async () => {
    const studio = await openStudio();
    const { compose } = studio.app;
    before(studio, 'estimates.get', () =>
      Promise.reject(new StudioError('unsupported', 'cuda:0: No NVIDIA driver was found.', { field: 'device' })),
    );
    compose.change({ device: 'cuda:0' });
    await mountPart(studio, EstimateBar);
    await expect.element(page.getByText('cuda:0: No NVIDIA driver was found.')).toBeVisible();
    await page.getByRole('button', { name: 'Leave it to Settings' }).click();
    expect(compose.settings.device).toBeUndefined();
    await page.getByRole('button', { name: 'Open Settings' }).click();
    expect(studio.app.navigation.screen).toBe('settings');
  });

  test('learns from a render as soon as it is finished', async () => {
    const studio = await openStudio({ takes: 0, waiting: 1 });
    await mountPart(studio, EstimateBar);
    await expect.element(page.getByText('no render here yet')).toBeVisible();
    const [waiting] = studio.world.renders;
    for (let step = 0; step <= (waiting?.settings.steps ?? 0) + 1; step++) studio.world.advance();
    await expect.element(page.getByText('from 1 render here')).toBeVisible();
  });

  const cost = () => page.getByRole('group', { name: 'Estimate' });
  const bar = async (takes: number, changes = {}) => {
    const studio = await openStudio({ takes });
    studio.app.compose.change({ prompt: 'a red ball', ...changes });
    await mountPart(studio, EstimateBar);
    await expect.poll(() => studio.app.compose.estimate).not.toBeNull();
    return studio;
  };

  test('without a render it is unknown, and can be measured', async () => {
    await bar(0);
    await expect.element(cost()).toMatchTextContent(/Time – Memory .+MB .*no render here yet/);
    await page.getByRole('button', { name: 'Measure now' }).click();
    await expect.element(page.getByRole('button', { name: 'Measure now' })).toBeEnabled();
  });

  test('with renders it is a time between two others', async () => {
    const studio = await bar(3);
    await expect.element(cost()).toMatchTextContent(/Time [\d.]+ m?s [\d.]+ m?s – [\d.]+ m?s .*from 3 renders here/);
    const { low, expected, high } = studio.app.compose.estimate?.seconds ?? { low: 0, expected: 0, high: 0 };
    expect(low).toBeLessThan(expected);
    expect(expected).toBeLessThan(high);
  });

  test('beyond the memory limit it warns, and renders only as asked', async () => {
    const studio = await bar(1, { memoryLimitBytes: 1e6 });
    await expect.element(cost()).toMatchTextContent(/more than the memory limit allows/);
    await page.getByRole('button', { name: 'Render anyway' }).click();
    await expect.poll(() => studio.world.renders.at(-1)?.settings.runAnyway).toBe(true);
  });

  test('a full disk is told before anything is rendered', async () => {
    const studio = await bar(1);
    studio.world.freeDiskBytes = 1000;
    studio.app.compose.askSoon();
    await expect.element(cost()).toMatchTextContent(/The disk has not enough room/);
  });

  test('a problem in a folded field stands beside the button it stops', async () => {
    const studio = await bar(1);
    studio.app.compose.change({ policy: { ...studio.app.compose.settings.policy, denseSteps: 5000 } });
    await expect.element(cost()).toMatchTextContent(/1000/);
  });

  test('a studio that does not answer is told', async () => {
    const studio = await bar(1);
    studio.transport.drop();
    studio.app.compose.change({ frames: 5 });
    await expect.element(cost()).toMatchTextContent(/dropped/);
  });

  test('a sweep says how many it starts', async () => {
    const studio = await bar(1);
    studio.app.compose.seedMode = 'sweep';
    studio.app.compose.sweepCount = 7;
    await page.getByRole('button', { name: 'Render 7' }).click();
    await expect.poll(() => studio.world.renders.filter(({ sweepId }) => sweepId !== null).length).toBe(7);
  });
});
