"""Leg 3, whenever: the VAE's decoder alone. The encoder, and with it every latent the transformer has learnt, stays as it is."""
import os

import numpy as np
import torch

import clips
import muon
from leg import Average, Leg
from train_vae import evaluate, pool, to_video
from vae import Vae


def main(config, folder, minutes, device):
    leg = Leg(folder, "decoder", minutes)
    vae = config["all"]["vae"]
    fixed = torch.load(os.path.join(folder, "vae.pt"), map_location=device)
    model, shadow = (Vae(vae["widths"], vae["latent"], vae["blocks"]).to(device) for _ in range(2))
    model.load_state_dict(fixed["average"])
    state = leg.resume(device)
    half = torch.nn.ModuleDict({"decoder": model.decoder, "conv2": model.conv2})
    optimisers = muon.optimisers(half, lambda name, p: True)
    average = Average(half, 0.99)
    if state:
        half.load_state_dict(state["model"])
        average.values, average.count = state["average"], state["count"]
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
    rng = np.random.default_rng((6, leg.step))
    side, frames = config.get("side", 64), config.get("frames", 17)
    data = pool(folder, config["clips"], side, side, frames)
    unseen = to_video(np.stack([clips.make(99, i, side, side, frames, held=None)[1] for i in range(8)]), device)

    def keep():
        leg.save({"model": half.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "average": average.values, "count": average.count})
        shadow.load_state_dict({**fixed["average"], **average.values})
        leg.log(unseen_psnr=evaluate(shadow, unseen)[0])
        torch.save({**fixed, "average": shadow.state_dict()}, os.path.join(folder, "vae.pt.part"))
        os.replace(os.path.join(folder, "vae.pt.part"), os.path.join(folder, "vae.pt"))

    total = 0.0
    while leg.progress < 1:
        video = to_video(data[np.sort(rng.integers(len(data), size=config["batch"]))], device)
        with torch.no_grad():
            z = model.moments(video.bfloat16())[0]
        difference = model.decode(z).float() - video
        error = difference.square().flatten(1).mean(1)
        loss = 0.5 * difference.abs().mean() + 4 * error.mean() + config["decibels"] * error.log().mean()
        muon.set_rate(optimisers, leg.rate(config["rate"], warm=30))
        half.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(half.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        average.update(half)
        leg.tick()
        total += float((10 * torch.log10(4 / error.detach())).mean())
        if leg.step % 50 == 0:
            leg.log(psnr=total / 50, rate=leg.rate(config["rate"]))
            total = 0.0
        if leg.step % 300 == 0:
            keep()
    keep()
