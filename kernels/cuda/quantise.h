// Activations to fp8, for products with weights that are stored so.
#pragma once
#include <cstdint>

#include "kernels/cuda/tile/launch.h"
#include "native/base/dtype.h"

namespace vmoba::cuda {

/// out[i] = E4M3 nearest to x[i] / scale with scale = max|x| / 448 (1 where all is zero), so that x ≈ out·scale. x BF16. `scale`: two
/// floats, zeroed by the caller; the first becomes the scale.
void quantiseE4m3(const Bf16* x, uint8_t* out, float* scale, int64_t count, tile::Stream stream);

}  // namespace vmoba::cuda
