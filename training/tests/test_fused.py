"""The fused CPU kernels against plain PyTorch, forwards and backwards: python3 training/tests/test_fused.py"""
import os
import sys
import unittest

import torch

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import fused  # noqa: E402
import fused_dit  # noqa: E402
from attention import Density, _plan, gates, lay, threshold_selection  # noqa: E402
from dit import Dit  # noqa: E402

POLICY = {"tau": 0.25, "scope": "head_global", "partitions": {"1d": 1, "2d": [2, 2], "3d": [2, 2, 2]}}


def off(a, b):
    return float((a.float() - b).norm() / b.norm())


@unittest.skipIf(fused.library() is None, "this CPU has no AVX512-BF16, or there is no compiler")
class Fused(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_norm_silu_stack(self):
        x, gamma = torch.randn(10, 32, 6, 5, requires_grad=True), (torch.rand(32, 1, 1, 1) + 0.5).requires_grad_()
        expected = fused.norm_silu_stack(x, gamma, 2)  # f32: plain PyTorch
        push = torch.randn_like(expected)
        wanted = torch.autograd.grad(expected, (x, gamma), push)
        got = fused.norm_silu_stack(x.bfloat16(), gamma, 2)
        self.assertLess(off(got, expected), 5e-3)
        for mine, theirs in zip(torch.autograd.grad(got, (x, gamma), push.bfloat16()), wanted):
            self.assertLess(off(mine, theirs), 1e-2)

    def grads(self, model, forward, push):
        model.zero_grad(set_to_none=True)
        out = forward()
        (out * push).sum().backward()
        return out.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}

    def test_transformer(self):
        for policy, grid, loose in ((None, (5, 8, 8), 1), (POLICY, (3, 6, 4), 8)):  # bf16 moves a few blocks in or out of a selection
            model = Dit(4, 64, 96, 2, 3, 32, 8, 32, policy=policy)
            with torch.no_grad():
                for p in model.parameters():
                    p.add_(0.05 * torch.randn_like(p))
            latent, time, text = torch.randn(2, 4, *grid), torch.tensor([100.0, 800.0]), torch.randn(2, 8, 32)
            push, counted = torch.randn(2, 4, *grid), (Density(), Density())
            expected, wanted = self.grads(model, lambda: model(latent, time, text, counted[0]), push)
            got, mine = self.grads(model, lambda: fused_dit.forward(model, latent, time, text, counted[1]), push)
            self.assertLess(off(got, expected), 0.005 * loose)
            self.assertEqual(sorted(mine), sorted(wanted))
            for name, gradient in wanted.items():
                self.assertLess(off(mine[name], gradient), 0.03 * loose, name)
            for name, density in counted[0].means().items():
                self.assertAlmostEqual(density, counted[1].means()[name], delta=0.01)

    def test_selection_is_exact(self):
        """The same blocks as the sorted selection, for the very same bf16 queries and keys."""
        grid, heads, depth = (5, 4, 4), 6, 32
        for partition in (1, (2, 2), (2, 2, 2)):
            order, _, _, own, mean, lengths = _plan(grid, partition, "cpu")
            q, k = (torch.randn(heads, own.shape[1], depth).bfloat16() for _ in range(2))
            expected = threshold_selection(gates(q, k, mean), own, 0.25)
            starts = torch.cat([torch.zeros(1, dtype=torch.long), lay(grid, partition).lengths.cumsum(0)]).int()
            allowed = torch.empty(heads, own.shape[0], own.shape[1], dtype=torch.uint8)
            fused.call("select_blocks", q, k, starts, allowed, heads, own.shape[1], depth, own.shape[0], 0.25)
            self.assertEqual(int((allowed.bool() != expected).sum()), 0)


if __name__ == "__main__":
    unittest.main()
