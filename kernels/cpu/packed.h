// Packed q, k, v of one call (tile.h states the formats) and the tile buffers each thread works in.
#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/cpu/arena.h"
#include "kernels/cpu/tile.h"

namespace vmoba::cpu {

struct PackedShape {
  int32_t heads, headDim, valueDim;   ///< valueDim >= headDim: further channels hold key groups (cross-attention maps)
  int32_t lanes, step;
  DType element;

  int32_t depth() const { return (headDim + step - 1) / step * step; }
  int32_t valueWidth() const { return (valueDim + lanes - 1) / lanes * lanes; }
  int64_t elementSize() const { return static_cast<int64_t>(elementBytes(element)); }
  int64_t queryBytes(int64_t rows) const { return rows * depth() * elementSize(); }
  int64_t keyBytes(int64_t groups) const { return groups * lanes * depth() * elementSize(); }
  int64_t valueBytes(int64_t groups) const { return groups * lanes * valueWidth() * elementSize(); }
};

/// Rows of a tile: its sums stay in the second-level cache together with a chunk of keys and values.
inline int32_t tileRowsFor(const TileKernel& kernel, const PackedShape& shape) {
  const int64_t rows = kernel.sumBytes / (int64_t{shape.valueWidth()} * 4) / kRowGroup * kRowGroup;
  return static_cast<int32_t>(std::clamp<int64_t>(rows, 8 * kRowGroup, 384 * kRowGroup));
}

struct TileBuffers {
  TileState state{};
  std::byte* scratch = nullptr;
  uint16_t* rows = nullptr;      ///< of all visits of a call
  TileVisit* visits = nullptr;

  static constexpr int32_t kMostVisits = 128, kTilesOfRows = 16;

  TileBuffers(Arena& arena, const TileKernel& kernel, const PackedShape& shape, int32_t tileRows)
      : state{arena.take<float>(int64_t{tileRows} * shape.valueWidth()), arena.take<float>(tileRows), arena.take<float>(tileRows),
              arena.take<float>(int64_t{tileRows} * shape.lanes)},
        scratch(arena.take<std::byte>(kernel.scratchBytes(shape.depth(), shape.valueWidth()))),
        rows(arena.take<uint16_t>(int64_t{kTilesOfRows} * tileRows)),
        visits(arena.take<TileVisit>(kMostVisits)) {}

  TileJob job(const PackedShape& shape, const void* queries) const {
    return {queries, shape.depth(), shape.valueWidth(), static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(shape.headDim))), scratch, state};
  }

  void reset(const PackedShape& shape, int32_t rowCount) const {
    std::fill_n(state.sums, int64_t{rowCount} * shape.valueWidth(), 0.0f);
    std::fill_n(state.denominator, int64_t{rowCount} * shape.lanes, 0.0f);
    std::fill_n(state.exponent, rowCount, -__builtin_inff());
    std::fill_n(state.limit, rowCount, -__builtin_inff());
  }
};

}  // namespace vmoba::cpu
