// What a sampler does between two evaluations of the model, on f32 latents.
#pragma once
#include <array>
#include <cstdint>

#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

struct Combination {
  std::array<const float*, 4> x{};
  std::array<double, 4> coefficient{};
  int32_t terms = 0;      ///< 1 to 4
  float* out = nullptr;   ///< may be one of x
  int64_t count = 0;
};
/// out[i] = Σ coefficient·x[i], added in order in double and rounded once.
void combine(const Combination& job, tile::Stream stream);

/// out[i, r] = offset[r] + Σ_c x[c, i]·factors[c, r]; x [channels, positions], out [positions, columns].
void projectChannels(const float* x, const float* factors, const float* offset, float* out, int64_t positions, int32_t channels, int32_t columns, tile::Stream stream);

/// Makes `found` non-zero where x holds NaN or infinity; zeroed by the caller.
void findNotFinite(const float* x, int64_t count, uint32_t* found, tile::Stream stream);

}  // namespace vmoba::cuda
