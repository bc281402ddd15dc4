// Row-wise float kernels of the CPU backend: norms, modulation, activations, gating, type conversion. Memory-bound code,
// written as plain loops the compiler vectorises, compiled for several instruction sets and chosen at load time.
// Every function works on rows [begin, end) on the calling thread; callers split rows over the pool. Sums keep 16
// fixed partial accumulators, so the bits do not depend on the instruction set's vector length.
#pragma once
#include <cstdint>

#include "native/base/dtype.h"

namespace vmoba::cpu {

/// out[r] = LN(x[r])·g + offset, biased variance; g = gain or 1 + gain. gain/offset may be null. `out` F32 or BF16.
void layerNormRows(const float* x, const float* gain, const float* offset, bool gainPlusOne, float eps, int64_t width, void* out,
                   DType outType, int64_t begin, int64_t end);
/// out[r] = x[r]/sqrt(mean(x²) + eps)·weight
void rmsNormRows(const float* x, const float* weight, float eps, int64_t width, void* out, DType outType, int64_t begin, int64_t end);
/// x[r] += y[r]·gate (gate null = 1)
void addGatedRows(float* x, const void* y, DType yType, const float* gate, int64_t width, int64_t begin, int64_t end);
/// VAE norm over channels: x/max(|x|₂, 1e-12)·sqrt(C)·gamma, optionally SiLU
void channelNormRows(const void* x, DType type, const float* gamma, bool silu, int64_t channels, void* out, int64_t begin, int64_t end);

void geluTanh(float* x, int64_t count);
void geluErf(float* x, int64_t count);
void silu(float* x, int64_t count);
void multiply(const void* a, const void* b, void* out, DType type, int64_t count);
void add(const void* a, const void* b, void* out, DType type, int64_t count);

/// F32/BF16/F16 in any direction.
void convert(const void* source, DType sourceType, void* destination, DType destinationType, int64_t count);

}  // namespace vmoba::cpu
