"""The umT5 encoder in PyTorch, official parameter names: bias-free pre-norm blocks, a relative position table per layer."""
import math

import torch
import torch.nn.functional as F
from torch import nn


class Rms(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x):
        x = x.float()
        return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6) * self.weight


def position_buckets(length, buckets=32):
    """[length, length] of bucket numbers for key index - query index."""
    distance = torch.arange(length)[None] - torch.arange(length)[:, None]
    half, exact = buckets // 2, buckets // 4
    a = distance.abs()
    far = exact + (torch.log(a.clamp_min(1).float() / exact) / math.log(128 / exact) * (half - exact)).long()
    return (distance > 0).long() * half + torch.where(a < exact, a, far.clamp_max(half - 1))


class Attention(nn.Module):
    def __init__(self, dim, inner, heads):
        super().__init__()
        self.q, self.k, self.v = (nn.Linear(dim, inner, bias=False) for _ in range(3))
        self.o = nn.Linear(inner, dim, bias=False)
        self.heads = heads
        nn.init.normal_(self.q.weight, std=(dim * (inner // heads)) ** -0.5)  # the logits carry no 1/sqrt(d)
        for linear in (self.k, self.v):
            nn.init.normal_(linear.weight, std=dim ** -0.5)
        nn.init.normal_(self.o.weight, std=0.5 * inner ** -0.5)

    def forward(self, x, bias):
        b, n, _ = x.shape
        q, k, v = (f(x).view(b, n, self.heads, -1).transpose(1, 2) for f in (self.q, self.k, self.v))
        y = torch.softmax((q @ k.transpose(2, 3)).float() + bias, -1).to(v.dtype) @ v
        return self.o(y.transpose(1, 2).reshape(b, n, -1))


class FeedForward(nn.Module):
    def __init__(self, dim, hidden):
        super().__init__()
        self.gate = nn.Sequential(nn.Linear(dim, hidden, bias=False))
        self.fc1 = nn.Linear(dim, hidden, bias=False)
        self.fc2 = nn.Linear(hidden, dim, bias=False)
        nn.init.normal_(self.fc2.weight, std=0.5 * hidden ** -0.5)

    def forward(self, x):
        return self.fc2(self.fc1(x) * F.gelu(self.gate(x), approximate="tanh"))


class Positions(nn.Module):
    def __init__(self, buckets, heads):
        super().__init__()
        self.embedding = nn.Embedding(buckets, heads)
        nn.init.normal_(self.embedding.weight, std=0.1)


class Block(nn.Module):
    def __init__(self, dim, inner, hidden, heads, buckets):
        super().__init__()
        self.norm1, self.norm2 = Rms(dim), Rms(dim)
        self.attn = Attention(dim, inner, heads)
        self.ffn = FeedForward(dim, hidden)
        self.pos_embedding = Positions(buckets, heads)

    def forward(self, x, blocked, buckets):
        bias = self.pos_embedding.embedding(buckets).permute(2, 0, 1)[None].masked_fill(blocked, torch.finfo(torch.float32).min)
        x = x + self.attn(self.norm1(x), bias)
        return x + self.ffn(self.norm2(x))


class TextEncoder(nn.Module):
    def __init__(self, vocabulary, dim=128, inner=128, hidden=256, heads=4, layers=2, buckets=32):
        super().__init__()
        self.token_embedding = nn.Embedding(vocabulary, dim)
        self.blocks = nn.ModuleList(Block(dim, inner, hidden, heads, buckets) for _ in range(layers))
        self.norm = Rms(dim)
        self.buckets = buckets

    def forward(self, ids, mask):
        """ids, mask [B, n] -> [B, n, dim]; rows where the mask is 0 mean nothing."""
        x = self.token_embedding(ids)
        buckets = position_buckets(ids.shape[1], self.buckets).to(ids.device)
        blocked = (mask == 0)[:, None, None]
        for block in self.blocks:
            x = block(x, blocked, buckets)
        return self.norm(x)
