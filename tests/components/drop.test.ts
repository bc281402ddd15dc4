/** Files dropped on the window. A browser gives no test a drag from outside: its events are made, the files in them are real. */
import { describe, expect, onTestFinished, test, vi } from 'vitest';
import { page } from 'vitest/browser';
import type { ClipSettings } from '../../contract/clipSettings.ts';
import { StudioError } from '../../contract/errors.ts';
import { largestPieceBytes } from '../../contract/uploads.ts';
import { before, mountApp, openStudio, type Studio } from './support/studio.ts';

const welcome = () => page.getByText('Drop a clip to restore its settings');
const toast = (words: string | RegExp) => page.getByRole('region', { name: 'Messages' }).getByText(words);

const carried = (file: File): DataTransfer => {
  const data = new DataTransfer();
  data.items.add(file);
  return data;
};

/** Returns whether the page took the event for itself. */
function drag(type: string, what: File | DataTransfer, target: Element = document.body): boolean {
  const dataTransfer = what instanceof File ? carried(what) : what;
  return !target.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer }));
}

const bytes = new Uint8Array(2.5 * largestPieceBytes).map((_, index) => (index * 7 + (index >> 11)) & 255);
const clip = () => new File([bytes], 'ball.mp4', { type: 'video/mp4' });

async function library(): Promise<Studio> {
  const studio = await openStudio({ takes: 1 });
  await mountApp(studio);
  studio.app.navigation.go('library');
  await expect.element(page.getByRole('button', { name: /^Open “/ })).toBeVisible();
  return studio;
}

describe('a file over the window', () => {
  test('is welcomed until it leaves, also where it passes from one part to the next', async () => {
    await library();
    const main = page.getByRole('main').element();
    expect(drag('dragover', clip())).toBe(true);
    drag('dragenter', clip());
    await expect.element(welcome()).toBeVisible();
    drag('dragenter', clip(), main);
    drag('dragleave', clip());
    await expect.element(welcome()).toBeVisible();
    drag('dragleave', clip(), main);
    await expect.element(welcome()).not.toBeInTheDocument();
  });

  test('is not what is dragged within the window: text, or a picture of it', async () => {
    await library();
    const words = new DataTransfer();
    words.setData('text/plain', 'words');
    const picture = carried(new File([bytes], 'poster.png', { type: 'image/png' }));
    drag('dragstart', picture, page.getByRole('button', { name: /^Open “/ }).element());
    for (const data of [words, picture])
      expect(['dragenter', 'dragover', 'drop'].map((type) => drag(type, data))).toEqual([false, false, false]);
    expect(welcome().elements()).toEqual([]);
    expect(page.getByText(/^Reading the settings/).elements()).toEqual([]);
    drag('dragenter', clip());
    await expect.element(welcome()).toBeVisible();
  });
});

describe('a file dropped on the window', () => {
  const settingsOf = ({ app }: Studio, model: string): ClipSettings => {
    const { model: _, ...request } = app.compose.settings;
    return {
      format: 'vmoba-clip/1',
      model: { id: model, name: 'Another model', fingerprint: model },
      request: { ...request, prompt: 'a green square jumps', seed: '77', steps: 9 },
      engine: { version: '0', build: '', device: 'cpu' },
      latentHash: '',
    } as ClipSettings;
  };

  test('is read whole, and its settings restored', async () => {
    const studio = await library();
    studio.world.clipSettings = { settings: settingsOf(studio, 'x'), modelId: 'wan2.1-t2v-1.3b' };
    let sent: unknown;
    before(studio, 'takes.readSettings', () => {
      sent = [...studio.world.uploads.values()].map(({ name, pieces }) => [name, new Blob(pieces as BlobPart[])]);
      return Promise.resolve();
    });
    drag('dragenter', clip());
    expect(drag('drop', clip())).toBe(true);
    await expect.element(toast('Settings restored from the clip')).toBeVisible();
    const [[name, content]] = sent as [[string, Blob]];
    expect(name).toBe('ball.mp4');
    expect(new Uint8Array(await content.arrayBuffer())).toEqual(bytes);
    expect(studio.app.navigation.screen).toBe('compose');
    expect(studio.app.compose.seedMode).toBe('locked');
    expect(studio.app.compose.settings).toMatchObject({
      model: 'wan2.1-t2v-1.3b',
      prompt: 'a green square jumps',
      seed: '77',
      steps: 9,
    });
    await expect.element(welcome()).not.toBeInTheDocument();
  });

  test('of a model that is not installed leaves the current one, and names the missing one', async () => {
    const studio = await library();
    studio.world.clipSettings = { settings: settingsOf(studio, 'x'), modelId: null };
    drag('drop', clip());
    await expect
      .element(toast('Settings restored; the model Another model is not installed, so the current one stays.'))
      .toBeVisible();
    expect(studio.app.compose.settings).toMatchObject({ model: 'nano', steps: 9 });
  });

  test('without settings changes nothing and says so', async () => {
    const studio = await library();
    const settings = studio.app.compose.settings;
    drag('drop', clip());
    await expect.element(toast(/^That file carries no settings/)).toBeVisible();
    expect(studio.app.navigation.screen).toBe('library');
    expect(studio.app.compose.settings).toEqual(settings);
  });

  test('is named while it is read', async () => {
    const studio = await library();
    const { promise, resolve } = Promise.withResolvers<void>();
    before(studio, 'takes.readSettings', () => promise);
    drag('drop', clip());
    await expect.element(page.getByText('Reading the settings of ball.mp4')).toBeVisible();
    resolve();
    await expect.element(page.getByText('Reading the settings of ball.mp4')).not.toBeInTheDocument();
  });

  test('that is empty, or a folder and no file, is refused with what can be dropped', async () => {
    const studio = await library();
    const refused = page.getByRole('alert').filter({ hasText: 'That file is no clip that can be read' });
    drag('drop', new File([], 'empty.mp4'));
    await expect.element(refused).toMatchTextContent(/empty\.mp4 is empty, .* Drop one clip/);
    await page.getByRole('button', { name: 'Dismiss' }).click();
    // What a browser answers for a folder, which no test can drop.
    const read = vi.spyOn(Blob.prototype, 'arrayBuffer').mockRejectedValue(new DOMException('', 'NotReadableError'));
    onTestFinished(() => read.mockRestore());
    drag('drop', new File([bytes], 'pictures'));
    await expect.element(refused).toMatchTextContent(/pictures is .* a folder, .* one PNG or their settings\.json/);
    expect(studio.world.uploads.size).toBe(0);
  });

  test('that does not arrive is told, and nothing of it stays', async () => {
    const studio = await library();
    before(studio, 'uploads.append', () => Promise.reject(new StudioError('disk-full', 'There is no room.')));
    drag('drop', clip());
    await expect.element(page.getByRole('alert')).toMatchTextContent(/There is no room\./);
    await expect.poll(() => studio.world.uploads.size).toBe(0);
    expect(page.getByText(/^Reading the settings/).elements()).toEqual([]);
  });
});
