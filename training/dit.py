"""The Wan diffusion transformer in PyTorch, official parameter names, with VMoBA self-attention: layer i uses partition i mod 3."""
import functools

import torch
import torch.nn.functional as F
from torch import nn

from attention import dense, vmoba
from text_encoder import Rms

PARTITION_NAMES = ("1d", "2d", "3d")


@functools.lru_cache(maxsize=64)
def rope_table(grid, head_dim, device):
    """Complex rotations [tokens, head_dim / 2], angles in float64."""
    pairs = head_dim // 2
    split = (pairs - 2 * (pairs // 3), pairs // 3, pairs // 3)
    positions = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) for n in grid), indexing="ij")
    angles = [p.reshape(-1, 1) * 10000 ** (-torch.arange(n, dtype=torch.float64) / n) for p, n in zip(positions, split)]
    angle = torch.cat(angles, 1)
    return torch.complex(angle.cos().float(), angle.sin().float()).to(device)


def sinusoid(timesteps, width):
    """[B] -> [B, width], cosines first."""
    n = width // 2
    angle = timesteps.double()[:, None] * 10000 ** (-torch.arange(n, dtype=torch.float64, device=timesteps.device) / n)
    return torch.cat([angle.cos(), angle.sin()], 1).float()


def layer_norm(x):
    return F.layer_norm(x.float(), x.shape[-1:], eps=1e-6)


class Attention(nn.Module):
    def __init__(self, dim, heads):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(dim, dim) for _ in range(4))
        self.norm_q, self.norm_k = Rms(dim), Rms(dim)
        self.heads = heads
        with torch.no_grad():
            self.o.weight.mul_(0.5)

    def split(self, x):
        return x.view(*x.shape[:2], self.heads, -1).transpose(1, 2)

    def rows(self, x, context):
        """q, k, v [B, heads, n, d], normed over the whole width, not yet rotated."""
        q, k = self.norm_q(self.q(x)), self.norm_k(self.k(context))
        return self.split(q), self.split(k), self.split(self.v(context))

    def join(self, x):
        return self.o(x.transpose(1, 2).reshape(x.shape[0], x.shape[2], -1))


def rotate(x, table):
    b, h, n, d = x.shape
    return torch.view_as_real(torch.view_as_complex(x.float().reshape(b, h, n, d // 2, 2)) * table).flatten(3)


class Block(nn.Module):
    def __init__(self, dim, hidden, heads):
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 6, dim))
        with torch.no_grad():
            self.modulation[:, (2, 5)] = 1.0
        self.self_attn, self.cross_attn = Attention(dim, heads), Attention(dim, heads)
        self.norm3 = nn.LayerNorm(dim, eps=1e-6)
        self.ffn = nn.Sequential(nn.Linear(dim, hidden), nn.GELU("tanh"), nn.Linear(hidden, dim))
        with torch.no_grad():
            self.ffn[2].weight.mul_(0.5)

    def forward(self, x, e6, context, table, attend):
        m = (self.modulation + e6).unsqueeze(2).unbind(1)  # six of [B, 1, dim]
        a = layer_norm(x) * (1 + m[1]) + m[0]
        q, k, v = self.self_attn.rows(a, a)
        x = x + m[2] * self.self_attn.join(attend(rotate(q, table).to(v.dtype), rotate(k, table).to(v.dtype), v)).float()
        q, k, v = self.cross_attn.rows(self.norm3(x), context)
        x = x + self.cross_attn.join(dense(q.to(v.dtype), k.to(v.dtype), v)).float()
        return x + m[5] * self.ffn(layer_norm(x) * (1 + m[4]) + m[3]).float()


class Head(nn.Module):
    def __init__(self, dim, outputs):
        super().__init__()
        self.modulation = nn.Parameter(torch.zeros(1, 2, dim))
        self.head = nn.Linear(dim, outputs)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, x, e):
        m = (self.modulation + e[:, None]).unsqueeze(2).unbind(1)
        return self.head(layer_norm(x) * (1 + m[1]) + m[0])


class Dit(nn.Module):
    """`policy`: {"tau", "scope", "partitions": {"1d": frames, "2d": [h, w], "3d": [t, h, w]}} or None for dense attention."""

    def __init__(self, channels=12, dim=192, hidden=512, heads=6, layers=6, text_dim=128, text_len=32, freq_dim=128, patch=(1, 2, 2), policy=None):
        super().__init__()
        self.patch_embedding = nn.Conv3d(channels, dim, patch, patch)
        self.text_embedding = nn.Sequential(nn.Linear(text_dim, dim), nn.GELU("tanh"), nn.Linear(dim, dim))
        self.time_embedding = nn.Sequential(nn.Linear(freq_dim, dim), nn.SiLU(), nn.Linear(dim, dim))
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(dim, 6 * dim))
        self.blocks = nn.ModuleList(Block(dim, hidden, heads) for _ in range(layers))
        volume = patch[0] * patch[1] * patch[2]
        self.head = Head(dim, channels * volume)
        nn.init.normal_(self.time_projection[1].weight, std=0.02)
        nn.init.zeros_(self.time_projection[1].bias)
        self.channels, self.heads, self.text_len, self.freq_dim, self.patch, self.policy = channels, heads, text_len, freq_dim, patch, policy

    def patchify(self, x):
        b, c, t, h, w = x.shape
        pt, ph, pw = self.patch
        x = x.view(b, c, t // pt, pt, h // ph, ph, w // pw, pw).permute(0, 2, 4, 6, 1, 3, 5, 7)
        return F.linear(x.reshape(b, -1, c * pt * ph * pw), self.patch_embedding.weight.flatten(1), self.patch_embedding.bias)

    def unpatchify(self, x, grid):
        b, (t, h, w), (pt, ph, pw) = x.shape[0], grid, self.patch
        x = x.view(b, t, h, w, pt, ph, pw, self.channels).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return x.reshape(b, self.channels, t * pt, h * ph, w * pw)

    def forward(self, latent, timesteps, text, density=None, trace=None):
        """latent [B, C, T, H, W], timesteps [B] in 0..1000, text [B, text_len, text_dim] (zero rows behind the prompt) -> velocity."""
        grid = tuple(n // p for n, p in zip(latent.shape[2:], self.patch))
        e = self.time_embedding(sinusoid(timesteps, self.freq_dim)).float()
        e6 = self.time_projection(e).float().unflatten(1, (6, -1))
        context = self.text_embedding(text)
        x = self.patchify(latent).float()
        table = rope_table(grid, x.shape[-1] // self.heads, x.device)
        for i, block in enumerate(self.blocks):
            attend = dense
            if self.policy:
                name = PARTITION_NAMES[i % 3]
                blocks = self.policy["partitions"][name]
                blocks = tuple(blocks) if isinstance(blocks, list) else blocks
                attend = functools.partial(vmoba, grid=grid, partition=blocks, tau=self.policy["tau"], scope=self.policy["scope"], density=density, name=name)
            x = block(x, e6, context, table, attend)
            if trace is not None:
                trace.append(x)
        return self.unpatchify(self.head(x, e).float(), grid)
