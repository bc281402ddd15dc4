import { describe, expect, inject, test } from 'vitest';
import { page, userEvent } from 'vitest/browser';
import CompareView from '../../renderer/components/CompareView.svelte';
import Player from '../../renderer/components/library/Player.svelte';
import { clipFps, clipFrames, type ClipName, clipSide, frameOfBrightness } from './support/clips.ts';
import { mountPart, openStudio } from './support/studio.ts';

/** A studio with a take for each clip. */
async function studioWithClips(reducedMotion: 'on' | 'off' = 'off') {
  const studio = await openStudio({ takes: 2, settings: { reducedMotion } });
  const clips = inject('clips');
  studio.transport.mediaUrl = (id) => clips[id as ClipName] ?? 'data:,';
  const take = (name: ClipName, index: number) => {
    const [found] = studio.world.takes.slice(index);
    if (!found) throw new Error('The studio has too few takes.');
    return { ...found, clip: { ...found.clip, mediaId: name, frames: clipFrames[name], fps: clipFps } };
  };
  return { ...studio, long: take('long', 0), short: take('short', 1) };
}

async function compare(first: ClipName, second: ClipName, reducedMotion: 'on' | 'off' = 'off') {
  const studio = await studioWithClips(reducedMotion);
  studio.app.compared = [studio[first], studio[second]];
  await mountPart(studio, CompareView);
  const videos = () => [...document.querySelectorAll('video')];
  await expect.poll(() => videos().map(({ readyState }) => readyState)).toEqual([4, 4]);
  return { ...studio, videos };
}

/** The number of the frame on show, from its brightness. */
function shown(video: HTMLVideoElement): number {
  const canvas = new OffscreenCanvas(1, 1);
  const context = canvas.getContext('2d');
  context?.drawImage(video, 0, 0, clipSide, clipSide, 0, 0, 1, 1);
  return frameOfBrightness(context?.getImageData(0, 0, 1, 1).data[0] ?? 0);
}

const place = () => Number(/^(\d+) \//m.exec(page.getByText(/^\d+ \/ \d+$/).element().textContent ?? '')?.[1]) - 1;
const slider = () => page.getByRole('slider', { name: 'Position in the clip' });

describe('two clips under one playhead', () => {
  test('one frame forward from running clips stops both on the same frame', async () => {
    const { videos } = await compare('long', 'long');
    await expect.poll(() => videos().every(({ paused, currentTime }) => !paused && currentTime > 0.1)).toBe(true);
    await userEvent.keyboard('{ArrowRight}');
    await expect.poll(() => videos().every(({ paused, seeking }) => paused && !seeking)).toBe(true);
    const [first, second] = videos();
    expect(first?.currentTime).toBeGreaterThan(0);
    expect(second?.currentTime).toBe(first?.currentTime);
    await expect.poll(() => videos().map(shown)).toEqual([place(), place()]);
  });

  test('steps wrap at both ends', async () => {
    const { videos } = await compare('long', 'long', 'on');
    await expect.poll(() => videos().map(shown)).toEqual([0, 0]);
    await userEvent.keyboard('{ArrowLeft}');
    await expect.poll(() => videos().map(shown)).toEqual([20, 20]);
    expect(place()).toBe(20);
    await userEvent.keyboard('{ArrowRight}');
    await expect.poll(() => videos().map(shown)).toEqual([0, 0]);
    expect(place()).toBe(0);
  });

  test('every frame of the slider is the frame on show', async () => {
    const { videos } = await compare('long', 'long', 'on');
    slider().element().focus();
    for (const frame of [1, 2, 3, 4]) {
      await userEvent.keyboard('{ArrowUp}');
      await expect.poll(() => videos().map(shown)).toEqual([frame, frame]);
    }
  });

  test.each([
    ['short', 'long'],
    ['long', 'short'],
  ] as const)('the shorter one holds its last frame: %s and %s', async (first, second) => {
    const { videos } = await compare(first, second, 'on');
    slider().element().focus();
    await userEvent.keyboard('{End}');
    const last = (name: ClipName) => clipFrames[name] - 1;
    await expect.poll(() => videos().map(shown)).toEqual([last(first), last(second)]);
    await expect.element(page.getByText(/the shorter one holds its last frame/)).toBeVisible();
  });

  test.each([
    ['short', 'long'],
    ['long', 'short'],
  ] as const)('playing runs to the end of the longer one and loops: %s and %s', async (first, second) => {
    const { videos } = await compare(first, second);
    const seen = new Set<number>();
    const heldWhileLongRuns: number[] = [];
    const shortOne = first === 'short' ? 0 : 1;
    await expect
      .poll(
        () => {
          const frames = videos().map(shown);
          seen.add(frames[1 - shortOne] ?? -1);
          if (place() > clipFrames.short + 5) heldWhileLongRuns.push(frames[shortOne] ?? -1);
          return Math.max(...seen) >= clipFrames.long - 3 && (frames[1 - shortOne] ?? 99) < 5 && place() < 6;
        },
        { interval: 20 },
      )
      .toBe(true);
    expect(new Set(heldWhileLongRuns)).toEqual(new Set([clipFrames.short - 1]));
  });

  test('swapping leaves both on the frame', async () => {
    const { videos } = await compare('long', 'short', 'on');
    for (const frame of [1, 2, 3]) {
      await userEvent.keyboard('{ArrowRight}');
      await expect.poll(place).toBe(frame);
    }
    await page.getByRole('button', { name: 'Swap' }).click();
    await expect.poll(() => videos().map(shown)).toEqual([3, 3]);
  });
});

describe('one clip', () => {
  test('plays, pauses on Space, and goes on from there', async () => {
    const studio = await studioWithClips();
    await mountPart(studio, Player, { take: studio.long });
    const video = document.querySelector('video');
    await expect.poll(() => (video?.currentTime ?? 0) > 0.1).toBe(true);
    await userEvent.keyboard(' ');
    await expect.poll(() => video?.paused).toBe(true);
    const held = place();
    await expect.poll(() => video && shown(video)).toBe(held);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(place()).toBe(held);
    await userEvent.keyboard(' ');
    await expect.poll(() => place() !== held && video?.paused === false).toBe(true);
  });

  test('where motion is reduced, it waits on its first frame', async () => {
    const studio = await studioWithClips('on');
    await mountPart(studio, Player, { take: studio.long });
    const video = document.querySelector('video');
    await expect.poll(() => video?.readyState).toBe(4);
    await new Promise((resolve) => setTimeout(resolve, 200));
    expect(video?.paused).toBe(true);
    expect(place()).toBe(0);
  });

  test('a clip whose file has gone says so', async () => {
    const studio = await studioWithClips();
    await mountPart(studio, Player, { take: { ...studio.long, fileExists: false } });
    await expect.element(page.getByText('The file has gone from its folder.')).toBeVisible();
  });
});
