"""The Wan video VAE in PyTorch: official parameter names, causal 3-D convolutions, 4x8x8 compression. Widths are free per stage.

Tensors are [B, C, T, H, W] outside. Inside, frames lie time-major in the batch axis, [T*B, C, H, W] in channels-last order: a causal
3x3x3 convolution is then one 2-D convolution over three frames stacked along channels, about three times as fast on a CPU as conv3d,
and a shift in time is a plain slice.
"""
import torch
import torch.nn.functional as F
from torch import nn

from fused import norm_silu_stack, stack

TEMPORAL = (False, True, True)  # which of the encoder's three downsamplers also halve time


class Frames:
    """Frames in the batch axis and how many clips they belong to."""

    def __init__(self, x, clips):
        self.x, self.clips = x, clips

    def with_x(self, x):
        return Frames(x, self.clips)


class CausalConv(nn.Module):
    """3x3x3 (or 3x1x1) convolution that sees two frames back and none ahead; zeros stand before the clip. The weight lies in memory as
    [out, h, w, t, in], so that stacking (t, in) into one channel axis is a view."""

    def __init__(self, inputs, outputs, side=3):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, side, side, 3, inputs).permute(0, 4, 3, 1, 2))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=(2 / (inputs * 3 * side * side)) ** 0.5 * 0.8)
        self.side = side

    def stacked(self, x):
        """The convolution of frames already stacked with the two before them."""
        outputs, inputs = self.weight.shape[:2]
        flat = self.weight.to(x.dtype).permute(0, 2, 1, 3, 4).reshape(outputs, 3 * inputs, self.side, self.side)
        return F.conv2d(x, flat, self.bias.to(x.dtype), padding=self.side // 2)

    def forward(self, x, clips):
        return self.stacked(stack(x, clips))


class Conv(nn.Conv2d):
    """2-D convolution in its input's type."""

    def forward(self, x):
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype), self.stride, self.padding)


class PointConv(nn.Module):
    """1x1x1 convolution."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(outputs, inputs, 1, 1, 1))
        self.bias = nn.Parameter(torch.zeros(outputs))
        nn.init.normal_(self.weight, std=inputs ** -0.5)

    def forward(self, x):
        return F.conv2d(x, self.weight[..., 0].to(x.dtype), self.bias.to(x.dtype))


class ChannelNorm(nn.Module):
    """x / |x| * sqrt(C) * gamma over channels at each position."""

    def __init__(self, width, dims=3):
        super().__init__()
        self.gamma = nn.Parameter(torch.ones(width, *[1] * dims))

    def forward(self, x):
        scale = x.shape[1] ** 0.5 / x.float().square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
        return x * scale.to(x.dtype) * self.gamma.view(1, -1, 1, 1).to(x.dtype)


class ResidualBlock(nn.Module):
    def __init__(self, inputs, outputs):
        super().__init__()
        self.residual = nn.ModuleDict({"0": ChannelNorm(inputs), "2": CausalConv(inputs, outputs), "3": ChannelNorm(outputs), "6": CausalConv(outputs, outputs)})
        with torch.no_grad():
            self.residual["6"].weight.mul_(0.3)
        if inputs != outputs:
            self.shortcut = PointConv(inputs, outputs)

    def forward(self, frames):
        r, x, clips = self.residual, frames.x, frames.clips
        y = r["6"].stacked(norm_silu_stack(r["2"].stacked(norm_silu_stack(x, r["0"].gamma, clips)), r["3"].gamma, clips))
        return frames.with_x(y + (self.shortcut(x) if hasattr(self, "shortcut") else x))


class FrameAttention(nn.Module):
    """Single-head attention over the positions of each frame."""

    def __init__(self, width):
        super().__init__()
        self.norm = ChannelNorm(width, 2)
        self.to_qkv = Conv(width, 3 * width, 1)
        self.proj = Conv(width, width, 1)
        with torch.no_grad():
            self.proj.weight.mul_(0.3)

    def forward(self, frames):
        x = frames.x
        n, c, h, w = x.shape
        q, k, v = self.to_qkv(self.norm(x)).reshape(n, 3 * c, h * w).transpose(1, 2).chunk(3, 2)
        y = torch.softmax(q @ k.transpose(1, 2) * c ** -0.5, -1) @ v
        return frames.with_x(x + self.proj(y.transpose(1, 2).reshape(n, c, h, w)))


class Downsampler(nn.Module):
    def __init__(self, width, temporal):
        super().__init__()
        self.resample = nn.ModuleDict({"1": Conv(width, width, 3, 2)})
        if temporal:
            self.time_conv = CausalConv(width, width, 1)

    def forward(self, frames):
        x, clips = self.resample["1"](F.pad(frames.x, (0, 1, 0, 1))), frames.clips
        if hasattr(self, "time_conv"):  # y[0] = x[0]; y[j] = conv(x[2j-2], x[2j-1], x[2j])
            n, conv = x.shape[0], self.time_conv
            if n > clips:
                t = x.unflatten(0, (n // clips, clips))
                x = torch.cat([x[:clips], conv.stacked(torch.cat([t[0:-2:2].flatten(0, 1), t[1:-1:2].flatten(0, 1), t[2::2].flatten(0, 1)], 1))])
        return frames.with_x(x)


class Upsampler(nn.Module):
    def __init__(self, width, temporal):
        super().__init__()
        self.resample = nn.ModuleDict({"1": Conv(width, width // 2, 3, padding=1)})
        if temporal:
            self.time_conv = CausalConv(width, 2 * width, 1)

    def forward(self, frames):
        x, clips = frames.x, frames.clips
        if hasattr(self, "time_conv") and x.shape[0] > clips:  # the first frame stays single and is no context for the second
            rest = self.time_conv(x[clips:], clips)
            n, c = rest.shape[0] // clips, x.shape[1]
            even, odd = rest[:, :c].unflatten(0, (n, clips)), rest[:, c:].unflatten(0, (n, clips))
            x = torch.cat([x[:clips], torch.stack([even, odd], 1).flatten(0, 2)])
        x = F.interpolate(x.contiguous(memory_format=torch.channels_last), scale_factor=2.0, mode="nearest")
        return frames.with_x(self.resample["1"](x))


def _head(width, outputs):
    return nn.ModuleDict({"0": ChannelNorm(width), "2": CausalConv(width, outputs)})


def _middle(width):
    return nn.Sequential(ResidualBlock(width, width), FrameAttention(width), ResidualBlock(width, width))


class Encoder(nn.Module):
    def __init__(self, widths, latent, blocks):
        super().__init__()
        self.conv1 = CausalConv(3, widths[0])
        layers, width = [], widths[0]
        for i, outputs in enumerate(widths):
            for _ in range(blocks):
                layers.append(ResidualBlock(width, outputs))
                width = outputs
            if i < len(widths) - 1:
                layers.append(Downsampler(width, TEMPORAL[i]))
        self.downsamples = nn.Sequential(*layers)
        self.middle = _middle(width)
        self.head = _head(width, 2 * latent)

    def forward(self, frames):
        frames = self.middle(self.downsamples(frames.with_x(self.conv1(frames.x, frames.clips))))
        return frames.with_x(self.head["2"].stacked(norm_silu_stack(frames.x, self.head["0"].gamma, frames.clips)))


class Decoder(nn.Module):
    def __init__(self, widths, latent, blocks):
        super().__init__()
        width = widths[-1]
        self.conv1 = CausalConv(latent, width)
        self.middle = _middle(width)
        layers = []
        for i, outputs in enumerate(reversed(widths)):
            for _ in range(blocks + 1):
                layers.append(ResidualBlock(width, outputs))
                width = outputs
            if i < len(widths) - 1:
                layers.append(Upsampler(width, TEMPORAL[::-1][i]))
                width //= 2
        self.upsamples = nn.Sequential(*layers)
        self.head = _head(width, 3)

    def forward(self, frames):
        frames = self.upsamples(self.middle(frames.with_x(self.conv1(frames.x, frames.clips))))
        return frames.with_x(self.head["2"].stacked(norm_silu_stack(frames.x, self.head["0"].gamma, frames.clips)))


class Vae(nn.Module):
    """`widths` per stage from full to 1/8 size, `latent` channels, `blocks` residual blocks per stage (the decoder has one more)."""

    def __init__(self, widths=(8, 24, 48, 64), latent=12, blocks=1):
        super().__init__()
        self.encoder = Encoder(widths, latent, blocks)
        self.decoder = Decoder(widths, latent, blocks)
        self.conv1 = PointConv(2 * latent, 2 * latent)
        self.conv2 = PointConv(latent, latent)

        self._smooth_start()

    @torch.no_grad()
    def _smooth_start(self):
        """Starts as a blurring autoencoder: downsamplers average, upsamplers interpolate, residual branches add nothing yet. Colours then
        survive from the first step, and training only has to learn edges."""
        def mix(outputs, inputs):
            return nn.init.orthogonal_(torch.empty(outputs, inputs))

        for module in self.modules():
            if isinstance(module, ResidualBlock):
                module.residual["6"].weight.mul_(0.1)
                if hasattr(module, "shortcut"):
                    module.shortcut.weight.copy_(mix(*module.shortcut.weight.shape[:2])[..., None, None, None])
            elif isinstance(module, Downsampler):
                conv = module.resample["1"]
                conv.weight.mul_(0.5)
                conv.weight[:, :, :2, :2] += mix(*conv.weight.shape[:2])[..., None, None] / 4
                if hasattr(module, "time_conv"):
                    weight = module.time_conv.weight
                    weight.mul_(0.3)
                    weight[..., 1:, 0, 0] += torch.eye(len(weight))[..., None] / 2
            elif isinstance(module, Upsampler):
                conv, tent = module.resample["1"], torch.tensor([1.0, 2, 1])
                conv.weight.mul_(0.2)
                conv.weight += mix(*conv.weight.shape[:2])[..., None, None] * (tent[:, None] * tent / 16)
                if hasattr(module, "time_conv"):
                    weight = module.time_conv.weight
                    weight.mul_(0.2)
                    weight[..., 2, 0, 0] += torch.eye(weight.shape[1]).repeat(2, 1)
        for conv in (self.encoder.conv1, self.encoder.head["2"], self.decoder.conv1, self.decoder.head["2"]):
            conv.weight.mul_(0.3)
            conv.weight[:, :, 2, 1, 1] += mix(*conv.weight.shape[:2])
        for point in (self.conv1, self.conv2):
            point.weight.copy_(torch.eye(len(point.weight))[..., None, None, None])

    @staticmethod
    def _frames(x):
        b, c, t, h, w = x.shape
        return Frames(x.permute(2, 0, 1, 3, 4).reshape(t * b, c, h, w).contiguous(memory_format=torch.channels_last), b)

    @staticmethod
    def _clips(x, clips):
        return x.unflatten(0, (x.shape[0] // clips, clips)).permute(1, 2, 0, 3, 4)

    def moments(self, video):
        """[B, 3, 1+4k, H, W] in [-1, 1], f32 or bf16 -> mean and log variance, each [B, latent, 1+k, H/8, W/8], not normalised."""
        frames = self.encoder(self._frames(video))
        return self._clips(self.conv1(frames.x), frames.clips).chunk(2, 1)

    def decode(self, z):
        """Not-normalised latent -> video, unclamped."""
        frames = self._frames(z)
        frames = self.decoder(frames.with_x(self.conv2(frames.x)))
        return self._clips(frames.x, frames.clips)
