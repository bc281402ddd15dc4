"""Leg 2: text encoder and diffusion transformer together, by rectified flow on VAE latents, with VMoBA attention from the first step.

x_sigma = (1 - sigma) x0 + sigma noise; the model learns v = noise - x0. Captions are drawn anew each time a clip is used; some are
empty, for guidance.
"""
import os
import time

import numpy as np
import sentencepiece
import torch

import muon
import world
from attention import Density
from dit import Dit
from latents import Encoder, Pool
from leg import Average, Leg
from text_encoder import TextEncoder


class Nano(torch.nn.Module):
    """Text encoder and transformer as one module."""

    def __init__(self, config, vocabulary, channels):
        super().__init__()
        self.text = TextEncoder(vocabulary, **config["text"])
        self.dit = Dit(channels, text_dim=config["text"]["dim"], policy=config["policy"], **config["model"])

    def context(self, ids, mask):
        """[B, text_len, text_dim], zero rows behind each prompt."""
        rows = self.text(ids, mask) * mask[..., None]
        return torch.nn.functional.pad(rows, (0, 0, 0, self.dit.text_len - rows.shape[1]))

    def forward(self, latent, timesteps, ids, mask, density=None):
        return self.dit(latent, timesteps, self.context(ids, mask), density)


class Tokenizer:
    def __init__(self, path, longest):
        self.model = sentencepiece.SentencePieceProcessor()
        self.model.Load(path)
        self.longest, self.size, self.end = longest, self.model.GetPieceSize(), self.model.piece_to_id("</s>")

    def batch(self, texts, device="cpu"):
        rows = [self.model.EncodeAsIds(text)[:self.longest - 1] + [self.end] for text in texts]
        width = max(map(len, rows))
        ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
        return ids.to(device), mask.to(device)


def hidden_matrix(name, parameter):
    """What Muon takes: square-ish matrices inside the blocks and the text path."""
    return parameter.dim() == 2 and ".blocks." in "." + name and "embedding" not in name and "modulation" not in name or name.endswith(("text_embedding.0.weight", "text_embedding.2.weight"))


def sample_sigmas(rng, count, shift):
    """Logit-normal with a share of uniform, shifted towards noise, where the layout is decided."""
    plain = 1 / (1 + np.exp(-rng.normal(0, 1, count)))
    plain = np.where(rng.random(count) < 0.2, rng.random(count), plain)
    return torch.from_numpy((shift * plain / (1 + (shift - 1) * plain)).astype(np.float32)).clamp(1e-3, 0.9995)


def flow_loss(model, latents, sigmas, noise, ids, mask, density=None):
    s = sigmas.view(-1, 1, 1, 1, 1)
    velocity = model((1 - s) * latents + s * noise, (1000 * sigmas).floor(), ids, mask, density)
    return (velocity - (noise - latents)).square().flatten(1).mean(1)


def main(config, folder, minutes, device):
    leg = Leg(folder, config.get("name", "dit"), minutes)
    vae_config = config["all"]["vae"]
    encoder = Encoder(torch.load(os.path.join(folder, "vae.pt"), map_location=device), vae_config, device)
    tokenizer = Tokenizer(os.path.join(folder, "spiece.model"), config["model"]["text_len"])
    torch.manual_seed(1)
    model = Nano(config, tokenizer.size, vae_config["latent"]).to(device)
    optimisers = muon.optimisers(model, hidden_matrix)
    average = Average(model, config["average"])
    state = leg.resume(device)
    if state:
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        average.values, average.count = state["average"], state["count"]
    rng = np.random.default_rng((17, leg.step))
    torch.manual_seed(1000 + leg.step)
    # After a resumption the pools go on with fresh clips.
    pools = []
    for i, size in enumerate(config["sizes"]):
        pool = Pool(encoder, size["size"], 1000 * (i + 1) + leg.step, size["clips"], config["two_things"])
        pools.append(pool)
    pools[0].grow(config["first_clips"])
    checks = Pool(encoder, config["sizes"][0]["size"], 77, 96, 0)
    checks.grow(96)
    check_rng = np.random.default_rng(3)
    check_latents, check_scenes = checks.latents.float(), checks.scenes
    check_text = tokenizer.batch([world.caption(check_rng, scene) for scene in check_scenes], device)
    check_sigmas, check_noise = torch.linspace(0.05, 0.98, 96, device=device)[torch.randperm(96)], torch.randn_like(check_latents)
    keep = lambda: leg.save({"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "average": average.values, "count": average.count})
    shares = np.array([size["share"] for size in config["sizes"]], float)
    sums, density, started, saved = [0.0, 0], Density(), time.time(), time.time()
    while leg.progress < 1:
        which = int(rng.choice(len(pools), p=shares / shares.sum())) if leg.progress > config["sizes_from"] else 0
        pool, size = pools[which], config["sizes"][which]
        pool.grow(config["fresh"] if pool.filled else size["batch"])
        latents, scenes = pool.draw(rng, size["batch"])
        texts = ["" if rng.random() < config["empty"] else world.caption(rng, scene) for scene in scenes]
        ids, mask = tokenizer.batch(texts, device)
        sigmas = sample_sigmas(rng, len(latents), config["shift"]).to(device)
        with torch.autocast(device.split(":")[0], dtype=torch.bfloat16, enabled=config["bf16"]):
            loss = flow_loss(model, latents, sigmas, torch.randn_like(latents), ids, mask).mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = leg.rate(config["rate"], warm=config["warm"], flat=config["flat"])
        muon.set_rate(optimisers, rate)
        for optimiser in optimisers:
            optimiser.step()
        average.update(model)
        leg.tick()
        sums = [sums[0] + float(loss.detach()), sums[1] + 1]
        if leg.step % 50 == 0:
            leg.log(loss=sums[0] / sums[1], norm=float(norm), rate=rate, clips=pools[0].drawn, seconds=(time.time() - started) / sums[1])
            sums, started = [0.0, 0], time.time()
        if leg.step % 400 == 0:
            shadow = Nano(config, tokenizer.size, vae_config["latent"]).to(device)
            shadow.load_state_dict(average.values)
            with torch.no_grad():
                result = {"held_in": float(flow_loss(shadow, check_latents, check_sigmas, check_noise, *check_text, density).mean())}
                empty = tokenizer.batch([""] * 96, device)
                result["without_text"] = float(flow_loss(shadow, check_latents, check_sigmas, check_noise, *empty).mean())
                shadow.dit.policy = None
                result["dense"] = float(flow_loss(shadow, check_latents, check_sigmas, check_noise, *check_text).mean())
            leg.log(check=result["held_in"], without_text=result["without_text"], dense=result["dense"], **{"density_" + k: v for k, v in density.means().items()})
            density = Density()
        if time.time() - saved > config["save_seconds"]:
            keep()
            saved = time.time()
    keep()
