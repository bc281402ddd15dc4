// Linear layers: out = function(x·Wᵀ + bias).
#pragma once
#include <cstdint>

#include "kernels/cuda/functions.h"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

struct LinearJob {
  DType type = DType::F32;          ///< of x and weight: F32 (strict) or BF16
  DType outType = DType::F32;       ///< F32, or BF16 when type is
  const void* x = nullptr;          ///< [m, k]
  const void* weight = nullptr;     ///< [n, k]
  const float* bias = nullptr;      ///< [n] or null
  void* out = nullptr;              ///< [m, n]
  int64_t m = 0;
  int32_t n = 0, k = 0;
  Function function = Function::None;
};
void linear(const LinearJob& job, tile::Stream stream);

}  // namespace vmoba::cuda
