// Norms over rows and gated residual adds.
#pragma once
#include <cstdint>

#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

/// out = LN(x)·g + offset over the last axis, biased variance; g = gain, or 1 + gain (modulation). gain, offset [width] or null.
struct LayerNormJob {
  const float* x = nullptr;  ///< [rows, width]
  const float* gain = nullptr;
  const float* offset = nullptr;
  bool gainPlusOne = false;
  float eps = 0;
  void* out = nullptr;       ///< [rows, width], F32 or BF16
  DType outType = DType::F32;
  int64_t rows = 0;
  int32_t width = 0;
};
void layerNorm(const LayerNormJob& job, tile::Stream stream);

/// out = x / sqrt(mean(x²) + eps)·weight
struct RmsNormJob {
  const float* x = nullptr;
  const float* weight = nullptr;
  float eps = 0;
  void* out = nullptr;
  DType outType = DType::F32;
  int64_t rows = 0;
  int32_t width = 0;
};
void rmsNorm(const RmsNormJob& job, tile::Stream stream);

/// out = x / max(|x|₂, 1e-12)·sqrt(channels)·gamma, then SiLU when asked. x, out F32 or BF16 (same).
struct ChannelNormJob {
  const void* x = nullptr;  ///< [pixels, channels]
  const float* gamma = nullptr;
  bool silu = false;
  void* out = nullptr;
  DType type = DType::F32;
  int64_t pixels = 0;
  int32_t channels = 0;
};
void channelNorm(const ChannelNormJob& job, tile::Stream stream);

/// x += y·gate; gate [width] or null = 1. y F32 or BF16.
struct AddGatedJob {
  float* x = nullptr;  ///< [rows, width]
  const void* y = nullptr;
  DType yType = DType::F32;
  const float* gate = nullptr;
  int64_t rows = 0;
  int32_t width = 0;
};
void addGated(const AddGatedJob& job, tile::Stream stream);

}  // namespace vmoba::cuda
