// Attention over prepared operands: one fused pass per query tile with online softmax, dense or over the visits of a packing.
#pragma once
#include <functional>

#include "kernels/cuda/attention/packing.h"
#include "kernels/cuda/tile/common.h"
#include "native/base/dtype.h"

namespace vmoba::cuda {

/// What shared rows got from each chunk: room for the lists of `heads` heads at a time.
template <class T>
struct Partials {
  int32_t heads = 0;
  T* out = nullptr;                  ///< [heads*chunks, tiles*kTileRows, D] softmax-weighted means
  float* logSumExp = nullptr;        ///< [heads*chunks, tiles*kTileRows] base-2 logarithm of the softmax's denominator
};

/// In which order attendHopper takes cells.
struct HopperTurns {
  static constexpr int lastCells = 512;
  uint32_t taken;            ///< so far, besides each thread block's first
  int32_t last[lastCells];   ///< the last cells of a launch, those with most visits first, so that no thread block has much before it at the end
};

/// q [heads, queries, D], k and v [heads, keys, D], D = paddedDim. out: row `raster` of head h at out + raster*outStride + h*headDim.
template <class T>
struct AttendJob {
  int32_t heads = 0, queries = 0, headDim = 0, paddedDim = 0;
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  int32_t keys = 0;
  const uint32_t* norms = nullptr;   ///< [2, heads] bits of the largest squared norms of rows of q and of k; null = unknown
  const Cell* cells = nullptr;       ///< as in Packing, with what follows; null = every row attends to all keys
  const int32_t* cellFirst = nullptr;
  const int32_t* order = nullptr;
  const int32_t* ends = nullptr;
  const int32_t* places = nullptr;
  int32_t chunks = 0;
  int32_t tileKeys = 0;              ///< PlanView::tileKeys, or kHopperKeys
  int32_t lastKeys = 0;              ///< PlanView::lastKeys; 0 = unknown
  Partials<T> partials;
  HopperTurns* turns = nullptr;      ///< [1] scratch
  const int32_t* scatter = nullptr;  ///< [queries] raster row of each position, or null
  T* out = nullptr;
  int64_t outStride = 0;
  bool accumulate = false;           ///< out += instead of out =
  float* logSumExp = nullptr;        ///< [heads, queries] base-2 logarithm of the softmax's denominator, or null
};

/// Rows of a list, and so of its partial results, including those that complete its last tile.
TILE_SHARED_CODE int64_t listRowsOf(int32_t queries) { return (int64_t{queries} + kTileRows - 1) / kTileRows * kTileRows; }

/// So many of `count` at a time, at most `most`, that the last part is hardly smaller than the others.
inline int32_t inEqualParts(int32_t count, int32_t most) {
  const int32_t parts = (count + most - 1) / most;
  return (count + parts - 1) / parts;
}

/// Widths operands may be padded to.
constexpr int paddedHeadDim(int headDim) { return headDim <= 32 ? 32 : headDim <= 64 ? 64 : 128; }

/// Called between the launches of a long call, which are kept short (desktop watchdogs; cancellation): may throw.
using BetweenLaunches = std::function<void()>;

/// bf16 by mma.sync m16n8k16 with f32 accumulation; paddedDim 32, 64 or 128.
void attendFlash(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between = {});
/// bf16 by wgmma, where kernels with warpgroups run (compute capability 9.0, compiled for sm_90a); paddedDim 64 or 128.
void attendHopper(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between = {});
/// f32 arithmetic throughout; f32 or bf16 operands.
template <class T>
void attendPlain(tile::Stream stream, const AttendJob<T>& job, const BetweenLaunches& between = {});

/// Outputs of the shared rows of `heads` heads from their partial results.
template <class T>
void mergePartials(tile::Stream stream, const AttendJob<T>& job, int32_t firstHead, int32_t heads);

/// Attention straight from rows of [q | k | v], each `dim` wide per head, logits scaled by `scale` plus an optional bias by distance.
template <class T>
struct RowAttention {
  int32_t heads = 0, tokens = 0, dim = 0;
  const T* q = nullptr;
  const T* k = nullptr;
  const T* v = nullptr;
  int64_t rowStride = 0, headStride = 0;        ///< elements, of q, k and v
  T* out = nullptr;
  int64_t outRowStride = 0, outHeadStride = 0;
  float scale = 1;
  const float* bias = nullptr;                  ///< [buckets, heads], or null
  const int32_t* bucketOfDistance = nullptr;    ///< [2*tokens-1], entry i for distance key - query = i - (tokens-1)
  const uint8_t* keyMask = nullptr;             ///< [tokens] 0 = hidden, or null
};
/// umT5's biased attention and the VAE's attention over a frame (heads = frames). f32 arithmetic.
template <class T>
void attendRows(tile::Stream stream, const RowAttention<T>& job, const BetweenLaunches& between = {});

/// groupMass[g, s] += mean over heads of query s's attention mass on the keys of group g.
template <class T>
struct WordMapJob {
  int32_t heads = 0, queries = 0, keys = 0, headDim = 0, paddedDim = 0, groups = 0;
  const T* q = nullptr;              ///< [heads, queries, paddedDim]
  const T* k = nullptr;              ///< [heads, keys, paddedDim]
  const float* logSumExp = nullptr;  ///< [heads, queries] of the same attention
  const int32_t* keyGroup = nullptr; ///< [keys], -1 = none
  float* groupMass = nullptr;        ///< [groups, queries]
};
template <class T>
void wordMaps(tile::Stream stream, const WordMapJob<T>& job);

}  // namespace vmoba::cuda
