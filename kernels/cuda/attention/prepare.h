// From projections to attention operands: RMS norm over the whole row, RoPE, the partition's permutation and the split into
// heads in one pass; the block means of k come out of the same pass.
#pragma once
#include "kernels/cuda/attention/plan_view.h"
#include "kernels/cuda/tile/common.h"

namespace vmoba::cuda {

/// One of q, k, v: row s of head h starts at source + s*rowStride + h*headDim (elements), raster order.
template <class T>
struct Projection {
  const T* source = nullptr;
  int64_t rowStride = 0;
  const float* norm = nullptr;        ///< [heads*headDim] RMS weight, or null: no norm
  const float* ropeCos = nullptr;     ///< [rows, headDim/2] raster order, or null: no rotation
  const float* ropeSin = nullptr;
  T* out = nullptr;                   ///< [heads, rows, paddedDim] permuted order; columns from headDim on are zero
  double* segmentSums = nullptr;      ///< [segments, heads*paddedDim] sums over each segment's rows, or null: not wanted
  uint32_t* norms = nullptr;          ///< [heads] raised to the bits of the largest squared norm of a row of `out`, to infinity's where nobody measures it; or null
};

template <class T>
struct PrepareJob {
  PlanView plan;                      ///< of the projections' rows
  int32_t heads = 0, headDim = 0, paddedDim = 0;
  float eps = 1e-6f;
  Projection<T> part[3];
  int32_t parts = 0;
  uint32_t* notFinite = nullptr;      ///< becomes non-zero where the source holds NaN or infinity
};

/// headDim even, at most paddedDim; source and rowStride even in elements. Fast for bf16 where headDim and rowStride are multiples of 8, everything
/// is aligned to 16 bytes and a row of out has at most 5120 channels; what is not goes through the kernel of f32, several times slower.
template <class T>
void prepare(tile::Stream stream, const PrepareJob<T>& job);

/// means[h, c, i] = mean over block c's rows, from `segmentSums`; f32 [heads, blocks, paddedDim].
void blockMeans(tile::Stream stream, const PlanView& plan, const double* segmentSums, int32_t heads, int32_t paddedDim, float* means);

}  // namespace vmoba::cuda
