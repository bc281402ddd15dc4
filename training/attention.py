"""VMoBA block-sparse attention in PyTorch, batched, for training: each query attends to the key blocks it chose and to its own.

Selection is exact (ties go to the lower flat index, chunk-major) for the scopes that Nano uses; the mathematics is arXiv 2506.23858,
section 3. Blocks that do not divide an axis leave a short last block.
"""
import functools
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Blocks:
    """A partition laid over a token grid. `order[i]` = raster index of the i-th token, `block[i]` = its block."""
    order: torch.Tensor
    inverse: torch.Tensor
    block: torch.Tensor
    lengths: torch.Tensor

    @property
    def count(self):
        return len(self.lengths)


def lay(grid, partition) -> Blocks:
    """`partition`: frames (1-D, may be fractional), (h, w), or (t, h, w), in tokens."""
    t, h, w = grid
    if not isinstance(partition, (tuple, list)):
        order = torch.arange(t * h * w)
        block = order // max(1, int(partition * h * w))
    else:
        bt, bh, bw = (t, *partition) if len(partition) == 2 else partition
        tt, hh, ww = torch.meshgrid(torch.arange(t), torch.arange(h), torch.arange(w), indexing="ij")
        across = (-(-h // bh), -(-w // bw))
        key = (((tt // bt) * across[0] + hh // bh) * across[1] + ww // bw).reshape(-1)
        order = torch.sort(key, stable=True).indices  # raster order inside a block is (t, row, column)
        block = key[order]
    return Blocks(order, torch.argsort(order), block, torch.bincount(block))


def threshold_selection(gate, own, tau, scope="head_global"):
    """gate [..., C, S], own [C, S] -> bool [..., C, S]. Scope head_global: one budget per head over all (block, query) entries;
    query_head: one per query over its blocks.

    Everything in descending order up to and including the first entry at which the kept share reaches `tau`; own blocks always.
    """
    if scope == "query_head":
        return threshold_selection(gate.transpose(-1, -2)[..., None], own.T[..., None], tau)[..., 0].transpose(-1, -2)
    flat, mine = gate.flatten(-2).float(), own.flatten(-2)
    low, high = flat.min(-1, keepdim=True).values, flat.max(-1, keepdim=True).values
    spread = high - low
    weight = (flat - low) / torch.where(spread <= 1e-6, torch.ones_like(spread), spread)
    total = weight.sum(-1, keepdim=True) + 1e-6
    need = (tau - (weight * mine).sum(-1, keepdim=True) / total).clamp_min(0)
    ranked, index = torch.sort(weight.masked_fill(mine, 0), dim=-1, descending=True, stable=True)
    reached = ranked.cumsum(-1) / total >= need
    cut = torch.where(reached.any(-1, keepdim=True), reached.int().argmax(-1, keepdim=True), reached.shape[-1] - 1)
    kept = torch.arange(reached.shape[-1], device=gate.device) <= cut
    return (torch.zeros_like(kept).scatter(-1, index, kept) | mine).view(gate.shape)


@functools.lru_cache(maxsize=256)
def _plan(grid, partition, device):
    blocks = lay(grid, partition)
    own = torch.arange(blocks.count)[:, None] == blocks.block[None]
    mean = own.float() / blocks.lengths[:, None]
    return blocks.order.to(device), blocks.inverse.to(device), blocks.block.to(device), own.to(device), mean.to(device), blocks.lengths.to(device)


def gates(q, k, mean):
    """q, k [..., S, D] in block order -> [..., C, S], f32, no 1/sqrt(D)."""
    return (mean @ k.float()) @ q.float().transpose(-1, -2)


class Density:
    """Collects attended pairs / all pairs, by partition."""

    def __init__(self):
        self.sums = {}

    def add(self, name, value):
        total, count = self.sums.get(name, (0.0, 0))
        self.sums[name] = (total + value, count + 1)

    def means(self):
        return {name: total / count for name, (total, count) in self.sums.items()}


def vmoba(q, k, v, grid, partition, tau, scope="head_global", density=None, name=""):
    """q, k, v [B, H, S, D] in raster order -> [B, H, S, D]."""
    order, inverse, block, own, mean, lengths = _plan(grid, partition, q.device)
    if len(lengths) <= 1 or tau >= 1:
        return dense(q, k, v)
    q, k, v = (x.index_select(2, order) for x in (q, k, v))
    with torch.no_grad():
        chosen = threshold_selection(gates(q, k, mean), own, tau, scope)
        if density is not None:
            density.add(name, float((chosen * lengths[:, None]).sum((-1, -2)).double().mean() / q.shape[2] ** 2))
        allowed = chosen.index_select(2, block).transpose(2, 3)
    scores = (q @ k.transpose(2, 3)) * q.shape[-1] ** -0.5
    out = torch.softmax(scores.float().masked_fill(~allowed, float("-inf")), -1).to(v.dtype) @ v
    return out.index_select(2, inverse)


def dense(q, k, v):
    return torch.softmax((q @ k.transpose(-1, -2)).float() * q.shape[-1] ** -0.5, -1).to(v.dtype) @ v
