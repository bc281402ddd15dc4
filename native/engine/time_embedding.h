// The timestep embedding of the transformer, on the host in f32 whatever the backend's precision: its values scale and
// shift every layer, and it is one row, so neither speed nor memory is at stake.
#pragma once
#include <vector>

#include "native/weights/checkpoint.h"

namespace vmoba {

struct TimeEmbedding {
  std::vector<float> sinusoid;    ///< [freqDim] cosines then sines
  std::vector<float> embedding;   ///< [dim] e
  std::vector<float> projection;  ///< [6*dim] e6
};

/// timestep in 0..1000, may be fractional.
TimeEmbedding embedTimestep(const Checkpoint& checkpoint, double timestep);

}  // namespace vmoba
