// The inner kernel of all attention: some query rows against one run of keys, with the online softmax's state kept per row.
// One implementation per instruction set (tile-inl.h; tile_amx.cpp), chosen at run time.
//
// Packed formats, in "words" of 32 bits: one f32, or two neighbouring bf16. `lanes` keys form a group.
//   queries  [rows][depth]                           depth = headDim rounded up to whole words
//   keys     [groups][depth words][lanes]            word i of key j of a group: a vector holds one word of `lanes` keys
//   values   [groups][lanes / step][valueWidth]      word of `step` consecutive keys for each channel
// Every row's arithmetic depends on its own query and its visited keys alone, never on which rows share a call: any
// grouping of rows and any number of threads give the same bits.
#pragma once
#include <cstdint>
#include <span>

#include "native/base/dtype.h"

namespace vmoba::cpu {

/// The state of `rows` query rows: unnormalised sums, the exponent they are scaled by, and the softmax denominators.
struct TileState {
  float* sums;          ///< [rows, valueWidth]
  float* exponent;      ///< [rows] base-2 logit the row's weights are relative to; -inf before the first visit
  float* limit;         ///< [rows] raw logit above which the row must be rescaled
  float* denominator;   ///< [rows, lanes] partial sums
};

/// A tile of query rows.
struct TileJob {
  const void* queries;
  int32_t depth;        ///< elements per query row
  int32_t valueWidth;   ///< elements per value row, a multiple of lanes
  float logitScale;     ///< log2(e)/sqrt(headDim)
  void* scratch;        ///< scratchBytes of the kernel, on 64 bytes
  TileState state;
};

/// Rows `rows[0..rowCount)` of a tile against `keys` consecutive keys beginning at a group; neither is empty.
struct TileVisit {
  const uint16_t* rows;
  int32_t rowCount;
  const void* keyGroups;
  const void* valueGroups;
  int32_t keys;
};

/// gate[c·stride + j] = means[c]·query j. F32 kernels: one accumulator each, fused, channels ascending, so that other backends can follow
/// bit for bit; BF16 kernels: as exact, in an order of their own.
struct GateJob {
  const void* queries;  ///< packed
  int32_t rows;
  const float* means;   ///< [blocks][depth]
  int32_t blocks, depth;
  float* gate;          ///< what lies behind row `rows`, up to a multiple of lanes, is overwritten
  int64_t stride;
  void* scratch;        ///< gateScratchBytes of the kernel, on 64 bytes
};

struct TileKernel {
  const char* name;
  DType element;        ///< packed type: F32 or BF16
  int32_t lanes;
  int32_t step;         ///< elements per word: 1 (F32) or 2 (BF16)
  int32_t sumBytes;     ///< of a tile: what its sums may take of the second-level cache
  /// Of one thread, for keys of this depth and values of this width.
  int64_t (*scratchBytes)(int32_t depth, int32_t valueWidth);
  /// In order; the more visits in one call, the better a kernel can overlap their steps.
  void (*visit)(const TileJob& job, std::span<const TileVisit> visits);
  /// Divides rows [0, rowCount) by their denominators. False when a denominator is not a positive finite number.
  bool (*finish)(const TileState& state, int32_t rowCount, int32_t valueWidth);
  int64_t (*gateScratchBytes)(int32_t depth, int32_t blocks);
  void (*gate)(const GateJob& job);
};

/// Keys a row group takes through the softmax before their values are added.
constexpr int32_t kMostChunkKeys = 512, kRowGroup = 6;

/// Kernels this processor can run for `dtype` inputs, best first. BF16 inputs run on F32 kernels where there is no bf16 unit.
std::span<const TileKernel* const> tileKernels(DType dtype);
/// The best one, or the one named; Error{Unsupported} when this processor does not have it.
const TileKernel& chooseTileKernel(DType dtype, const char* name);

}  // namespace vmoba::cpu
