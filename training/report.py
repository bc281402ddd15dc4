"""Writes docs/NANO.md and the model card from what was measured: python3 training/report.py [--folder CHECKPOINTS]"""
import argparse
import json
import os
import sys

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)

import clips  # noqa: E402
import weights  # noqa: E402
from train_vae import psnr, to_video  # noqa: E402
from vae import Vae  # noqa: E402

MODEL = os.path.join(ROOT, "resources", "models", "nano")
NAMES = {"ground_truth": "analyser on drawn clips (its own accuracy)", "trained": "Nano", "trained_96": "Nano at 96×96, 33 frames", "trained_128": "Nano at 128×128, 33 frames",
         "before": "before the larger tier", "before_96": "before the larger tier, at 96×96, 33 frames", "before_128": "before the larger tier, at 128×128, 33 frames",
         "shuffled": "Nano, captions shuffled", "dense": "Nano with dense attention", "untrained": "untrained weights"}


@torch.no_grad()
def reconstruction(config, count, side, frames):
    """PSNR in dB of the exported VAE on unseen clips, mean and least."""
    tensors, _ = weights.load(os.path.join(MODEL, "vae.safetensors"))
    vae = Vae(config["widths"], config["latent"], config["blocks"])
    vae.load_state_dict({name: t.float() for name, t in tensors.items()})
    values = []
    for i in range(count):
        video = to_video(clips.make(4242, i, side, side, frames, things=2 if i % 7 == 6 else 1, held=None)[1][None])
        values.append(psnr(vae.decode(vae.moments(video)[0]), video))
    return float(np.mean(values)), float(np.min(values))


def percent(entry):
    low, high = entry["interval"]
    return f"{100 * entry['share']:.1f} % ({100 * low:.0f}–{100 * high:.0f})"


def table(measured):
    lines = ["| | clips | colour | motion | shape | all three |", "| --- | --- | --- | --- | --- | --- |"]
    for name, title in NAMES.items():
        if name in measured:
            m = measured[name]
            lines.append(f"| {title} | {m['count']} | {percent(m['colour'])} | {percent(m['motion'])} | {percent(m['shape'])} | {100 * m['all_three']:.1f} % |")
    return "\n".join(lines)


def classes(measured):
    lines = []
    for what in ("colour", "motion", "shape"):
        lines += [f"\n| {what} | right | 95 % interval | taken for |", "| --- | --- | --- | --- |"]
        for name, c in sorted(measured[what]["classes"].items()):
            seen = ", ".join(f"{k} {v}" for k, v in sorted(c["seen_as"].items(), key=lambda item: -item[1]))
            lines.append(f"| {name} | {c['hits']}/{c['count']} | {100 * c['interval'][0]:.0f}–{100 * c['interval'][1]:.0f} % | {seen} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default=os.path.join(ROOT, "build", "nano-training"))
    parser.add_argument("--tier", default="cpu")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with open(os.path.join(HERE, "config.json")) as file:
        config = json.load(file)[options.tier]
    with open(os.path.join(MODEL, "model.json")) as file:
        card = json.load(file)
    with open(os.path.join(ROOT, "docs", "nano", "adherence.json")) as file:
        measured = json.load(file)
    (mean, least), (large_mean, large_least) = reconstruction(config["vae"], 64, 64, 17), reconstruction(config["vae"], 16, 128, 33)
    with open(os.path.join(options.folder, "dit", "log.jsonl")) as file:
        checks = [line for line in map(json.loads, file) if "check" in line]
    last = checks[-1] if checks else None
    knows, training = card["knows"], card["training"]
    world_text = "\n".join(f"- {title}: {', '.join(knows[key])}" for key, title in
                           (("colours", "colours"), ("shapes", "shapes"), ("sizes", "sizes"), ("motions", "motions"), ("backgrounds", "backgrounds"), ("backgroundColours", "background colours")))
    limits = card["limits"]
    made = f"{training['steps']} steps, {training['minutes']} minutes on {training.get('device', 'a CPU core')}"
    if "before" in training:
        made = f"{training['before']['steps']} steps, {training['before']['minutes']} minutes on a CPU core; then {made}"
    if "samples" in training:
        made += f", {training['samples'] / 1e6:.1f} million samples"
    loss_text = ""
    if last:
        loss_text = (f"Flow loss on 96 drawn clips at step {last['step']} (PyTorch, averaged weights): {last['check']:.3f} with VMoBA, {last['dense']:.3f} with dense attention, "
                     f"{last['without_text']:.3f} with VMoBA and an empty caption. Mean density there: 1-D {last['density_1d']:.3f}, 2-D {last['density_2d']:.3f}, 3-D {last['density_3d']:.3f}.")
    quality = f"""Every caption is unseen, and its colour–shape–motion triple was held out of the transformer's training (not of the VAE's, which sees no words).
The shuffled row pairs captions of different motions throughout, so its motion falls below the one in eleven that chance would give. Clips of 64×64×17, where nothing else is said, through the native engine
with the model's own settings, measured by image analysis (`training/analyse.py`; on drawn clips of every size here it is right throughout), 95 % Wilson intervals in brackets.
Aims: colour 95, motion 80, shape 75 %.

{table(measured)}

VAE reconstruction on 64 unseen clips of 64×64×17: {mean:.1f} dB PSNR on average, {least:.1f} dB at worst; on 16 of 128×128×33: {large_mean:.1f} and {large_least:.1f} dB (aim: 30 dB). {loss_text}"""
    follows = ", ".join(f"{what} in {100 * measured['trained'][what]['share']:.0f} %" for what in ("colour", "motion", "shape")) + " of unseen prompts"
    model_card = f"""# Nano

A small text-to-video model in Wan's file layouts: a diffusion transformer trained with VMoBA attention from the first step, a video VAE, a umT5
encoder and a SentencePiece tokenizer. It draws one coloured thing that moves (two with less certainty), at {limits['minSide']}–{limits['maxTrainedSide']} pixels a side and
{limits['minFrames']}–{limits['maxTrainedFrames']} frames. What the prompt says is right for {follows}. Made by `training/`, on drawn clips only ({made}).
Licence: GPL-3.0-or-later.

## What it knows

{world_text}

Other words still render, as something from this world. Larger or longer clips than trained lose their shapes.

## Measured quality

{quality}

The numbers per class are in `docs/NANO.md`.
"""
    page = f"""# Nano: training and measurement

What the model is and knows: [its card](../resources/models/nano/README.md). How it is made: `training/config.json` (tiers, sizes, rates), then

```sh
python3 training/make_tokenizer.py build/nano-training/spiece.model
python3 training/train.py --leg vae && python3 training/train.py --leg clips && python3 training/train.py --leg latents && python3 training/train.py --leg dit
python3 training/sample.py --out sheet.png       # what the transformer draws so far; may run beside it
python3 training/export.py && python3 training/reference.py
python3 training/adherence.py measure            # 220 captions fixed in training/adherence_prompts.jsonl, through the native engine
python3 training/report.py                       # this page
```

Every leg resumes from its last checkpoint; `--folder` says where they lie, `--device` chooses a GPU. `--leg latents` and `--leg dit` may run side by side. On a CPU with AVX512-BF16, `fused.cpp` and
`fused_dit.cpp` (compiled on first use) halve a pass forwards and backwards against PyTorch in bf16 (transformer, 32 clips: 0.27 s instead of 0.57 s, in f32 0.87 s; VAE, one clip: 0.36 s instead of 0.66 s,
in f32 0.83 s; one EPYC core, PyTorch 1.13, medians of 7); without them the same code runs in plain PyTorch, on a CPU in f32. Steps, guidance and shift were chosen on
44–77 other captions of the held-out triples, not on the 220. `--leg decoder` goes on with the
VAE's decoder alone.
The PyTorch models equal the reference fixtures (`python3 training/tests/test_models.py`), the fused kernels equal PyTorch (`python3 training/tests/test_fused.py`).

The larger tier (up to 128×128×33) goes on from the weights in `resources/models/nano`, in one command that ends on time (aimed at one large NVIDIA GPU with 16 CPU cores;
`--smoke` tries every phase and size in a minute and a half, `--rehearse` runs without a GPU):

```sh
python3 training/gpu_tier.py --minutes 8.3 --out OUT && cp OUT/nano/* resources/models/nano/
python3 training/restore.py && python3 training/train.py --leg decoder && python3 training/export.py --tier gpu  # on a CPU: the decoder, on clips of 33 frames
```

The encoder stays as it is; text encoder and transformer train on. Processes draw clips, favouring motions and shapes that the measurement below finds weak, the GPU encodes them in batches
between steps, and latents, captions and noise stay on it. A step is one CUDA graph per size of clip, with the block's halves compiled; where compiling or capturing fails the run says why and
goes on without. `OUT/nano` is the model of the averaged weights, renewed every minute; `log.jsonl` holds losses and checks, `summary.json` the time of every phase and of a step at every size.
`python3 training/tests/test_gpu_tier.py` compares it with the plain models and rehearses it.

{quality}
{classes(measured['trained'])}

![Frames of the eight gallery prompts](pictures/nano.png)
"""
    for path, text in ((os.path.join(MODEL, "README.md"), model_card), (os.path.join(ROOT, "docs", "NANO.md"), page)):
        with open(path, "w") as file:
            file.write(text)


if __name__ == "__main__":
    main()
