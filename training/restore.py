"""Makes checkpoints of a model folder, so that training goes on from committed weights: python3 training/restore.py [--model M] [--folder CHECKPOINTS]

Averaged weights in f16 are all that a model folder keeps: the optimisers begin anew, and the rates should warm up.
"""
import argparse
import json
import os
import shutil
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import weights  # noqa: E402


def read(model):
    """(VAE's state as in vae.pt, transformer's and text encoder's weights as one Nano, what model.json says of training) of a model folder, in f32."""
    load = lambda name: weights.load(os.path.join(model, name))
    single = lambda tensors, prefix="": {prefix + name: t.float() for name, t in tensors.items()}
    with open(os.path.join(model, "model.json")) as file:
        training = json.load(file)["training"]
    vae, metadata = load("vae.safetensors")
    numbers = lambda key: torch.tensor([float(v) for v in metadata[key].split(",")])
    vae_state = {"average": single(vae), "statistics": {"mean": numbers("latent_mean"), "std": numbers("latent_std")}}
    return vae_state, {**single(load("dit.safetensors")[0], "dit."), **single(load("text_encoder.safetensors")[0], "text.")}, training


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default=os.path.join(HERE, "..", "resources", "models", "nano"))
    parser.add_argument("--folder", default=os.path.join(HERE, "..", "build", "nano-training"))
    options = parser.parse_args()
    vae_state, average, training = read(options.model)
    os.makedirs(os.path.join(options.folder, "dit"), exist_ok=True)
    torch.save(vae_state, os.path.join(options.folder, "vae.pt"))
    torch.save({"model": average, "average": average, "count": training["steps"], "step": training["steps"], "spent": 60 * training["minutes"],
                "training": {key: training[key] for key in ("samples", "device", "before") if key in training}},
               os.path.join(options.folder, "dit", "checkpoint.pt"))
    shutil.copyfile(os.path.join(options.model, "spiece.model"), os.path.join(options.folder, "spiece.model"))


if __name__ == "__main__":
    main()
