"""Leg 2: text encoder and diffusion transformer together, by rectified flow on VAE latents, with VMoBA attention from the first step.

x_sigma = (1 - sigma) x0 + sigma noise; the model learns v = noise - x0. Captions are drawn anew each time a clip is used; some are
empty, for guidance.
"""
import os
import time

import numpy as np
import sentencepiece
import torch

import fused_dit
import muon
import world
from attention import Density
from dit import Dit
from latents import pools
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

    def forward(self, latent, timesteps, ids, mask, density=None, how="exact"):
        """`how`: "exact" in f32, "bf16" under autocast, "fused" in bf16 with the CPU's own kernels."""
        with torch.autocast(latent.device.type, dtype=torch.bfloat16, enabled=how != "exact"):
            context = self.context(ids, mask)
            if how != "fused":
                return self.dit(latent, timesteps, context, density).float()
        return fused_dit.forward(self.dit, latent, timesteps, context, density)

    def fastest(self, device):
        return "fused" if fused_dit.available(self.dit, device) else "exact" if str(device) == "cpu" else "bf16"


class Tokenizer:
    def __init__(self, path, longest):
        self.model = sentencepiece.SentencePieceProcessor()
        self.model.Load(path)
        self.longest, self.size, self.end = longest, self.model.GetPieceSize(), self.model.piece_to_id("</s>")

    def encode(self, text):
        return self.model.EncodeAsIds(text)[:self.longest - 1] + [self.end]

    def batch(self, texts, device="cpu"):
        rows = [self.encode(text) for text in texts]
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


def flow_loss(model, latents, sigmas, noise, ids, mask, weight=1.0, density=None, how="exact"):
    """Mean squared error of the velocity per clip; `weight` [B, 1, t, h, w] or a number."""
    s = sigmas.view(-1, 1, 1, 1, 1)
    velocity = model((1 - s) * latents + s * noise, (1000 * sigmas).floor(), ids, mask, density, how)
    return ((velocity - (noise - latents)).square() * weight).flatten(1).mean(1)


def attention_to_things(places, sigmas, extra):
    """Loss weights: `extra` more where a thing is, once the noise is low enough (below 0.5; fading to 0.8) for its place to be decided. Weighting
    an open question would teach things to appear larger and in several places."""
    return 1 + extra * ((0.8 - sigmas) / 0.3).clamp(0, 1).view(-1, 1, 1, 1, 1) * places


def main(config, folder, minutes, device):
    leg = Leg(folder, config.get("name", "dit"), minutes)
    channels = config["all"]["vae"]["latent"]
    tokenizer = Tokenizer(os.path.join(folder, "spiece.model"), config["model"]["text_len"])
    torch.manual_seed(1)
    model = Nano(config, tokenizer.size, channels).to(device)
    how = model.fastest(device)
    optimisers = muon.optimisers(model, hidden_matrix)
    average = Average(model, config["average"])
    state = leg.resume(device)
    if state:
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state.get("optimisers", ())):
            optimiser.load_state_dict(saved)
        average.values, average.count = state["average"], state["count"]
    rng = np.random.default_rng((17, leg.step))
    torch.manual_seed(1000 + leg.step)
    data = pools(config["all"], folder)
    checks = np.arange(len(data[0]) - 96, len(data[0]))  # the last clips of the first pool are never trained on
    check_rng, checked = np.random.default_rng(3), None
    keep = lambda: leg.save({"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "average": average.values, "count": average.count})
    shares = np.array([size["share"] for size in config["sizes"]], float)
    starts = np.array([size.get("from", config.get("sizes_from", 0)) for size in config["sizes"]])
    starts[0] = 0
    sums, density, ready, started, saved = [0.0, 0], Density(), None, time.time(), time.time()
    while leg.progress < 1:
        if ready is None or leg.step % 50 == 0:
            ready = np.array([min(pool.refresh(), len(pool) - 96 * (pool is data[0])) for pool in data])
        open_shares = shares * (leg.progress >= starts) * (ready > 0)
        which = int(rng.choice(len(data), p=open_shares / open_shares.sum()))
        size = config["sizes"][which]
        latents, places, scenes = data[which].take(rng.integers(ready[which], size=size["batch"]))
        texts = ["" if rng.random() < config["empty"] else world.caption(rng, scene) for scene in scenes]
        ids, mask = tokenizer.batch(texts, device)
        latents, sigmas = latents.to(device), sample_sigmas(rng, len(latents), config["shift"]).to(device)
        weight = attention_to_things(places.to(device), sigmas, config["things_weight"])
        loss = flow_loss(model, latents, sigmas, torch.randn_like(latents), ids, mask, weight, how=how).mean()
        model.zero_grad(set_to_none=True)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        rate = leg.rate(config["rate"], warm=config["warm"], flat=config["flat"])
        muon.set_rate(optimisers, rate, config["hidden_rate"])
        for optimiser in optimisers:
            optimiser.step()
        average.update(model)
        leg.tick()
        sums = [sums[0] + float(loss.detach()), sums[1] + 1]
        if leg.step % 50 == 0:
            leg.log(loss=sums[0] / sums[1], norm=float(norm), rate=rate, clips=int(ready.sum()), seconds=(time.time() - started) / sums[1])
            sums, started = [0.0, 0], time.time()
        if leg.step % 1000 == 0 and data[0].refresh() == len(data[0]):
            if checked is None:
                check_latents, _, check_scenes = data[0].take(checks)
                check_text = tokenizer.batch([world.caption(check_rng, scene) for scene in check_scenes], device)
                checked = check_latents.to(device), torch.linspace(0.05, 0.98, 96, device=device)[torch.from_numpy(check_rng.permutation(96))], torch.randn_like(check_latents).to(device)
            shadow = Nano(config, tokenizer.size, channels).to(device)
            shadow.load_state_dict(average.values)
            with torch.no_grad():
                held_in = float(flow_loss(shadow, *checked, *check_text, density=density, how=how).mean())
                without_text = float(flow_loss(shadow, *checked, *tokenizer.batch([""] * 96, device), how=how).mean())
                shadow.dit.policy = None
                dense = float(flow_loss(shadow, *checked, *check_text, how=how).mean())
            leg.log(check=held_in, without_text=without_text, dense=dense, **{"density_" + k: v for k, v in density.means().items()})
            density = Density()
        if time.time() - saved > config["save_seconds"]:
            keep()
            saved = time.time()
    keep()
