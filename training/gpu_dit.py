"""The transformer and text encoder as a GPU likes them: the mathematics of dit.py, text_encoder.py and attention.py, arranged so that a
whole training step can be compiled and replayed as one CUDA graph. Takes a Nano and its parameters as they are.

Easy to get wrong: nothing here may copy from the host, wait for the device or pick elements by a mask of unknown count, or the graph
cannot be captured. Tokens stay in raster order: blocks are told apart by number, so only ties could come out differently.
"""
import functools

import torch
import torch.nn.functional as F

from attention import lay
from dit import PARTITION_NAMES, rope_table, sinusoid
from text_encoder import position_buckets

BINS = 1024  # of the histogram that finds a selection's threshold; the last bin taken is taken whole


class Partition:
    """Blocks over a token grid: own [S, C] bool, mean [S, C] f32 (a column averages its block), block [S] (each token's)."""

    def __init__(self, grid, blocks, device):
        laid = lay(grid, blocks)
        self.block = laid.block[laid.inverse].to(device)
        self.own = self.block[:, None] == torch.arange(laid.count, device=device)
        self.mean = self.own.float() / laid.lengths.to(device)


class Plan:
    """What depends on the clip's size alone: rotations [S, depth / 2] and the three partitions."""

    def __init__(self, dit, grid, words, device):
        table = rope_table(grid, dit.blocks[0].self_attn.q.in_features // dit.heads, "cpu")
        self.cosine, self.sine = table.real.contiguous().to(device), table.imag.contiguous().to(device)
        self.grid, self.tau = grid, dit.policy["tau"]
        listed = [dit.policy["partitions"][name] for name in PARTITION_NAMES]
        self.partitions = [Partition(grid, tuple(blocks) if isinstance(blocks, list) else blocks, device) for blocks in listed]
        self.buckets = position_buckets(words).to(device)


@torch.no_grad()
def choose(q, k, partition, tau):
    """q, k [B, H, S, D] -> bool [B, H, S, C]: attention.threshold_selection for scope head_global without its sort. The threshold is
    rounded down to a multiple of 1 / BINS of the gates' range."""
    gate = (q.float() @ (k.transpose(2, 3).float() @ partition.mean)).flatten(2)
    mine = partition.own.flatten()
    low, high = torch.aminmax(gate, dim=-1, keepdim=True)
    spread = high - low
    weight = (gate - low) / torch.where(spread <= 1e-6, torch.ones_like(spread), spread)
    total = weight.sum(-1, keepdim=True)
    other = weight.masked_fill(mine, 0)
    need = ((tau - 1) * total + other.sum(-1, keepdim=True) + tau * 1e-6).clamp_min(0)  # tau * total - what the own blocks keep
    bins = (other * (BINS - 1)).long()
    kept = torch.zeros(*bins.shape[:2], BINS, device=q.device).scatter_add_(2, bins, other).flip(-1).cumsum(-1)
    least = (BINS - 1 - (kept < need).sum(-1, keepdim=True)).clamp_min(0)
    return ((bins >= least) | mine).unflatten(2, tuple(partition.own.shape))


def attend(q, k, v, partition, tau):
    """q already scaled; [B, H, S, D] each -> [B, H, S, D]."""
    scores = q @ k.transpose(2, 3)
    if partition.own.shape[1] > 1 and tau < 1:
        scores = scores.masked_fill(~choose(q, k, partition, tau).index_select(3, partition.block), float("-inf"))
    return torch.softmax(scores, -1) @ v


def linear(layer, x):
    return F.linear(x, layer.weight.to(x.dtype), layer.bias.to(x.dtype))


def rms(norm, x):
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * norm.weight


def split(x, heads):
    return x.unflatten(2, (heads, -1)).transpose(1, 2)


def turn(x, cosine, sine):
    """Rotates pairs of channels; x [B, H, S, D] f32."""
    a, b = x.unflatten(3, (-1, 2)).unbind(4)
    return torch.stack((a * cosine - b * sine, a * sine + b * cosine), 4).flatten(3)


def norm(x):
    return F.layer_norm(x, (x.shape[-1],), eps=1e-6)


def before(block, x, m, cosine, sine, half):
    """From the residual stream [B, S, D] f32 and modulations [B, 6, D] to q (scaled), k, v [B, H, S, d] in type `half`."""
    shift, scale = m[:, 0:1], m[:, 1:2]
    layer = block.self_attn
    a = (norm(x) * (1 + scale) + shift).to(half)
    q = turn(split(rms(layer.norm_q, linear(layer.q, a)), layer.heads), cosine, sine)
    k = turn(split(rms(layer.norm_k, linear(layer.k, a)), layer.heads), cosine, sine)
    v = split(linear(layer.v, a), layer.heads)
    return (q * q.shape[-1] ** -0.5).to(half).contiguous(), k.to(half).contiguous(), v.contiguous()


def after(block, x, seen, m, context):
    """The rest of a block: output projection, cross-attention, feed-forward."""
    half, layer = context.dtype, block.cross_attn
    x = x + m[:, 2:3] * linear(block.self_attn.o, seen.transpose(1, 2).flatten(2)).float()
    c = F.layer_norm(x, (x.shape[-1],), block.norm3.weight, block.norm3.bias, 1e-6).to(half)
    q = split(rms(layer.norm_q, linear(layer.q, c)), layer.heads)
    k = split(rms(layer.norm_k, linear(layer.k, context)), layer.heads).to(half)
    v = split(linear(layer.v, context), layer.heads)
    seen = torch.softmax((q * q.shape[-1] ** -0.5).to(half) @ k.transpose(2, 3), -1) @ v
    x = x + linear(layer.o, seen.transpose(1, 2).flatten(2)).float()
    f = (norm(x) * (1 + m[:, 4:5]) + m[:, 3:4]).to(half)
    return x + m[:, 5:6] * linear(block.ffn[2], F.gelu(linear(block.ffn[0], f), approximate="tanh")).float()


class Pieces:
    """The two halves of a block around its attention, compiled or not. Compiled with sizes left open, so that one compilation serves all
    sizes of clip."""

    def __init__(self, compiled=False, backend="inductor"):
        wrap = functools.partial(torch.compile, dynamic=True, backend=backend) if compiled else lambda f: f
        self.before, self.after = wrap(before), wrap(after)


def times(freq_dim, device):
    """Embeddings of all whole timesteps, [1000, freq_dim]."""
    return sinusoid(torch.arange(1000), freq_dim).to(device)


def forward(nano, plan, pieces, latent, times, ids, half=torch.bfloat16):
    """latent [B, C, T, H, W] f32, times [B, freq_dim] (rows of `times`), ids [B, words] (0 behind the end) -> velocity, f32."""
    dit, text = nano.dit, nano.text
    mask = (ids > 0).float()
    known = torch.arange(text.token_embedding.num_embeddings, device=ids.device)
    words = (ids[..., None] == known).float() @ text.token_embedding.weight  # a product: an embedding's backward pass may wait for the device
    blocked = (ids == 0)[:, None, None]
    for block in text.blocks:
        words = block(words, blocked, plan.buckets)
    context = F.pad(text.norm(words) * mask[..., None], (0, 0, 0, dit.text_len - ids.shape[1]))
    context = dit.text_embedding(context).to(half)
    e = dit.time_embedding(times)
    e6 = dit.time_projection(e).unflatten(1, (6, -1))
    x = dit.patchify(latent).clone()  # no view, as it is none in later blocks: views are compiled apart
    for i, block in enumerate(dit.blocks):
        m = block.modulation + e6
        q, k, v = pieces.before(block, x, m, plan.cosine, plan.sine, half)
        x = pieces.after(block, x, attend(q, k, v, plan.partitions[i % 3], plan.tau), m, context)
    return dit.unpatchify(dit.head(x, e), plan.grid)
