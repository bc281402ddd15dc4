/** One playhead for one or more clips: whole frames, all clips on the same one. */
import { untrack } from 'svelte';

export interface PlayheadOptions {
  frames: number;
  fps: number;
  playing: boolean;
}

export function createPlayhead({ frames, fps, playing: begins }: PlayheadOptions) {
  let frame = $state(0);
  let playing = $state(begins);
  let videos: HTMLVideoElement[] = [];

  /** The middle of a frame, so that rounding never shows its neighbour; a shorter clip holds its last. */
  function show(index: number) {
    for (const video of videos) {
      const last = Number.isFinite(video.duration) ? Math.max(0, video.duration - 0.5 / fps) : Infinity;
      video.currentTime = Math.min((index + 0.5) / fps, last);
    }
  }

  const playhead = {
    get frame() {
      return frame;
    },
    get playing() {
      return playing;
    },
    seek(to: number) {
      frame = Math.max(0, Math.min(frames - 1, Math.round(to)));
      // Clips that run are first stopped, by `drive`.
      if (playing) playing = false;
      else show(frame);
    },
    step(by: number) {
      playhead.seek((frame + by + frames) % frames);
    },
    toggle() {
      playing = !playing;
    },
    /** Takes clips under control; returns the function that lets them go. Called in an effect: follows `playing`. */
    drive(controlled: HTMLVideoElement[]): () => void {
      videos = controlled;
      if (!playing) {
        for (const video of videos) video.pause();
        untrack(() => show(frame));
        return () => {};
      }
      let request = 0;
      let started = performance.now() - (untrack(() => frame) / fps) * 1000;
      /** The longest clip leads: a shorter one has ended before the playhead does. */
      const lead = () =>
        videos.reduce<HTMLVideoElement | undefined>(
          (longest, video) => (longest && !(video.duration > longest.duration) ? longest : video),
          undefined,
        );
      const begin = () => {
        for (const video of videos) {
          video.currentTime = frame / fps;
          // Playing a clip from its end would begin it anew.
          if (!(frame / fps >= video.duration)) void video.play().catch(() => {});
        }
      };
      untrack(begin);
      const follow = (now: number) => {
        // The leader's own clock leads where it runs; the others are pulled back when they drift.
        const leader = lead();
        const seconds = leader && leader.readyState >= 2 && !leader.ended ? leader.currentTime : (now - started) / 1000;
        // A frame's time stamp may lie before the start.
        const reached = Math.max(0, Math.floor(seconds * fps + 0.01));
        if (reached >= frames || leader?.ended) {
          frame = 0;
          started = now;
          begin();
        } else frame = reached;
        for (const video of videos) {
          if (
            leader &&
            video !== leader &&
            !video.ended &&
            Math.abs(video.currentTime - leader.currentTime) > 1.5 / fps
          )
            video.currentTime = leader.currentTime;
        }
        request = requestAnimationFrame(follow);
      };
      request = requestAnimationFrame(follow);
      return () => {
        cancelAnimationFrame(request);
        for (const video of controlled) video.pause();
      };
    },
  };
  return playhead;
}

export type Playhead = ReturnType<typeof createPlayhead>;
