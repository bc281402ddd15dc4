"""Leg 1: the video VAE, on crops of drawn clips, then on whole clips. See train.py for the command."""
import os

import numpy as np
import torch

import clips
import muon
from leg import Average, Leg
from vae import Vae


def pool(folder, count, width=64, height=64, frames=17, seed=11):
    """Drawn clips, uint8 [count, frames, height, width, 3], kept in a file; a seventh of them show two things."""
    path = os.path.join(folder, f"clips_{width}x{height}x{frames}_{seed}_{count}.npy")
    if not os.path.exists(path):
        data = np.lib.format.open_memmap(path + ".part", "w+", np.uint8, (count, frames, height, width, 3))
        for i in range(count):
            data[i] = clips.make(seed, i, width, height, frames, 2 if i % 7 == 6 else 1, held=None)[1]
        data.flush()
        os.replace(path + ".part", path)
    return np.load(path, mmap_mode="r")


def to_video(batch, device="cpu"):
    """uint8 [B, T, H, W, 3] -> f32 [B, 3, T, H, W] in [-1, 1]."""
    return torch.from_numpy(np.array(batch)).to(device).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def crop(data, rng, side, frames):
    """A crop; of three places the one where most happens."""
    clip = data[rng.integers(len(data))]
    best = None
    for _ in range(3):
        t, y, x = rng.integers(clip.shape[0] - frames + 1), rng.integers(clip.shape[1] - side + 1), rng.integers(clip.shape[2] - side + 1)
        piece = clip[t:t + frames, y:y + side, x:x + side]
        busy = piece[::4, ::4, ::4].std()
        if best is None or busy > best[0]:
            best = busy, piece
    return best[1]


def psnr(a, b):
    """Mean over clips of the PSNR of pixels in [-1, 1], peak to peak 2."""
    error = (a.clamp(-1, 1) - b).square().flatten(1).mean(1)
    return float((10 * torch.log10(4 / error)).mean())


@torch.no_grad()
def evaluate(model, videos):
    mean, _ = model.moments(videos.bfloat16())
    return psnr(model.decode(mean).float(), videos), float(mean.float().std())


def main(config, folder, minutes, device):
    leg = Leg(folder, "vae", minutes)
    rng = np.random.default_rng((5, leg.step))
    data = pool(folder, config["clips"])
    unseen = to_video(np.stack([clips.make(99, i, held=None)[1] for i in range(8)]), device)
    model = Vae(config["widths"], config["latent"], config["blocks"]).to(device)
    optimisers = muon.optimisers(model, lambda name, p: True)
    average = Average(model, 0.995)
    state = leg.resume(device)
    if state:
        model.load_state_dict(state["model"])
        for optimiser, saved in zip(optimisers, state["optimisers"]):
            optimiser.load_state_dict(saved)
        average.values, average.count = state["average"], state["count"]
        rng = np.random.default_rng((5, leg.step))
    keep = lambda: leg.save({"model": model.state_dict(), "optimisers": [o.state_dict() for o in optimisers], "average": average.values, "count": average.count})
    sums = np.zeros(2)
    while leg.progress < 1:
        whole = leg.progress > config["whole_from"]
        batch = data[np.sort(rng.integers(len(data), size=config["whole_batch"]))] if whole else np.stack([crop(data, rng, config["crop"], config["crop_frames"]) for _ in range(config["batch"])])
        video = to_video(batch, device)
        mean, log_variance = (m.float() for m in model.moments(video.bfloat16()))
        log_variance = log_variance.clamp(-12, 6)
        z = mean + torch.randn_like(mean) * (0.5 * log_variance).exp()
        difference = model.decode(z.bfloat16()).float() - video
        kl = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).mean()
        loss = 0.5 * difference.abs().mean() + 4 * difference.square().mean() + config["kl"] * kl
        muon.set_rate(optimisers, leg.rate(config["rate"], warm=30))
        model.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimiser in optimisers:
            optimiser.step()
        average.update(model)
        leg.tick()
        sums += float(difference.detach().square().mean()), float(kl.detach())
        if leg.step % 50 == 0:
            leg.log(mse=sums[0] / 50, crop_psnr=float(10 * np.log10(4 / (sums[0] / 50))), kl=sums[1] / 50, rate=leg.rate(config["rate"]), whole=whole)
            sums[:] = 0
        if leg.step % 300 == 0:
            shadow = Vae(config["widths"], config["latent"], config["blocks"]).to(device)
            shadow.load_state_dict(average.values)
            value, spread = evaluate(shadow, unseen)
            leg.log(unseen_psnr=value, latent_std=spread)
            keep()
    keep()
    finish(config, folder, device)


def finish(config, folder, device="cpu"):
    """Fixes the averaged weights and the latents' mean and deviation per channel in vae.pt, for all that follows."""
    from latents import statistics
    state = torch.load(os.path.join(folder, "vae", "checkpoint.pt"), map_location=device)
    model = Vae(config["widths"], config["latent"], config["blocks"]).to(device)
    model.load_state_dict(state["average"])
    videos = to_video(np.stack([clips.make(12, i, things=2 if i % 7 == 6 else 1, held=None)[1] for i in range(128)]), device)
    torch.save({"average": state["average"], "statistics": statistics(model, videos)}, os.path.join(folder, "vae.pt"))
