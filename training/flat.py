"""Muon and AdamW (muon.py) and the moving average over parameters that lie in one vector, so that a step is a few large kernels that a
CUDA graph can hold. Rates and the average's weight are tensors, filled before each step."""
import math

import torch


def orthogonalise(g, steps=5):
    """muon.orthogonalise for a stack [n, rows, columns]."""
    tall = g.shape[1] > g.shape[2]
    x = g.transpose(1, 2) if tall else g
    x = (x / (x.flatten(1).norm(dim=1)[:, None, None] + 1e-7)).bfloat16()
    for _ in range(steps):
        a = x @ x.transpose(1, 2)
        x = torch.baddbmm(x, torch.baddbmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.transpose(1, 2) if tall else x).to(g.dtype)


class Flat:
    """Takes a module's parameters over: each becomes a view of `values`. `hidden(name, parameter)` says which ones Muon trains.

    `rate`, `hidden_rate` and `forget` (1 - the average's decay) are tensors of no axes."""

    def __init__(self, module, hidden, momentum=0.95, hidden_decay=0.01, betas=(0.9, 0.98)):
        named = dict(module.named_parameters())
        matrix = lambda name: named[name].dim() == 2 and hidden(name, named[name])
        names = sorted(filter(matrix, named), key=lambda name: tuple(named[name].shape))
        shapes = [tuple(named[name].shape) for name in names]
        names += [name for name in named if not matrix(name)]
        self.places, at = {}, 0
        for name in names:
            self.places[name] = at
            at += -(-named[name].numel() // 64) * 64  # aligned for wide loads
        device = next(iter(named.values())).device
        self.names, self.parameters = names, [named[name] for name in names]
        self.values, self.gradients, self.average, self.first = (torch.zeros(at, device=device) for _ in range(4))
        self.groups = []  # (start, end, stack's shape)
        for shape in sorted(set(shapes)):
            mine = [name for name, s in zip(names, shapes) if s == shape]
            start, count, length = self.places[mine[0]], len(mine), -(-shape[0] * shape[1] // 64) * 64
            if length == shape[0] * shape[1]:
                self.groups.append((start, start + count * length, (count, *shape)))
            else:
                self.groups += [(self.places[name], self.places[name] + shape[0] * shape[1], (1, *shape)) for name in mine]
        self.rest = self.places[names[len(shapes)]] if len(shapes) < len(names) else at
        self.second = torch.zeros(at - self.rest, device=device)
        with torch.no_grad():
            for name, p in zip(names, self.parameters):
                self.view(self.values, name, p.shape).copy_(p)
                p.data = self.view(self.values, name, p.shape)
        self.average.copy_(self.values)
        self.gradient_views = [self.view(self.gradients, name, p.shape) for name, p in zip(names, self.parameters)]
        self.rate, self.hidden_rate, self.forget, self.count, self.norm, self.skipped = (torch.zeros((), device=device) for _ in range(6))
        self.momentum, self.hidden_decay, self.betas = momentum, hidden_decay, betas

    def view(self, vector, name, shape):
        return vector[self.places[name]:self.places[name] + shape.numel()].view(shape)

    def averages(self):
        """The moving average by parameter name, on the CPU."""
        vector = self.average.detach().cpu()
        return {name: self.view(vector, name, p.shape).clone() for name, p in zip(self.names, self.parameters)}

    def reset(self):
        """Forgets what steps on made-up batches left behind."""
        for tensor in (self.first, self.second, self.count, self.skipped):
            tensor.zero_()

    @torch.no_grad()
    def step(self, gradients, longest=1.0):
        """One update from gradients in the order of `parameters`, their norm clipped to `longest`; a gradient that is not finite changes
        nothing but `skipped`."""
        if hasattr(torch, "_foreach_copy_"):
            torch._foreach_copy_(self.gradient_views, gradients)
        else:
            for view, gradient in zip(self.gradient_views, gradients):
                view.copy_(gradient)
        g = self.gradients
        norm = g.norm()
        fine = torch.isfinite(norm)
        self.norm.copy_(norm)
        self.skipped.add_((~fine).float())
        g.copy_(torch.where(fine, g * (longest / (norm + 1e-6)).clamp(max=1), torch.zeros_like(g)))
        h, r = slice(0, self.rest), slice(self.rest, None)
        self.first[h].lerp_(g[h], 1 - self.momentum)
        directions = g[h].lerp(self.first[h], self.momentum)
        self.values[h].mul_(1 - self.hidden_rate * self.hidden_decay)
        for start, end, shape in self.groups:
            update = orthogonalise(directions[start:end].view(shape)).flatten()
            self.values[start:end].sub_(update * (self.hidden_rate * (0.2 * max(shape[1:]) ** 0.5)))
        self.count.add_(1)
        b1, b2 = self.betas
        self.first[r].lerp_(g[r], 1 - b1)
        self.second.mul_(b2).addcmul_(g[r], g[r], value=1 - b2)
        full = lambda b: 1 - torch.exp(self.count * math.log(b))
        step = self.first[r] / full(b1) / ((self.second / full(b2)).sqrt() + 1e-8)
        self.values[r].sub_(step * self.rate)
        self.average.lerp_(self.values, self.forget)
