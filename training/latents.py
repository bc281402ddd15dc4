"""Pools of drawn clips and their latents, kept in files: python3 training/train.py --leg clips, then (with a trained VAE) --leg latents.

Both legs can be stopped and resumed, and the transformer may already train on the part that is encoded. Clip i of a pool is clip i of
the drawing stream of its seed, so scenes are never stored.
"""
import json
import os

import numpy as np
import torch

import clips
import world
from train_vae import to_video
from vae import Vae

MOTIONS = (*world.MOTIONS, "spin")  # spinning twice as often: only three shapes show it, and it is the hardest to learn


class Encoder:
    """A trained VAE with its latent statistics."""

    def __init__(self, state, config, device):
        self.vae = Vae(config["widths"], config["latent"], config["blocks"]).to(device).eval()
        self.vae.load_state_dict(state["average"])
        self.mean, self.std = (state["statistics"][n].to(device).view(1, -1, 1, 1, 1) for n in ("mean", "std"))
        self.device = device

    @torch.no_grad()
    def encode(self, batch):
        """uint8 [B, T, H, W, 3] -> normalised latents [B, C, t, h, w]."""
        mean = torch.cat([self.vae.moments(video[None].bfloat16())[0].float() for video in to_video(batch, self.device)])  # one by one: it fits the cache
        return (mean - self.mean) / self.std

    @torch.no_grad()
    def encode_all(self, batch):
        """As encode, all clips at once, from a tensor on a GPU."""
        video = batch.permute(0, 4, 1, 2, 3).float() / 127.5 - 1
        return (self.vae.moments(video.bfloat16())[0].float() - self.mean) / self.std

    @torch.no_grad()
    def decode(self, latents):
        z = (latents * self.std + self.mean).bfloat16()
        return torch.cat([self.vae.decode(one[None]).float().clamp(-1, 1) for one in z])


@torch.no_grad()
def statistics(vae, videos):
    mean = torch.cat([vae.moments(video[None].bfloat16())[0].float() for video in videos])
    flat = mean.transpose(0, 1).flatten(1)
    return {"mean": flat.mean(1), "std": flat.std(1)}


class Pool:
    """Latents and scenes of one entry of config `sizes`: {"size": [w, h, f], "clips": n, "things": 1 or 2, ...}."""

    def __init__(self, folder, entry, seed, latent):
        self.entry, self.seed = entry, seed
        width, height, frames = entry["size"]
        things = entry.get("things", 1)
        path = os.path.join(folder, f"pool_{width}x{height}x{frames}_{things}_{seed}")
        self.clips_path, self.latents_path, self.masks_path, self.count_path = (path + end for end in (".clips.npy", ".latents.npy", ".masks.npy", ".json"))
        self.clips_shape = (entry["clips"], frames, height, width, 3)
        self.latents_shape = (entry["clips"], latent, 1 + (frames - 1) // 4, height // 8, width // 8)
        self._latents, self._masks, self._scenes = None, None, []

    def counts(self):
        if not os.path.exists(self.count_path):
            return {"drawn": 0, "encoded": 0}
        with open(self.count_path) as file:
            return json.load(file)

    def _count(self, **values):
        with open(self.count_path + ".part", "w") as file:
            json.dump({**self.counts(), **values}, file)
        os.replace(self.count_path + ".part", self.count_path)

    def scene(self, index):
        return clips.scene(self.seed, index, self.entry.get("things", 1), motions=MOTIONS)

    def draw_clips(self, until=None):
        done, until = self.counts()["drawn"], until or len(self)
        data = np.lib.format.open_memmap(self.clips_path, "r+" if done else "w+", np.uint8, self.clips_shape)
        for i in range(done, until):
            width, height, frames = self.entry["size"]
            data[i] = clips.make(self.seed, i, width, height, frames, self.entry.get("things", 1), motions=MOTIONS)[1]
            if (i + 1) % 200 == 0 or i + 1 == until:
                self._count(drawn=i + 1)

    def encode_clips(self, encoder, until=None, batch=4):
        done, until = self.counts()["encoded"], min(until or len(self), self.counts()["drawn"])
        data = np.load(self.clips_path, mmap_mode="r")
        mode = "r+" if done else "w+"
        latents = np.lib.format.open_memmap(self.latents_path, mode, np.float16, self.latents_shape)
        masks = np.lib.format.open_memmap(self.masks_path, mode, bool, (len(self), *self.latents_shape[2:]))
        for i in range(done, until, batch):
            stop = min(i + batch, until)
            latents[i:stop] = encoder.encode(data[i:stop]).cpu().numpy()
            for j in range(i, stop):
                masks[j] = things_at(data[j], self.scene(j))
            self._count(encoded=stop)

    def __len__(self):
        return self.entry["clips"]

    def refresh(self):
        """Takes in what has been encoded since; the number of clips at hand."""
        count = self.counts()["encoded"]
        if count and self._latents is None:
            self._latents, self._masks = np.load(self.latents_path, mmap_mode="r"), np.load(self.masks_path, mmap_mode="r")
        self._scenes += [self.scene(i) for i in range(len(self._scenes), count)]
        return count

    def take(self, index):
        """Latents f32 [n, C, t, h, w], things' places f32 [n, 1, t, h, w], scenes."""
        index = np.sort(index)
        return torch.from_numpy(self._latents[index].astype(np.float32)), torch.from_numpy(self._masks[index].astype(np.float32))[:, None], [self._scenes[i] for i in index]

    def draw(self, rng, count):
        return self.take(rng.integers(len(self._scenes), size=count))


def things_at(clip, scene):
    """bool [t, h, w]: latent positions of a clip, uint8 [T, H, W, 3], that hold a pixel in the colour of a thing."""
    colours = np.array([world.COLOURS[thing.colour] for thing in scene.things], np.int16)
    near = np.zeros(clip.shape[:3], bool)
    for colour in colours:
        near |= (np.abs(clip - colour) < 24).all(-1)
    f, h, w = near.shape
    blocks = near.reshape(f, h // 8, 8, w // 8, 8).any((2, 4))
    return np.concatenate([blocks[:1], blocks[1:].reshape(-1, 4, h // 8, w // 8).any(1)])


def pools(config, folder):
    return [Pool(folder, entry, 1000 * (i + 1), config["vae"]["latent"]) for i, entry in enumerate(config["dit"]["sizes"])]


def draw_all(config, folder):
    for pool in pools(config["all"], folder):
        pool.draw_clips()


def encode_all(config, folder, device):
    """First some of the main pool, so that training can begin, then all pools evenly."""
    encoder = Encoder(torch.load(os.path.join(folder, "vae.pt"), map_location=device), config["all"]["vae"], device)
    everything = pools(config["all"], folder)
    everything[0].encode_clips(encoder, len(everything[0]) // 10)
    for share in (0.2, 0.4, 0.6, 0.8, 1):
        for pool in everything:
            pool.encode_clips(encoder, int(share * len(pool)))
