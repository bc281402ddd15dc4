"""Writes a trained Nano as a model folder: python3 training/export.py [--folder CHECKPOINTS] [--out resources/models/nano]

The averaged weights, in f16, under official names; model.json with sizes, hashes, settings and preview factors.
"""
import argparse
import hashlib
import json
import os
import shutil
import sys

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import clips  # noqa: E402
import weights  # noqa: E402
import world  # noqa: E402
from latents import Encoder  # noqa: E402
from train_dit import Nano, Tokenizer  # noqa: E402
from train_vae import to_video  # noqa: E402


def preview_factors(encoder, count=48):
    """Least squares from a latent position to the mean colour of its 8x8 pixels: factors [C][3] and bias [3], colours in -1..1."""
    rows, colours = [], []
    for i in range(count):
        batch = clips.make(31, i, held=None)[1][None]
        latent = encoder.encode(batch)[0]
        video = to_video(batch)[0][:, ::4]
        colours.append(torch.nn.functional.avg_pool2d(video.transpose(0, 1), 8).permute(0, 2, 3, 1).reshape(-1, 3))
        rows.append(latent.permute(1, 2, 3, 0).reshape(-1, latent.shape[0]))
    x, y = torch.cat(rows).double(), torch.cat(colours).double()
    x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
    solution = torch.linalg.solve(x.T @ x + 1e-3 * torch.eye(x.shape[1], dtype=torch.float64), x.T @ y)
    return solution[:-1].tolist(), solution[-1].tolist()


def write_transformer(out, average, c):
    """dit.safetensors and text_encoder.safetensors of a Nano's weights, each put in place in one go; `c`: config `dit`."""
    part = lambda prefix: {n[len(prefix):]: t.to(torch.float16) for n, t in average.items() if n.startswith(prefix)}
    os.makedirs(out, exist_ok=True)
    for name, prefix, metadata in (
        ("dit.safetensors", "dit.", {
            "model_type": "t2v", "text_len": c["model"]["text_len"], "num_heads": c["model"]["heads"], "dim": c["model"]["dim"], "ffn_dim": c["model"]["hidden"],
            "freq_dim": c["model"]["freq_dim"], "num_layers": c["model"]["layers"], "text_dim": c["text"]["dim"], "patch_size": ",".join(map(str, c["model"]["patch"])), "eps": "1e-06"}),
        ("text_encoder.safetensors", "text.", {"num_heads": c["text"]["heads"]}),
    ):
        weights.save(os.path.join(out, name + ".part"), part(prefix), metadata)
        os.replace(os.path.join(out, name + ".part"), os.path.join(out, name))


def prepare(out, folder, config, untrained=False):
    vae_state = torch.load(os.path.join(folder, "vae.pt"), map_location="cpu")
    dit_state = torch.load(os.path.join(folder, "dit", "checkpoint.pt"), map_location="cpu")
    if untrained:
        tokenizer = Tokenizer(os.path.join(folder, "spiece.model"), config["dit"]["model"]["text_len"])
        dit_state = {**dit_state, "average": Nano(config["dit"], tokenizer.size, config["vae"]["latent"]).state_dict()}
    encoder = Encoder(vae_state, config["vae"], "cpu")
    half = lambda tensors: {name: t.to(torch.float16) for name, t in tensors.items()}
    number = lambda values: ",".join(f"{v:.6g}" for v in values.tolist())
    write_transformer(out, dit_state["average"], config["dit"])
    weights.save(os.path.join(out, "vae.safetensors"), half(vae_state["average"]), {
        "z_dim": config["vae"]["latent"], "latent_mean": number(vae_state["statistics"]["mean"]), "latent_std": number(vae_state["statistics"]["std"])})
    shutil.copyfile(os.path.join(folder, "spiece.model"), os.path.join(out, "spiece.model"))
    return encoder, dit_state


def describe(out, preview, state, config):
    """model.json; `preview`: factors and bias, `state`: steps and seconds of training, and what came before it."""
    factors, bias = preview
    c, best = config["dit"], dict(config["best"])
    width, height, frames = best.pop("size")
    files = {"dit": "dit.safetensors", "vae": "vae.safetensors", "textEncoder": "text_encoder.safetensors", "tokenizer": "spiece.model"}
    content = {}
    for name in files.values():
        with open(os.path.join(out, name), "rb") as file:
            data = file.read()
        content[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    sizes = [size["size"] for size in c["sizes"]]
    rounded = lambda values: [round(v, 5) for v in values]
    card = {
        "format": "vmoba-model/1", "id": "nano", "name": "Nano",
        "files": files, "content": content, "licence": "GPL-3.0-or-later",
        "limits": {"sideMultiple": 8 * c["model"]["patch"][1], "minSide": min(min(w, h) for w, h, _ in sizes), "maxTrainedSide": max(max(w, h) for w, h, _ in sizes),
                   "minFrames": min(f for *_, f in sizes), "maxTrainedFrames": max(f for *_, f in sizes)},
        "defaults": {"width": width, "height": height, "frames": frames, "fps": 12, "scheduler": "unipc", "negativePrompt": "", **best},
        "policy": {"version": 1, "name": "nano", "mode": "threshold", "denseSteps": 0, "minimumTokens": 0, "cycle": ["1d", "2d", "3d"], **c["policy"]},
        "preview": {"factors": [rounded(row) for row in factors], "bias": rounded(bias)},
        "knows": {"colours": list(world.COLOURS), "shapes": [*world.SHAPES, "ball", "box", "donut"], "sizes": list(world.SIZES),
                  "motions": list(world.MOTIONS), "backgrounds": list(world.BACKGROUNDS), "backgroundColours": list(world.GROUNDS)},
        "training": {"data": "clips drawn by training/clips.py, captions by training/world.py", "steps": state["step"], "minutes": round(state["spent"] / 60, 1),
                     "sizes": sizes, "attention": "VMoBA, head_global threshold 0.25, from the first step", "tier": config["tier"], **state.get("training", {})},
    }
    with open(os.path.join(out, "model.json.part"), "w") as file:
        json.dump(card, file, indent=2)
        file.write("\n")
    os.replace(os.path.join(out, "model.json.part"), os.path.join(out, "model.json"))
    return card


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tier", default="cpu")
    parser.add_argument("--folder", default=os.path.join(HERE, "..", "build", "nano-training"))
    parser.add_argument("--out", default=os.path.join(HERE, "..", "resources", "models", "nano"))
    parser.add_argument("--untrained", action="store_true", help="the transformer as it was before training, to measure what chance gives")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with open(os.path.join(HERE, "config.json")) as file:
        config = {**json.load(file)[options.tier], "tier": options.tier}
    encoder, state = prepare(options.out, options.folder, config, options.untrained)
    card = describe(options.out, preview_factors(encoder), state, config)
    print(json.dumps(card["content"], indent=2))


if __name__ == "__main__":
    main()
