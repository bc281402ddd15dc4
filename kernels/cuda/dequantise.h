// Stored weight types to the type a product computes in. Block formats as GGUF files hold them (ggml's block_* layouts).
#pragma once
#include <cstdint>

#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

enum class Quantisation : int32_t {
  Q8_0,  ///< 32 values: f16 d, int8 q[32]; value d·q
  Q4_0,  ///< 32 values: f16 d, nibbles (low half first); value d·(q - 8)
  Q4_K,  ///< 256 values in 8 groups: f16 d, f16 dmin, 12 bytes of 6-bit scales and minima, nibbles; value d·scale·q - dmin·minimum
};
TILE_SHARED_CODE constexpr int64_t blockValues(Quantisation q) { return q == Quantisation::Q4_K ? 256 : 32; }
TILE_SHARED_CODE constexpr int64_t blockBytes(Quantisation q) { return q == Quantisation::Q8_0 ? 34 : q == Quantisation::Q4_0 ? 18 : 144; }

/// out[i] = x[i]·scale; x F32, F16, BF16 or F8E4M3; out F32 or BF16.
void dequantiseScaled(const void* x, DType xType, float scale, void* out, DType outType, int64_t count, tile::Stream stream);
/// `count` values, a multiple of blockValues; out F32 or BF16.
void dequantiseBlocks(const void* x, Quantisation quantisation, void* out, DType outType, int64_t count, tile::Stream stream);

}  // namespace vmoba::cuda
