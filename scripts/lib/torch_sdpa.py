"""PyTorch's scaled_dot_product_attention at the shapes of `vmoba-native bench model`: the dense attention to compare with.

Per kind of kernel (flash, cuDNN): median milliseconds over 20 runs after warm-up, timed by device events, on random data.
"""

import statistics

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

HEADS, HEAD_DIM = 12, 128  # Wan 1.3B


def milliseconds(run, repeats=20):
    for _ in range(3):
        run()
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return statistics.median(times)


print(torch.__version__, torch.cuda.get_device_name())
for tokens in (7800, 32760, 75600):
    q, k, v = (torch.randn(1, HEADS, tokens, HEAD_DIM, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    for backend in (SDPBackend.FLASH_ATTENTION, SDPBackend.CUDNN_ATTENTION):
        try:
            with sdpa_kernel(backend):
                time = milliseconds(lambda: scaled_dot_product_attention(q, k, v))
            print(f"{tokens} tokens, {backend.name}: {time:.3f} ms, {4 * tokens**2 * HEADS * HEAD_DIM / time * 1e-9:.0f} TFLOP/s")
        except RuntimeError as error:
            print(f"{tokens} tokens, {backend.name}: not available ({str(error).splitlines()[0]})")
