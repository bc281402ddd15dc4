"""Pools of encoded clips for training the transformer: latents of drawn scenes, refreshed as training goes on."""
import numpy as np
import torch

import clips
from train_vae import to_video
from vae import Vae


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
        return (self.vae.moments(to_video(batch, self.device))[0] - self.mean) / self.std

    @torch.no_grad()
    def decode(self, latents):
        return self.vae.decode(latents * self.std + self.mean).clamp(-1, 1)


@torch.no_grad()
def statistics(vae, videos):
    mean = torch.cat([vae.moments(videos[i:i + 8])[0] for i in range(0, len(videos), 8)])
    flat = mean.transpose(0, 1).flatten(1)
    return {"mean": flat.mean(1), "std": flat.std(1)}


class Pool:
    """A ring of (latent, scene) of one clip size. Clip i of a pool is clip i of the drawing stream, so it grows deterministically."""

    def __init__(self, encoder, size, seed, capacity, two_things):
        self.encoder, self.size, self.seed, self.capacity, self.two_things = encoder, size, seed, capacity, two_things
        self.latents, self.scenes, self.drawn, self.filled = None, [], 0, 0

    def grow(self, count):
        made = []
        for _ in range(count):
            things = 2 if (self.drawn * 0.618034) % 1 < self.two_things else 1
            made.append(clips.make(self.seed, self.drawn, *self.size, things=things))
            self.drawn += 1
        latents = self.encoder.encode(np.stack([clip for _, clip in made])).to(torch.float16)
        if self.latents is None:
            self.latents = torch.empty(self.capacity, *latents.shape[1:], dtype=torch.float16, device=latents.device)
        for (scene, _), latent in zip(made, latents):
            place = self.filled % self.capacity
            self.latents[place] = latent
            self.scenes[place:place + 1] = [scene]
            self.filled += 1

    def draw(self, rng, count):
        index = rng.integers(len(self.scenes), size=count)
        return self.latents[torch.from_numpy(index)].float(), [self.scenes[i] for i in index]
