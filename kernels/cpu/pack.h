// The one pass over q, k and v before attention: RMS norm over the whole row, rotation, the partition's order, the packed formats
// of tile.h, and the sums behind the block means.
#pragma once
#include <cstdint>

#include "kernels/attention.h"
#include "native/base/dtype.h"

namespace vmoba::cpu {

/// Where rows come from and what is done to each.
struct RowSource {
  const void* base;
  DType dtype;
  int64_t stride;            ///< elements
  int32_t heads, headDim;
  const float* norm;         ///< [heads*headDim] RMS weight, or null
  float eps;
  const float* cosine;       ///< [headDim/2] of the row, or null
  const float* sine;

  int64_t dim() const { return int64_t{heads} * headDim; }
};

/// Rows are met in the partition's order, which no processor foresees.
void prefetchRow(const RowSource& source, int64_t index);

/// out[0..dim) = row `index` in f32: x·(1/sqrt(mean(x²) + eps))·norm, squares summed in double, then rotated (products unfused,
/// so that other backends can follow bit for bit). False when it holds NaN or infinity.
bool prepareRow(const RowSource& source, int64_t index, float* out);

/// False when norm weights (or null) hold NaN or infinity, which rounding could hide.
bool finiteWeights(const float* norm, int64_t count);

/// Rounds to the packed type and widens again: the values routing and the probe see.
void roundThrough(DType element, float* values, int64_t count);

/// `count` f32 values as packed elements, `depth - count` zeros behind.
void packRow(DType element, const float* values, int32_t count, int32_t depth, void* out);

/// One group: `keys` rows (of `lanes`) of packed elements [depth], `rowStride` elements apart -> [depth words][lanes].
void packKeyGroup(const void* rows, int64_t rowStride, int32_t keys, int32_t lanes, int32_t depthWords, int32_t step, void* out);

/// One group: `keys` f32 rows of `width` values -> [lanes/step][valueWidth] words; pad keys and channels are zero.
void packValueGroup(DType element, const float* rows, int64_t rowStride, int32_t keys, int32_t lanes, int32_t width, int32_t valueWidth, void* out);

/// sums[i] += row[i] in double.
void accumulate(const float* row, double* sums, int64_t count);

/// Packed query rows of one head, widened and transposed: out[i·lanes + j] = element i of row j; missing rows are zero.
void transposeQueries(DType element, const void* rows, int32_t count, int32_t lanes, int32_t depth, float* out);

/// The finished row, converted to `dtype`; with `add` on top of what is there.
void writeRow(const float* values, int32_t count, DType dtype, void* out, int64_t at, bool add);

}  // namespace vmoba::cpu
