"""Pools of latents on a GPU, filled while training runs: processes draw clips into shared memory, the GPU encodes them in batches and
finds the things' places; latents, places and tokens of several captions a clip stay on the device.

The processes must be forked before CUDA is first used, and before any thread is started.
"""
import mmap
import multiprocessing
import os
import queue
import signal
import traceback

import numpy as np
import torch

import clips
import latents
import world

CAPTIONS = 8   # kept of each clip
WORDS = 32     # tokens of a caption, zeros behind the end


def scene(rng, things, favours):
    """A scene outside the held-out triples; `favours` {word: weight} of motions and shapes, 1 where not named: what is hard comes up more
    often (the weights of a scene's things are averaged)."""
    most = max([1, *(favours.get(m, 1) * favours.get(s, 1) for m in world.MOTIONS for s in world.SHAPES)])
    while True:
        drawn = world.draw_scene(rng, things, motions=latents.MOTIONS)
        if rng.random() * most < np.mean([favours.get(t.motion, 1) * favours.get(t.shape, 1) for t in drawn.things]):
            return drawn


def chunk(entry, slot_bytes):
    """Clips of one entry that are drawn, moved and encoded together."""
    width, height, frames = entry["size"]
    return max(1, min(entry["clips"], slot_bytes // (width * height * frames * 3)))


def describe(rng, shown, tokenizer):
    """int16 [CAPTIONS, WORDS]."""
    ids = np.zeros((CAPTIONS, WORDS), np.int16)
    for row in ids:
        found = tokenizer.encode(world.caption(rng, shown))
        row[:len(found)] = found
    return ids


def _draw(work):
    """A process: takes tasks (pool, first clip, count), draws them into a free slot, hands on (pool, count, slot, tokens, colours)."""
    from train_dit import Tokenizer
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    os.nice(10)
    torch.set_num_threads(1)
    tokenizer = Tokenizer(work.tokenizer, WORDS)
    while True:
        try:
            pool, first, count = work.tasks.get()
            slot = work.free.get()
            entry = work.entries[pool]
            things, (width, height, frames) = entry.get("things", 1), entry["size"]
            out, ids, colours = work.slot(slot, pool, count), np.empty((count, CAPTIONS, WORDS), np.int16), np.empty((count, things, 3), np.int16)
            for i in range(count):
                rng = np.random.default_rng((work.seed + pool, first + i))
                shown = scene(rng, things, work.favours)
                out[i] = clips.draw(rng, shown, width, height, frames)
                ids[i] = describe(rng, shown, tokenizer)
                colours[i] = [world.COLOURS[thing.colour] for thing in shown.things]
            work.done.put((pool, count, slot, ids, colours))
        except Exception:
            work.done.put((None, 0, None, traceback.format_exc(), None))
            return


class Drawing:
    """The processes and what they share. `entries`: config `sizes`; every entry's clips come evenly over the run, the first entry's a
    fifth ahead of the others."""

    def __init__(self, entries, favours, tokenizer, processes, slots, slot_bytes, seed=500):
        context = multiprocessing.get_context("fork")
        self.entries, self.favours, self.tokenizer, self.seed, self.slot_bytes = entries, favours, tokenizer, seed, slot_bytes
        largest = max(int(np.prod(entry["size"])) * 3 for entry in entries)
        self.slot_bytes = max(slot_bytes, largest)
        self.memory = mmap.mmap(-1, slots * self.slot_bytes)  # shared by all forked from here
        self.tasks, self.free, self.done = context.Queue(), context.Queue(), context.Queue()
        self.processes = [context.Process(target=_draw, args=(self,), daemon=True) for _ in range(processes)]
        for process in self.processes:
            process.start()
        tasks = []
        for pool, entry in enumerate(entries):
            size = chunk(entry, self.slot_bytes)
            for first in range(0, entry["clips"], size):
                tasks.append((first / entry["clips"] - 0.2 * (pool == 0), pool, first, min(size, entry["clips"] - first)))
        for slot in range(slots):
            self.free.put(slot)
        for _, *task in sorted(tasks):
            self.tasks.put(tuple(task))
        self.left = len(tasks)

    def slot(self, slot, pool, count):
        width, height, frames = self.entries[pool]["size"]
        shape = (count, frames, height, width, 3)
        return np.frombuffer(self.memory, np.uint8, int(np.prod(shape)), slot * self.slot_bytes).reshape(shape)

    def take(self, timeout=None):
        """(pool, count, slot, tokens, colours) or None if nothing is ready (after `timeout` seconds)."""
        if not self.left:
            return None
        try:
            found = self.done.get(timeout=timeout) if timeout else self.done.get_nowait()
        except queue.Empty:
            return None
        if found[0] is None:
            raise RuntimeError("a drawing process failed:\n" + found[3])
        self.left -= 1
        return found

    def close(self):
        for process in self.processes:
            process.terminate()
        for shared in (self.tasks, self.free, self.done):
            shared.cancel_join_thread()


def places(video, colours):
    """latents.things_at in one go: uint8 [B, T, H, W, 3], int16 [B, things, 3] -> bool [B, 1, t, h, w]."""
    near = torch.zeros(video.shape[:4], dtype=torch.bool, device=video.device)
    for colour in colours.unbind(1):
        near |= ((video.short() - colour[:, None, None, None]).abs() < 24).all(-1)
    b, f, h, w = near.shape
    near = near.view(b, f, h // 8, 8, w // 8, 8).any(5).any(3)
    return torch.cat([near[:, :1], near[:, 1:].unflatten(1, (-1, 4)).any(2)], 1)[:, None]


class Pool:
    """One entry's latents [n, C, t, h, w] f16, places [n, 1, t, h, w] bool and tokens [n * CAPTIONS, WORDS] on the device."""

    def __init__(self, entry, channels, device):
        width, height, frames = entry["size"]
        self.entry, self.count, n = entry, 0, entry["clips"]
        self.shape = (channels, 1 + (frames - 1) // 4, height // 8, width // 8)
        self.latents = torch.zeros(n, *self.shape, dtype=torch.float16, device=device)
        self.places = torch.zeros(n, 1, *self.shape[1:], dtype=torch.bool, device=device)
        self.ids = torch.zeros(n * CAPTIONS, WORDS, dtype=torch.int16, device=device)

    @torch.no_grad()
    def add(self, encoder, video, ids, colours):
        """video uint8 [B, T, H, W, 3] on the CPU, ids [B, CAPTIONS, WORDS] and colours [B, things, 3] as numpy arrays."""
        device, (at, end) = self.latents.device, (self.count, self.count + len(video))
        video = video.to(device)
        self.latents[at:end] = encoder.encode_all(video).half()
        self.places[at:end] = places(video, torch.from_numpy(colours).to(device))
        self.ids[at * CAPTIONS:end * CAPTIONS] = torch.from_numpy(ids).flatten(0, 1).to(device)
        self.count = end
