"""Writes tests/reference/nano.safetensors: what PyTorch makes of one prompt with the exported model, for the native engine to be held against.

    python3 training/reference.py [--model resources/models/nano]

Noise, the latent after four guided UniPC steps in f32, and how far PyTorch's own bf16 (autocast) ends from it. Run it after every export.
"""
import argparse
import json
import math
import os
import sys

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
sys.path.insert(0, HERE)

import weights  # noqa: E402
from dit import Dit  # noqa: E402
from text_encoder import TextEncoder  # noqa: E402
from train_dit import Tokenizer  # noqa: E402

PROMPT, STEPS, GUIDANCE, SHIFT, SEED = "a large red star spins on a gray floor", 4, 4.0, 3.0, 11


class UniPc:
    """UniPC of order 2 ("bh2") on the estimate of the clean sample, for flow matching; scalars in float64."""

    def __init__(self, steps, shift):
        high = float(torch.tensor(0.999, dtype=torch.float32))
        plain = [high - i * high / steps for i in range(steps)]
        exact = [shift * s / (1 + (shift - 1) * s) for s in plain]
        self.timesteps = [int(1000 * s) for s in exact]
        self.sigmas = torch.tensor([*exact, 0.0], dtype=torch.float32).double().tolist()
        self.alphas = (1 - torch.tensor([*exact, 0.0], dtype=torch.float32)).double().tolist()
        self.lambdas = [math.log(a) - math.log(s) if s > 0 else math.inf for a, s in zip(self.alphas, self.sigmas)]
        self.clean, self.start, self.order = [], None, 0  # estimates so far; where the last prediction started, and its order

    def step(self, i, x, velocity):
        s, a, l = self.sigmas, self.alphas, self.lambdas
        now = x - s[i] * velocity
        if i > 0:
            h = l[i] - l[i - 1]
            phi = math.expm1(-h)
            base, last = s[i] / s[i - 1] * self.start - a[i] * phi * self.clean[-1], self.clean[-1]
            if self.order == 1:
                x = base - a[i] * phi * 0.5 * (now - last)
            else:
                r = (l[i - 2] - l[i - 1]) / h
                kappa = phi / -h - 1
                b1, b2 = kappa / phi, 2 * (kappa / -h - 0.5) / phi
                rho0 = (b1 - b2) / (1 - r)
                x = base - a[i] * phi * (rho0 * (self.clean[-2] - last) / r + (b1 - rho0) * (now - last))
        self.order = min(2, len(self.timesteps) - i, i + 1)
        h = l[i + 1] - l[i]
        phi = math.expm1(-h)
        following = s[i + 1] / s[i] * x - a[i + 1] * phi * now
        if self.order == 2:
            following = following - a[i + 1] * phi * 0.5 * (self.clean[-1] - now) / ((l[i - 1] - l[i]) / h)
        self.clean.append(now)
        self.start = x
        return following


def load(folder):
    """(description, tokenizer, text encoder, transformer) of an exported model, in f32."""
    with open(os.path.join(folder, "model.json")) as file:
        card = json.load(file)
    dit_weights, dit = weights.load(os.path.join(folder, card["files"]["dit"]))
    text_weights, text = weights.load(os.path.join(folder, card["files"]["textEncoder"]))
    wide = lambda tensors: {name: t.float() for name, t in tensors.items()}
    dim = dit_weights["patch_embedding.bias"].shape[0]
    model = Dit(dit_weights["patch_embedding.weight"].shape[1], dim, int(dit["ffn_dim"]), int(dit["num_heads"]), int(dit["num_layers"]), int(dit["text_dim"]), int(dit["text_len"]),
                int(dit["freq_dim"]), tuple(map(int, dit["patch_size"].split(","))), {key: card["policy"][key] for key in ("tau", "scope", "partitions")})
    model.load_state_dict(wide(dit_weights))
    vocabulary, width = text_weights["token_embedding.weight"].shape
    encoder = TextEncoder(vocabulary, width, text_weights["blocks.0.attn.q.weight"].shape[0], text_weights["blocks.0.ffn.fc1.weight"].shape[0], int(text["num_heads"]),
                          1 + max(int(name.split(".")[1]) for name in text_weights if name.startswith("blocks.")))
    encoder.load_state_dict(wide(text_weights))
    return card, Tokenizer(os.path.join(folder, card["files"]["tokenizer"]), model.text_len), encoder.eval(), model.eval()


@torch.no_grad()
def render(tokenizer, encoder, model, noise):
    def context(text):
        ids, mask = tokenizer.batch([text])
        return torch.nn.functional.pad(encoder(ids, mask), (0, 0, 0, model.text_len - ids.shape[1]))

    prompt, nothing, solver, x = context(PROMPT), context(""), UniPc(STEPS, SHIFT), noise
    for i, t in enumerate(solver.timesteps):
        time = torch.tensor([float(t)])
        with_text, without = (model(x[None], time, c)[0].float() for c in (prompt, nothing))
        x = solver.step(i, x, without + GUIDANCE * (with_text - without))
    return x


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=os.path.join(ROOT, "resources", "models", "nano"))
    parser.add_argument("--out", default=os.path.join(ROOT, "tests", "reference", "nano.safetensors"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    card, *parts = load(options.model)
    noise = torch.randn(parts[-1].channels, 5, 8, 8, generator=torch.Generator().manual_seed(SEED))
    exact = render(*parts, noise)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        rough = render(*parts, noise)
    error = float((rough - exact).norm() / exact.norm())
    print(f"latent norm {float(exact.norm()):.2f}; PyTorch's bf16 ends {error:.4f} away")
    weights.save(options.out, {"noise": noise, "latent": exact.float()}, {"prompt": PROMPT, "steps": STEPS, "guidance": GUIDANCE, "shift": SHIFT, "bf16_error": error,
                                                                          "width": 64, "height": 64, "frames": 17, "dit_sha256": card["content"][card["files"]["dit"]]["sha256"]})


if __name__ == "__main__":
    main()
