"""Looks at a transformer in training: python3 training/sample.py [--folder CHECKPOINTS] [--count 32] [--out sheet.png]

Renders unseen captions with the averaged weights in PyTorch (UniPC's work is done by a second-order multistep here), measures them with
analyse.py and writes a contact sheet, six frames a clip.
"""
import argparse
import json
import os
import subprocess
import sys
import tempfile

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import analyse  # noqa: E402
import world  # noqa: E402
from latents import Encoder  # noqa: E402
from train_dit import Nano, Tokenizer  # noqa: E402


@torch.no_grad()
def sample(model, tokenizer, texts, shape, steps, guidance, shift, seed=5):
    """Latents [len(texts), *shape] by a second-order multistep solver on the estimate of the clean latent."""
    how = model.fastest("cpu")
    prompts, nothing = tokenizer.batch(texts), tokenizer.batch([""] * len(texts))
    x = torch.randn(len(texts), *shape, generator=torch.Generator().manual_seed(seed))
    sigmas = torch.linspace(0.999, 0, steps + 1)
    sigmas = shift * sigmas / (1 + (shift - 1) * sigmas)
    last, last_step = None, None
    for here, there in zip(sigmas[:-1], sigmas[1:]):
        t = torch.full((len(texts),), float((1000 * here).floor()))
        with_text, without = model(x, t, *prompts, how=how), model(x, t, *nothing, how=how)
        clean = x - here * (without + guidance * (with_text - without))
        ratio = 0.0
        step = torch.log((1 - there) / there.clamp_min(1e-9)) - torch.log((1 - here) / here)
        if last is not None and there > 0:
            ratio = step / (2 * last_step)
        target = clean + ratio * (clean - last) if last is not None else clean
        x = there / here * x + (1 - there - there / here * (1 - here)) * target
        last, last_step = clean, step
    return x


def unseen(count, seed=555):
    """(scene, caption), all triples held out of training, motions and shapes in turn as far as they go."""
    rng, found = np.random.default_rng(seed), []
    while len(found) < count:
        scene = world.draw_scene(rng, held=True, motions=(world.MOTIONS[len(found) % len(world.MOTIONS)],)) if any(
            world.held_out(c, s, world.MOTIONS[len(found) % len(world.MOTIONS)]) for c in world.COLOURS for s in world.SHAPES) else world.draw_scene(rng, held=True)
        found.append((scene, world.caption(rng, scene)))
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tier", default="cpu")
    parser.add_argument("--folder", default=os.path.join(HERE, "..", "build", "nano-training"))
    parser.add_argument("--count", type=int, default=33)
    parser.add_argument("--steps", type=int, default=16)
    parser.add_argument("--guidance", type=float, default=4.0)
    parser.add_argument("--shift", type=float, default=3.0)
    parser.add_argument("--dense", action="store_true")
    parser.add_argument("--out")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with open(os.path.join(HERE, "config.json")) as file:
        config = json.load(file)[options.tier]
    encoder = Encoder(torch.load(os.path.join(options.folder, "vae.pt"), map_location="cpu"), config["vae"], "cpu")
    tokenizer = Tokenizer(os.path.join(options.folder, "spiece.model"), config["dit"]["model"]["text_len"])
    state = torch.load(os.path.join(options.folder, "dit", "checkpoint.pt"), map_location="cpu")
    model = Nano(config["dit"], tokenizer.size, config["vae"]["latent"]).eval()
    model.load_state_dict(state["average"])
    if options.dense:
        model.dit.policy = None
    scenes = unseen(options.count)
    latents = sample(model, tokenizer, [text for _, text in scenes], (config["vae"]["latent"], 5, 8, 8), options.steps, options.guidance, options.shift)
    clips = ((encoder.decode(latents) + 1) * 127.5 + 0.5).clamp(0, 255).byte().permute(0, 2, 3, 4, 1).numpy()
    classifier, hits = analyse.load_classifier(), []
    for (scene, text), clip in zip(scenes, clips):
        thing, seen = scene.things[0], analyse.analyse(clip, classifier)
        hits.append([seen[what] == getattr(thing, what) for what in ("colour", "motion", "shape")])
        print("".join(".x"[not hit] for hit in hits[-1]), text, "->", seen["colour"], seen["shape"], seen["motion"])
    colour, motion, shape = np.mean(hits, 0)
    print(f"step {state['step']}: colour {colour:.2f}, motion {motion:.2f}, shape {shape:.2f}")
    if options.out:
        rows = [np.concatenate(list(clip[[0, 3, 6, 10, 13, 16]]), 1) for clip in clips]
        rows += [np.zeros_like(rows[0])] * (-len(rows) % 3)
        third = len(rows) // 3
        sheet = np.concatenate([np.concatenate(rows[i * third:(i + 1) * third], 0) for i in range(3)], 1)
        with tempfile.NamedTemporaryFile(suffix=".ppm") as file:
            file.write(b"P6 %d %d 255\n" % (sheet.shape[1], sheet.shape[0]) + np.ascontiguousarray(sheet).tobytes())
            file.flush()
            subprocess.run(["convert", file.name, options.out], check=True)


if __name__ == "__main__":
    main()
