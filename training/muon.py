"""AdamW for vectors, embeddings and outer layers; momentum with orthogonalised updates (Muon) for the hidden matrices and filters.
"""
import torch


@torch.no_grad()
def orthogonalise(g, steps=5):
    """A [rows, columns] matrix -> the nearest (semi-)orthogonal one, roughly: singular values end in 0.7..1.2. In bf16, which is enough
    for a direction; one matrix at a time, because batched products are slow on CPUs."""
    x = (g.t() if g.shape[0] > g.shape[1] else g)
    x = (x / (x.norm() + 1e-7)).bfloat16()
    for _ in range(steps):
        a = x @ x.t()
        x = torch.addmm(x, torch.addmm(a, a, a, beta=-4.7750, alpha=2.0315), x, beta=3.4445)
    return (x.t() if g.shape[0] > g.shape[1] else x).to(g.dtype)


def rows(p):
    """[rows, everything else] in the order of memory: which one does not matter to an orthogonalisation, and a view costs nothing."""
    axes = sorted(range(1, p.dim()), key=lambda axis: -p.stride(axis))
    return p.permute(0, *axes).flatten(1)


class Muon(torch.optim.Optimizer):
    """Parameters of two or more axes; trailing axes are flattened. An update has a root mean square of 0.2 * lr, as AdamW's has."""

    def __init__(self, params, lr, momentum=0.95, weight_decay=0.0):
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                buffer = self.state[p].setdefault("momentum", torch.zeros_like(p))
                buffer.lerp_(p.grad, 1 - group["momentum"])
                update = rows(p.grad.lerp(buffer, group["momentum"]))
                scale = 0.2 * max(update.shape) ** 0.5
                rows(p).mul_(1 - group["lr"] * group["weight_decay"]).add_(orthogonalise(update), alpha=-group["lr"] * scale)


def optimisers(module, hidden, muon_decay=0.01, adam_decay=0.0, betas=(0.9, 0.98)):
    """`hidden(name, parameter)` says which parameters Muon takes. Both take their rate from `set_rate`."""
    names = dict(module.named_parameters())
    matrices = [p for n, p in names.items() if p.dim() >= 2 and hidden(n, p)]
    rest = [p for n, p in names.items() if not (p.dim() >= 2 and hidden(n, p))]
    return [Muon(matrices, 1e-3, weight_decay=muon_decay), torch.optim.AdamW(rest, 1e-3, betas=betas, weight_decay=adam_decay)]


def set_rate(optimisers, rate, hidden=1.0):
    """`hidden`: how much faster than the rest Muon's matrices go."""
    for optimiser in optimisers:
        for group in optimiser.param_groups:
            group["lr"] = rate * hidden if isinstance(optimiser, Muon) else rate
