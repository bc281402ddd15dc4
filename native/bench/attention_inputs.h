// Queries, keys and values to measure attention on.
#pragma once
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "native/base/dtype.h"
#include "native/base/json.h"

namespace vmoba {

/// Rows of [q | k | v], each [heads·headDim], in raster order and in `dtype`; attention rotates them by the tables.
struct AttentionInputs {
  Grid grid;
  int32_t heads = 0, headDim = 0;
  DType dtype = DType::F32;
  std::vector<std::byte> rows;
  std::vector<float> ropeCos, ropeSin;  ///< [tokens, headDim/2]
  std::string note;                     ///< where captured values come from

  int64_t dim() const { return int64_t{heads} * headDim; }
};

/// Independent normal values: no query prefers any block.
AttentionInputs randomInputs(const Grid& grid, int32_t heads, int32_t headDim, DType dtype);
/// Smooth random fields over space and time, keys alike queries.
AttentionInputs smoothInputs(const Grid& grid, int32_t heads, int32_t headDim, DType dtype);
/// q, k, v of a render of the model in options.model, halfway through its steps on options.captureGrid, taken before rotation and
/// resampled to `grid`; several of the model's heads side by side make one of `headDim`.
AttentionInputs capturedInputs(const Json& options, const Grid& grid, int32_t heads, int32_t headDim, DType dtype);

}  // namespace vmoba
