"""The PyTorch models against the reference fixtures: python3 training/tests/test_models.py"""
import glob
import os
import sys
import unittest

import torch

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.dirname(HERE))
FIXTURES = os.path.join(HERE, "..", "..", "tests", "fixtures")

import attention  # noqa: E402
import weights  # noqa: E402
from dit import Dit  # noqa: E402
from text_encoder import TextEncoder, position_buckets  # noqa: E402
from vae import Vae  # noqa: E402


def fixture(name):
    return weights.load(os.path.join(FIXTURES, name + ".safetensors"))


def numbers(text):
    return tuple(float(x) if "." in x else int(x) for x in text.split(","))


def partition_of(text):
    values = numbers(text)
    return values[0] if len(values) == 1 else values


class Models(unittest.TestCase):
    def setUp(self):
        torch.set_grad_enabled(False)

    def close(self, got, expected, tolerance=1e-4):
        self.assertEqual(got.shape, expected.shape)
        self.assertLess(float((got - expected).abs().max()), tolerance)

    def test_vae(self):
        tensors, _ = fixture("wan_vae_tiny")
        io, meta = fixture("wan_vae_tiny.io")
        dim = int(meta["dim"])
        model = Vae([dim * m for m in numbers(meta["dim_mult"])], int(meta["z_dim"]), int(meta["num_res_blocks"]))
        model.load_state_dict(tensors)
        mean, std = (io["const." + n].view(1, -1, 1, 1, 1) for n in ("mean", "std"))
        twice = lambda x: torch.stack([torch.zeros_like(x), x])  # the clip under test is second in its batch
        self.close(model.moments(twice(io["in.video"]))[0][1], io["enc.mu_raw"])
        self.close(model.decode(twice(io["in.z"]) * std + mean)[1], io["dec.out"])

    def test_text_encoder(self):
        tensors, _ = fixture("umt5_tiny")
        io, m = fixture("umt5_tiny.io")
        model = TextEncoder(*(int(m[k]) for k in ("vocab", "dim", "dim_attn", "dim_ffn", "num_heads", "num_layers", "num_buckets")))
        model.load_state_dict(tensors)
        self.close(model(io["in.ids"], io["in.mask"]), io["out"])
        ids = io["long.in.ids"][None]
        self.close(model(ids, torch.ones_like(ids))[0], io["long.out"])
        self.assertTrue(torch.equal(position_buckets(301)[0], io["bucket.index"][300:]))

    def test_dit(self):
        tensors, m = fixture("wan_dit_t2v_tiny")
        io, extra = fixture("wan_dit_t2v_tiny.io")
        n = {k: int(v) for k, v in m.items() if v.isdigit()}
        make = lambda policy: Dit(n["in_dim"], n["dim"], n["ffn_dim"], n["num_heads"], n["num_layers"], n["text_dim"], n["text_len"], n["freq_dim"], numbers(m["patch_size"]), policy)
        for variant, keys in {"v1": ("v1.",), "v2": ("v2.t0.", "v2.t1.")}.items():
            context = io[variant + ".in.context"]
            text = torch.zeros(2, n["text_len"], n["text_dim"])
            text[1, :len(context)] = context
            latent = torch.stack([torch.ones_like(io[variant + ".in.latent"]), io[variant + ".in.latent"]])
            for key in keys:
                model = make(None)
                model.load_state_dict(tensors)
                time = io[key + "in.timestep"].repeat(2)
                self.close(model(latent, time, text)[1], io[key + "out"])
                if variant != "v1":
                    continue
                policy = {"tau": float(extra["v1.vmoba.simsum_threshold"]), "scope": extra["v1.vmoba.threshold_type"], "partitions": {name: partition_of(extra[f"v1.vmoba.chunk_size{i}"]) for i, name in enumerate(("1d", "2d", "3d"))}}
                model.policy = policy
                trace = []
                self.close(model(latent, time, text, trace=trace)[1], io["v1.vmoba.out"])
                for i, x in enumerate(trace):
                    self.close(x[1], io[f"v1.vmoba.block{i}"])

    def test_vmoba_selections_are_the_reference_s(self):
        checked = 0
        for path in sorted(glob.glob(os.path.join(FIXTURES, "vmoba_[ab]_*d*.safetensors"))):
            if path.endswith("qkv.safetensors"):
                continue
            tensors, m = weights.load(path)
            io, _ = weights.load(os.path.join(os.path.dirname(path), os.path.basename(path)[:8] + "qkv.safetensors"))
            grid = numbers(m["grid"])
            blocks = attention.lay(grid, partition_of(m["chunk_size"]))
            self.assertTrue(torch.equal(blocks.order, tensors["perm"]))
            order, _, _, own, mean, _ = attention._plan(grid, partition_of(m["chunk_size"]), torch.device("cpu"))
            q, k, v = (io[n].transpose(0, 1) for n in "qkv")
            gate = attention.gates(q[:, order], k[:, order], mean)
            self.close(gate.transpose(0, 1), tensors["gate"])
            for name in m["selections"].split(";"):
                kind, scope = name.rsplit(".", 1)
                if not kind.startswith("thr") or scope not in ("head_global", "query_head") or float(kind[3:]) >= 1:
                    continue
                tau = float(kind[3:])
                chosen = attention.threshold_selection(gate, own, tau, scope).transpose(0, 1)  # [C, H, S]
                packed = tensors[name + ".mask_packed"]
                expected = torch.stack([(packed[c // 8] >> (c % 8)) & 1 for c in range(blocks.count)]).bool()
                self.assertTrue(torch.equal(chosen, expected), f"{path} {name}")
                if name + ".out_rows" in tensors:
                    out = attention.vmoba(*(x[None] for x in (q, k, v)), grid, partition_of(m["chunk_size"]), tau, scope)[0].transpose(0, 1)
                    self.close(out[tensors["rows"]], tensors[name + ".out_rows"], 2e-5)
                checked += 1
        self.assertGreater(checked, 15)


if __name__ == "__main__":
    unittest.main()
