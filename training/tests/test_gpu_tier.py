"""The arrangement for a GPU against the plain models, on a CPU: python3 training/tests/test_gpu_tier.py"""
import json
import os
import sys
import tempfile
import unittest

import numpy as np
import torch

HERE = os.path.dirname(os.path.abspath(__file__))
MODEL = os.path.join(HERE, "..", "..", "resources", "models", "nano")
sys.path.insert(0, os.path.dirname(HERE))

import attention  # noqa: E402
import clips  # noqa: E402
import gpu_dit  # noqa: E402
import gpu_pools  # noqa: E402
import gpu_tier  # noqa: E402
import latents  # noqa: E402
import muon  # noqa: E402
import restore  # noqa: E402
import weights  # noqa: E402
import world  # noqa: E402
from flat import Flat  # noqa: E402
from train_dit import Nano, Tokenizer, hidden_matrix  # noqa: E402

with open(os.path.join(HERE, "..", "config.json")) as file:
    CONFIG = json.load(file)["gpu"]


def nano():
    _, average, _ = restore.read(MODEL)
    model = Nano(CONFIG["dit"], average["text.token_embedding.weight"].shape[0], CONFIG["vae"]["latent"])
    model.load_state_dict(average)
    return model


class GpuTier(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_selections_take_little_more_than_the_exact_ones(self):
        for grid, blocks in (((5, 4, 4), 1), ((5, 4, 4), (2, 2, 2)), ((3, 6, 6), (2, 2)), ((2, 3, 3), (2, 2, 2))):
            partition = gpu_dit.Partition(grid, blocks, "cpu")
            order, inverse, _, own, mean, _ = attention._plan(grid, blocks, torch.device("cpu"))
            q, k = torch.randn(2, 2, 3, partition.own.shape[0], 16)
            exact = attention.threshold_selection(attention.gates(q[:, :, order], k[:, :, order], mean), own, 0.25).transpose(2, 3)[:, :, inverse]
            got = gpu_dit.choose(q, k, partition, 0.25)
            self.assertTrue(bool((got | ~exact).all()))
            self.assertLess(float((got & ~exact).float().mean()), 0.01)

    def test_the_model_and_its_gradients_are_the_plain_ones(self):
        model, tokenizer = nano(), Tokenizer(os.path.join(MODEL, "spiece.model"), 32)
        texts = ["a red star spins on a blue floor", "", "a small white ring moves in a circle"]
        latent, steps, (ids, mask) = torch.randn(3, 16, 5, 8, 8), torch.tensor([999.0, 500, 3]), tokenizer.batch(texts)
        rows = torch.nn.functional.pad(ids, (0, gpu_pools.WORDS - ids.shape[1]))
        for tau in (0.25, 1.0):  # 1: all blocks, where selection cannot differ
            model.dit.policy = {**CONFIG["dit"]["policy"], "tau": tau}
            plan = gpu_dit.Plan(model.dit, (5, 4, 4), gpu_pools.WORDS, "cpu")
            wanted = model(latent, steps, ids, mask)
            got = gpu_dit.forward(model, plan, gpu_dit.Pieces(), latent, gpu_dit.times(128, "cpu")[steps.long()], rows, torch.float32)
            self.assertLess(float((got - wanted).norm() / wanted.norm()), 1e-5 if tau == 1 else 0.02)
        push = torch.randn_like(wanted)
        parameters = list(model.parameters())
        for mine, theirs in zip(torch.autograd.grad(got, parameters, push), torch.autograd.grad(wanted, parameters, push)):
            self.assertLess(float((mine - theirs).norm()), 1e-4 * float(theirs.norm()) + 1e-5)

    def test_optimiser_is_muon_and_adam(self):
        one, two = nano(), nano()
        flat, optimisers = Flat(one, hidden_matrix), muon.optimisers(two, hidden_matrix)
        flat.rate.fill_(1e-3), flat.hidden_rate.fill_(2e-3), flat.forget.fill_(0.5)
        muon.set_rate(optimisers, 1e-3, 2.0)
        named = dict(two.named_parameters())
        start = {name: p.detach().clone() for name, p in named.items()}
        for _ in range(3):
            gradients = [torch.randn_like(p) for p in flat.parameters]
            norm = torch.cat([g.flatten() for g in gradients]).norm()
            for name, g in zip(flat.names, gradients):
                named[name].grad = g / norm
            flat.step(gradients)
            for optimiser in optimisers:
                optimiser.step()
            for name, p in one.named_parameters():
                moved = (named[name] - start[name]).detach()
                self.assertLess(float((p - named[name]).detach().norm()), 0.02 * float(moved.norm()), name)
        before = flat.values.clone()
        flat.step([torch.full_like(p, float("nan")) for p in flat.parameters])
        self.assertEqual(int(flat.skipped), 1)
        self.assertTrue(bool(torch.isfinite(flat.values).all()))
        self.assertLess(float((flat.values - before).abs().max()), 0.05)

    def test_clips_keep_the_held_out_triples_out(self):
        rng = np.random.default_rng(1)
        for _ in range(400):
            for thing in gpu_pools.scene(rng, 1 + int(rng.integers(2)), CONFIG["dit"]["favours"]).things:
                self.assertFalse(world.held_out(thing.colour, thing.shape, thing.motion))

    def test_places_and_tokens(self):
        shown, clip = clips.make(3, 5, 64, 48, 9, 2)
        colours = torch.tensor([[world.COLOURS[thing.colour] for thing in shown.things]], dtype=torch.int16)
        got = gpu_pools.places(torch.from_numpy(clip)[None], colours)
        self.assertTrue(np.array_equal(got[0, 0].numpy(), latents.things_at(clip, shown)))
        tokenizer, rng = Tokenizer(os.path.join(MODEL, "spiece.model"), gpu_pools.WORDS), np.random.default_rng(2)
        rows = gpu_pools.describe(rng, shown, tokenizer)
        rng = np.random.default_rng(2)
        for row in rows:
            expected = tokenizer.encode(world.caption(rng, shown))
            self.assertNotIn(0, expected)  # 0 stands behind the end
            self.assertEqual(row.tolist(), expected + [0] * (gpu_pools.WORDS - len(expected)))

    def test_a_rehearsal_leaves_a_model(self):
        with tempfile.TemporaryDirectory() as out:
            self.assertEqual(gpu_tier.main(["--minutes", "0.5", "--out", out, "--rehearse", "--no-compile"]), 0)
            tensors, metadata = weights.load(os.path.join(out, "nano", "dit.safetensors"))
            wanted, expected = weights.load(os.path.join(MODEL, "dit.safetensors"))
            self.assertEqual(({name: t.shape for name, t in tensors.items()}, metadata), ({name: t.shape for name, t in wanted.items()}, expected))
            self.assertTrue(any(not torch.equal(t, wanted[name]) for name, t in tensors.items()))
            with open(os.path.join(out, "summary.json")) as file:
                self.assertEqual(json.load(file)["outcome"], "done")


if __name__ == "__main__":
    unittest.main()
