// Packed q, k, v of one call (tile.h states the formats) and the tile buffers each thread works in.
#pragma once
#include <algorithm>

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
inline int32_t tileRowsFor(const PackedShape& shape) {
  const int64_t rows = (384 << 10) / (int64_t{shape.valueWidth()} * 4) / kRowGroup * kRowGroup;
  return static_cast<int32_t>(std::clamp<int64_t>(rows, 8 * kRowGroup, 128 * kRowGroup));
}

struct TileBuffers {
  TileState state{};
  std::byte* weights = nullptr;
  uint16_t* rows = nullptr;

  TileBuffers(Arena& arena, const PackedShape& shape, int32_t tileRows)
      : state{arena.take<float>(int64_t{tileRows} * shape.valueWidth()), arena.take<float>(tileRows), arena.take<float>(tileRows),
              arena.take<float>(int64_t{tileRows} * shape.lanes)},
        weights(arena.take<std::byte>(static_cast<int64_t>(kTileWeightBytes))),
        rows(arena.take<uint16_t>(tileRows)) {}

  void reset(const PackedShape& shape, int32_t rowCount) const {
    std::fill_n(state.sums, int64_t{rowCount} * shape.valueWidth(), 0.0f);
    std::fill_n(state.denominator, int64_t{rowCount} * shape.lanes, 0.0f);
    std::fill_n(state.exponent, rowCount, -__builtin_inff());
    std::fill_n(state.limit, rowCount, -__builtin_inff());
  }
};

}  // namespace vmoba::cpu
