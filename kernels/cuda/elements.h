// Element-wise work and layout changes.
#pragma once
#include <array>
#include <cstdint>

#include "kernels/cuda/functions.h"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

/// out[i] = function(x[i]); x F32, BF16 or F16, out F32 or BF16. With Function::None a conversion.
void mapElements(const void* x, DType xType, void* out, DType outType, Function function, int64_t count, tile::Stream stream);
/// out[i] = a[i] + b[i mod period], f32.
void addRepeated(const float* a, const float* b, float* out, int64_t count, int64_t period, tile::Stream stream);

/// Extents of a latent [C, T, H, W] and its patches.
struct PatchShape {
  int32_t channels = 0, frames = 0, height = 0, width = 0;
  int32_t patchT = 1, patchH = 1, patchW = 1;
};
/// latent f32 -> rows [t·h·w, C·pt·ph·pw], channel slowest, F32 or BF16.
void patchify(const float* latent, void* rows, DType type, const PatchShape& shape, tile::Stream stream);
/// rows f32 [t·h·w, pt·ph·pw·C], channel fastest -> latent f32.
void unpatchify(const float* rows, float* latent, const PatchShape& shape, tile::Stream stream);

/// Every pixel of [frames·height, width, channels] repeated 2×2. `elementSize` 2 or 4 bytes.
void upsample2x(const void* x, void* out, int elementSize, int64_t framesTimesHeight, int32_t width, int32_t channels, tile::Stream stream);
/// [T, pixels, 2C] -> [2T, pixels, C]: channels [0, C) become the even, [C, 2C) the odd frames.
void channelsToFrames(const void* x, void* out, int elementSize, int64_t frames, int64_t pixels, int32_t channels, tile::Stream stream);

/// words[0, count) = 0.
void zeroWords(tile::Stream stream, uint32_t* words, int64_t count);

}  // namespace vmoba::cuda
