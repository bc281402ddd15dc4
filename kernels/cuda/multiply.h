// Element-wise products.
#pragma once
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

/// out = a ⊙ b over `count` elements, f32 or bf16 (T = float or Bf16). Device pointers, 16-byte aligned.
template <class T>
void multiply(tile::Stream stream, const T* a, const T* b, T* out, int64_t count);

}  // namespace vmoba::cuda
