import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { page, userEvent } from 'vitest/browser';
import { StudioError, type StudioErrorCode } from '../../contract/errors.ts';
import type { Render } from '../../contract/renders.ts';
import type { RenderSettings } from '../../contract/renderSettings.ts';
import type { Take } from '../../contract/takes.ts';
import { createToasts } from '../../renderer/state/toasts.svelte.ts';
import { before, mountApp, openStudio, type Studio } from './support/studio.ts';

const frames = (count = 3) =>
  new Promise<void>((resolve) =>
    count === 0 ? resolve() : requestAnimationFrame(() => void frames(count - 1).then(resolve)),
  );

describe('the queue', () => {
  const rows = () => page.getByRole('list', { name: 'Waiting renders, first to last' }).getByRole('listitem');
  const handle = (prompt: string) =>
    page.getByRole('button', { name: `Move “${prompt}”: drag, or Alt with the arrow keys` });
  const order = (studio: Studio) => studio.app.renders.waiting.map(({ settings }) => settings.prompt);

  const lists = () => document.querySelector<HTMLElement>('.lists') as HTMLElement;

  // Ids of their own: the focus that comes back to a moved row must not find one of the next test.
  let queues = 0;
  async function queueOf(count: number): Promise<Studio> {
    const studio = await openStudio({ waiting: 1 });
    const [first] = studio.world.renders as [Render];
    const queue = (queues++).toString(36);
    studio.world.renders = Array.from({ length: count }, (_, index) => ({
      ...first,
      id: `rnd_${queue}${index.toString(36).padStart(19, '0')}`,
      position: index + 1,
      settings: { ...first.settings, prompt: `clip ${index + 1}` },
    }));
    await studio.app.renders.load();
    await mountApp(studio);
    studio.app.navigation.go('queue');
    await expect.element(rows().first()).toBeVisible();
    return studio;
  }

  test('rows move by keyboard; the focus goes along and the place is told', async () => {
    const studio = await queueOf(4);
    handle('clip 3').element().focus();
    await userEvent.keyboard('{Alt>}{ArrowUp}{/Alt}');
    await expect.poll(() => order(studio)).toEqual(['clip 1', 'clip 3', 'clip 2', 'clip 4']);
    await expect.element(page.getByText('clip 3: place 2 of 4')).toBeInTheDocument();
    await expect.element(handle('clip 3')).toHaveFocus();
    await userEvent.keyboard('{Alt>}{End}{/Alt}');
    await expect.poll(() => order(studio)).toEqual(['clip 1', 'clip 2', 'clip 4', 'clip 3']);
    await expect.element(handle('clip 3')).toHaveFocus();
    await userEvent.keyboard('{Alt>}{Home}{/Alt}');
    await expect.poll(() => order(studio)).toEqual(['clip 3', 'clip 1', 'clip 2', 'clip 4']);
    await expect.element(rows().first()).toMatchTextContent('clip 3');
  });

  test('moving beyond the ends changes nothing', async () => {
    const studio = await queueOf(2);
    handle('clip 1').element().focus();
    await userEvent.keyboard('{Alt>}{ArrowUp}{/Alt}');
    await expect.element(page.getByText('clip 1: place 1 of 2')).toBeInTheDocument();
    expect(order(studio)).toEqual(['clip 1', 'clip 2']);
  });

  test('a row sent out of view takes focus and view along', async () => {
    const studio = await queueOf(120);
    handle('clip 2').element().focus();
    await userEvent.keyboard('{Alt>}{End}{/Alt}');
    await expect.poll(() => order(studio).at(-1)).toBe('clip 2');
    await expect.element(handle('clip 2')).toHaveFocus();
    await expect.element(handle('clip 2')).toBeInViewport();
  });

  test('of 10,000 rows few exist, the last can be reached, and the focused one stays', async () => {
    await queueOf(10_000);
    expect(rows().elements().length).toBeLessThan(60);
    handle('clip 2').element().focus();
    const scroller = lists();
    await expect
      .poll(async () => {
        scroller.scrollTop = scroller.scrollHeight;
        await frames();
        return handle('clip 10000').elements().length;
      })
      .toBe(1);
    await expect.element(handle('clip 10000')).toBeInViewport();
    expect(rows().elements().length).toBeLessThan(60);
    await expect.element(handle('clip 2')).toHaveFocus();
  });

  test('with a running render above, the last row still comes into view', async () => {
    const studio = await queueOf(60);
    studio.world.advance();
    await expect.element(page.getByRole('progressbar')).toBeVisible();
    const scroller = lists();
    scroller.scrollTop = scroller.scrollHeight;
    await expect.element(handle('clip 60')).toBeInViewport();
  });

  describe('by pointer', () => {
    const row = (prompt: string) => rows().filter({ hasText: prompt });
    const drop = async (prompt: string, on: string, half: 'upper' | 'lower') => {
      const { width, height } = row(on).element().getBoundingClientRect();
      const y = half === 'upper' ? 6 : height - 8;
      await userEvent.dragAndDrop(handle(prompt), row(on), { targetPosition: { x: Math.round(width / 2), y } });
    };
    const marked = () =>
      rows()
        .elements()
        .flatMap((slot) =>
          (['before', 'after'] as const).flatMap((side) =>
            slot.classList.contains(side) ? [[slot.querySelector('.prompt')?.textContent, side]] : [],
          ),
        );

    test('a row goes where it is dropped: above the upper half, below the lower one', async () => {
      const studio = await queueOf(4);
      await drop('clip 3', 'clip 1', 'upper');
      await expect.poll(() => order(studio)).toEqual(['clip 3', 'clip 1', 'clip 2', 'clip 4']);
      await drop('clip 3', 'clip 4', 'lower');
      await expect.poll(() => order(studio)).toEqual(['clip 1', 'clip 2', 'clip 4', 'clip 3']);
      await drop('clip 1', 'clip 4', 'upper');
      await expect.poll(() => order(studio)).toEqual(['clip 2', 'clip 1', 'clip 4', 'clip 3']);
      await drop('clip 3', 'clip 2', 'lower');
      await expect.poll(() => order(studio)).toEqual(['clip 2', 'clip 3', 'clip 1', 'clip 4']);
      expect(marked()).toEqual([]);
    });

    test('a row dropped at its own place stays, and nothing is asked of the studio', async () => {
      const studio = await queueOf(3);
      let asked = 0;
      before(studio, 'renders.move', () => Promise.resolve(void asked++));
      await drop('clip 2', 'clip 2', 'upper');
      await drop('clip 2', 'clip 1', 'lower');
      await drop('clip 2', 'clip 3', 'upper');
      await drop('clip 2', 'clip 3', 'lower');
      await expect.poll(() => order(studio)).toEqual(['clip 1', 'clip 3', 'clip 2']);
      // Only by the last one.
      expect(asked).toBe(1);
    });

    test('a line shows where the row would go, and goes with the drag, however it ends', async () => {
      const studio = await queueOf(3);
      const dataTransfer = new DataTransfer();
      const drag = (type: string, on: Element, half = 0.25) => {
        const { top, height } = on.getBoundingClientRect();
        on.dispatchEvent(
          new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer, clientY: top + half * height }),
        );
      };
      drag('dragover', row('clip 1').element());
      expect(marked()).toEqual([]);
      drag('dragstart', handle('clip 2').element());
      drag('dragover', row('clip 1').element());
      await expect.poll(marked).toEqual([['clip 1', 'before']]);
      drag('dragover', row('clip 1').element(), 0.75);
      await expect.poll(marked).toEqual([['clip 2', 'before']]);
      drag('dragover', row('clip 3').element(), 0.75);
      await expect.poll(marked).toEqual([['clip 3', 'after']]);
      drag('dragleave', row('clip 3').element());
      await expect.poll(marked).toEqual([]);
      drag('dragover', row('clip 1').element());
      await expect.poll(marked).toEqual([['clip 1', 'before']]);
      drag('dragend', handle('clip 2').element());
      await expect.poll(marked).toEqual([]);
      expect(order(studio)).toEqual(['clip 1', 'clip 2', 'clip 3']);

      drag('dragstart', handle('clip 1').element());
      drag('dragover', row('clip 3').element());
      await expect.poll(marked).toEqual([['clip 3', 'before']]);
      studio.world.advance();
      await expect.poll(() => order(studio)).toEqual(['clip 2', 'clip 3']);
      expect(marked()).toEqual([]);
    });

    test('a row that is dragged out of view stays what is dragged', async () => {
      const studio = await queueOf(120);
      const dataTransfer = new DataTransfer();
      const drag = (type: string, on: Element, clientY = 0) =>
        on.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer, clientY }));
      const source = handle('clip 2').element();
      drag('dragstart', source);
      await expect
        .poll(async () => {
          lists().scrollTop = lists().scrollHeight;
          await frames();
          return row('clip 120').elements().length;
        })
        .toBe(1);
      const last = row('clip 120').element();
      expect(source.isConnected).toBe(true);
      drag('dragover', last, last.getBoundingClientRect().bottom);
      drag('drop', last);
      await expect.poll(() => order(studio).at(-1)).toBe('clip 2');
    });
  });

  test('what is removed can be brought back', async () => {
    const studio = await queueOf(3);
    await page.getByRole('button', { name: 'Actions for “clip 2”' }).click();
    await page.getByRole('menuitem', { name: 'Remove' }).click();
    await expect.poll(() => order(studio)).toEqual(['clip 1', 'clip 3']);
    await expect.element(page.getByText('1 render removed')).toBeVisible();
    await page.getByRole('button', { name: 'Undo' }).click();
    await expect.poll(() => order(studio)).toEqual(['clip 1', 'clip 2', 'clip 3']);
    await expect.element(page.getByText('1 render removed')).not.toBeInTheDocument();
  });

  test('a refused change is told at its field, and Escape changes nothing', async () => {
    const studio = await queueOf(2);
    const openEditor = async () => {
      await page.getByRole('button', { name: 'Actions for “clip 1”' }).click();
      await page.getByRole('menuitem', { name: 'Edit' }).click();
    };
    await openEditor();
    await page.getByRole('spinbutton', { name: 'Steps' }).fill('0');
    await page.getByRole('button', { name: 'Save' }).click();
    await expect.element(page.getByRole('spinbutton', { name: 'Steps' })).toHaveAccessibleDescription(/at least 1/);
    await userEvent.keyboard('{Escape}');
    await expect.element(page.getByRole('dialog')).not.toBeInTheDocument();
    await openEditor();
    await expect.element(page.getByRole('spinbutton', { name: 'Steps' })).toHaveValue(16);
    await page.getByRole('spinbutton', { name: 'Steps' }).fill('20');
    await page.getByRole('button', { name: 'Save' }).click();
    await expect.poll(() => studio.world.renders[0]?.settings.steps).toBe(20);
  });

  describe('a change refused for what the editor does not show', () => {
    const refused = () => page.getByRole('dialog').getByRole('alert');

    async function refusal(code: StudioErrorCode, message: string, field?: string, own: Partial<RenderSettings> = {}) {
      const studio = await queueOf(1);
      const [first] = studio.world.renders as [Render];
      studio.world.change(first, { settings: { ...first.settings, ...own } });
      before(studio, 'renders.edit', () => Promise.reject(new StudioError(code, message, field ? { field } : {})));
      await page.getByRole('button', { name: 'Actions for “clip 1”' }).click();
      await page.getByRole('menuitem', { name: 'Edit' }).click();
      await page.getByRole('spinbutton', { name: 'Steps' }).fill('9');
      await page.getByRole('button', { name: 'Save' }).click();
      await expect.element(refused()).toMatchTextContent(message);
      return studio;
    }

    test('is told, and goes to Compose with what was typed', async () => {
      const studio = await refusal('bad-request', 'policy.denseSteps must be at least 0, not -1.', 'policy.denseSteps');
      await expect.element(page.getByRole('spinbutton', { name: 'Steps' })).not.toHaveAttribute('aria-invalid');
      await page.getByRole('button', { name: 'Change in Compose' }).click();
      await expect.element(page.getByRole('dialog')).not.toBeInTheDocument();
      expect(studio.app.navigation.screen).toBe('compose');
      expect(studio.app.compose.settings).toMatchObject({ prompt: 'clip 1', steps: 9 });
      expect(studio.world.renders[0]?.settings.steps).toBe(16);
    });

    test('and decided for the whole studio, leads to Settings', async () => {
      const studio = await refusal('unsupported', 'cuda:0: No NVIDIA driver was found.', 'device');
      await page.getByRole('button', { name: 'Open Settings' }).click();
      await expect.element(page.getByRole('dialog')).not.toBeInTheDocument();
      expect(studio.app.navigation.screen).toBe('settings');
    });

    test('and that Compose does not show either, is left open there', async () => {
      const own = { device: 'cuda:0', threads: 3 };
      const studio = await refusal('unsupported', 'cuda:0: No NVIDIA driver was found.', 'device', own);
      await page.getByRole('button', { name: 'Change in Compose' }).click();
      expect(studio.app.compose.settings).toMatchObject({ threads: 3, steps: 9 });
      expect(studio.app.compose.settings.device).toBeUndefined();
    });

    test('or for no field at all, says what to do', async () => {
      await refusal('disk-full', 'Writing the library: the disk is full.');
      await expect.element(refused()).toMatchTextContent(/Make room, then retry/);
      expect(refused().getByRole('button').elements()).toEqual([]);
    });
  });
});

describe('the library', () => {
  const cards = () => page.getByRole('button', { name: /^Open “/ });

  async function libraryOf(count: number): Promise<Studio> {
    const studio = await openStudio({ takes: 1 });
    const [first] = studio.world.takes as [Take];
    studio.world.takes = Array.from({ length: count }, (_, index) => ({
      ...first,
      id: `tak_${index.toString(36).padStart(20, '0')}`,
      name: `take ${index + 1}`,
    }));
    await studio.app.takes.load();
    await mountApp(studio);
    studio.app.navigation.go('library');
    await expect.element(cards().first()).toBeVisible();
    return studio;
  }

  test('of 10,000 takes few cards exist, and scrolling reads on', async () => {
    const studio = await libraryOf(10_000);
    expect(cards().elements().length).toBeLessThan(80);
    expect(studio.app.takes.items.length).toBe(200);
    const scroller = page.getByRole('region', { name: 'Library' }).element();
    for (let pages = 2; pages <= 4; pages++) {
      scroller.scrollTop = scroller.scrollHeight;
      await expect.poll(() => studio.app.takes.items.length).toBe(200 * pages);
    }
    expect(cards().elements().length).toBeLessThan(80);
    await expect.element(page.getByText('10,000 takes', { exact: true })).toBeVisible();
  });

  test('arrow keys go through the grid, also beyond its edge', async () => {
    await libraryOf(300);
    cards().first().element().focus();
    await userEvent.keyboard('{ArrowRight}');
    await expect.element(page.getByRole('button', { name: 'Open “take 2”' })).toHaveFocus();
    const columns = getComputedStyle(document.querySelector('.cards') as Element).gridTemplateColumns.split(' ').length;
    for (let row = 1; row <= 12; row++) {
      await userEvent.keyboard('{ArrowDown}');
      await expect.element(page.getByRole('button', { name: `Open “take ${2 + row * columns}”` })).toHaveFocus();
    }
    await expect.element(page.getByRole('button', { name: `Open “take ${2 + 12 * columns}”` })).toBeInViewport();
    await userEvent.keyboard('{ArrowLeft}{ArrowLeft}');
    await expect.element(page.getByRole('button', { name: `Open “take ${12 * columns}”` })).toHaveFocus();
  });

  test('the focused card stays while others are looked at', async () => {
    await libraryOf(200);
    cards().first().element().focus();
    const scroller = page.getByRole('region', { name: 'Library' }).element();
    scroller.scrollTop = scroller.scrollHeight;
    await expect.element(page.getByRole('button', { name: 'Open “take 200”' })).toBeInViewport();
    await expect.element(page.getByRole('button', { name: 'Open “take 1”' })).toHaveFocus();
  });

  test('Delete moves to the trash, and Undo brings back', async () => {
    const studio = await libraryOf(3);
    page.getByRole('button', { name: 'Open “take 2”' }).element().focus();
    await userEvent.keyboard('{Delete}');
    await expect.poll(() => studio.app.takes.items.map(({ name }) => name)).toEqual(['take 1', 'take 3']);
    await page.getByRole('button', { name: 'Undo' }).click();
    await expect.poll(() => studio.app.takes.items.map(({ name }) => name)).toEqual(['take 1', 'take 2', 'take 3']);
  });

  test('in a narrow window everything above a take can be pressed', async () => {
    await page.viewport(1000, 680);
    onTestFinished(() => page.viewport(1280, 800));
    const studio = await libraryOf(1);
    await cards().first().click();
    await page.getByRole('button', { name: 'Favourite' }).click();
    await expect.poll(() => studio.world.takes[0]?.favourite).toBe(true);
    await page.getByRole('button', { name: 'Show or hide: About this take' }).click();
    await expect.element(page.getByRole('button', { name: 'Use these settings' })).toBeVisible();
  });

  test('in a narrow window what can be done with chosen takes stays in the window', async () => {
    await page.viewport(1000, 680);
    onTestFinished(() => page.viewport(1280, 800));
    const studio = await libraryOf(3);
    for (const name of ['take 1', 'take 2'])
      await page.getByRole('button', { name: `Choose “${name}” for comparing` }).click();
    const shown = ['Compare', 'Move to trash', 'Cancel'].map((name) => page.getByRole('button', { name, exact: true }));
    for (const button of shown) expect(button.element().getBoundingClientRect().right).toBeLessThanOrEqual(984);
    await page.getByRole('button', { name: 'Move to trash' }).click();
    await expect.poll(() => studio.app.takes.items.length).toBe(1);
  });

  test('a search that finds nothing says so and can be cleared', async () => {
    await libraryOf(3);
    await page.getByRole('searchbox').fill('zebra');
    await expect.element(page.getByRole('heading', { name: 'Nothing matches' })).toBeVisible();
    await page.getByRole('button', { name: 'Clear filters' }).click();
    await expect.poll(() => cards().elements().length).toBe(3);
  });
});

describe('messages', () => {
  test('go by themselves, stay while looked at, and errors stay longer', () => {
    vi.useFakeTimers();
    const toasts = createToasts();
    const shown = () => toasts.items.map(({ message }) => message);
    toasts.show('saved');
    toasts.error(new Error('out of luck'));
    vi.advanceTimersByTime(8000);
    expect(shown()).toEqual(['Something went wrong in the studio']);
    toasts.hold();
    toasts.show('came meanwhile');
    vi.advanceTimersByTime(60_000);
    expect(shown()).toEqual(['Something went wrong in the studio', 'came meanwhile']);
    toasts.release();
    vi.advanceTimersByTime(20_000);
    expect(shown()).toEqual([]);
    vi.useRealTimers();
  });

  test('the same one twice is one, and at most four are shown', () => {
    const toasts = createToasts();
    for (const message of ['a', 'b', 'a', 'c', 'd', 'e']) toasts.show(message);
    expect(toasts.items.map(({ message }) => message)).toEqual(['a', 'c', 'd', 'e']);
  });

  test('an undo that fails is told', async () => {
    const studio = await openStudio();
    await mountApp(studio);
    studio.app.toasts.undoable('1 render removed', () =>
      studio.app.client.call('renders.get', { id: 'rnd_00000000000000000099' }),
    );
    await page.getByRole('button', { name: 'Undo' }).click();
    await expect.element(page.getByRole('alert')).toMatchTextContent(/That is not there any more/);
  });

  test('dismissing by keyboard lets the others go in their time', async () => {
    const studio = await openStudio();
    await mountApp(studio);
    const release = vi.fn();
    studio.app.toasts.show('first');
    studio.app.toasts.show('second');
    await expect.element(page.getByText('second')).toBeVisible();
    page.getByRole('region', { name: 'Messages' }).element().addEventListener('focusout', release);
    page.getByRole('button', { name: 'Dismiss' }).first().element().focus();
    await userEvent.keyboard('{Enter}');
    await expect.element(page.getByText('first')).not.toBeInTheDocument();
    expect(release).toHaveBeenCalled();
  });
});
