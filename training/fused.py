"""norm_silu_stack: what stands before every causal 3x3x3 convolution, in one pass over memory where the CPU can (fused.cpp), else in PyTorch."""
import ctypes
import functools
import os
import subprocess
import tempfile

import torch
import torch.nn.functional as F

HERE = os.path.dirname(os.path.abspath(__file__))
SOURCES = [os.path.join(HERE, name) for name in ("fused.cpp", "fused_dit.cpp")]


@functools.lru_cache(maxsize=1)
def library():
    """The compiled kernels, or None on a CPU without AVX512-BF16 or a machine without a compiler."""
    try:
        with open("/proc/cpuinfo") as file:
            if "avx512_bf16" not in file.read():
                return None
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "fused.so")
            subprocess.run(["g++", "-O3", "-march=native", "-shared", "-fPIC", *SOURCES, "-o", path], check=True)
            return ctypes.CDLL(path)
    except (OSError, subprocess.CalledProcessError):
        return None


def stack(x, clips):
    """[T*clips, C, H, W] time-major -> [T*clips, 3C, H, W]: each frame behind the two before it, zeros before the clip."""
    n = x.shape[0]
    padded = torch.cat([x.new_zeros(2 * clips, *x.shape[1:]), x])
    return torch.cat([padded[:n], padded[clips:clips + n], x], 1)


def call(name, *arguments):
    """A kernel by name: tensors go as pointers (None as null), ints as long, floats as float."""
    kinds = {type(None): lambda _: ctypes.c_void_p(None), int: ctypes.c_long, float: ctypes.c_float}
    getattr(library(), name)(*(kinds[type(a)](a) if type(a) in kinds else ctypes.c_void_p(a.data_ptr()) for a in arguments))


class _NormSiluStack(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, gamma, clips):
        x, (n, c, h, w) = x.contiguous(memory_format=torch.channels_last), x.shape
        out = torch.empty(n, 3 * c, h, w, dtype=x.dtype, memory_format=torch.channels_last)
        ctx.save_for_backward(x, gamma)
        ctx.clips = clips
        call("stack_forward", x, gamma, out, clips, n, h * w, c)
        return out

    @staticmethod
    def backward(ctx, gradient):
        x, gamma = ctx.saved_tensors
        gradient = gradient.contiguous(memory_format=torch.channels_last)
        d_x, d_gamma = torch.empty_like(x), torch.zeros_like(gamma)
        n, c, h, w = x.shape
        call("stack_backward", x, gamma, gradient, d_x, d_gamma, ctx.clips, n, h * w, c)
        return d_x, d_gamma, None


def norm_silu_stack(x, gamma, clips):
    """stack(silu(x / |x| * sqrt(C) * gamma)) over channels; gamma [C, 1, 1, 1]."""
    c = x.shape[1]
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and c % 16 == 0 and c <= 1024 and library():
        return _NormSiluStack.apply(x, gamma.flatten(), clips)
    scale = c ** 0.5 / x.float().square().sum(1, keepdim=True).sqrt().clamp_min(1e-12)
    return stack(F.silu(x * scale.to(x.dtype) * gamma.view(1, -1, 1, 1).to(x.dtype)), clips)
