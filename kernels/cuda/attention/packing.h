// From selections to the work of attention tiles: which query rows share a tile, and which blocks a tile visits.
#pragma once
#include "kernels/cuda/attention/plan_view.h"
#include "kernels/cuda/tile/common.h"

namespace vmoba::cuda {

/// A tile's visit of one block. Bit r of rows[w]: row 32w + r attends to it. Rows past the end count as attending where any row
/// of their warp does, so that a warp whose rows all attend has all bits set.
struct Visit {
  int32_t block;
  uint32_t rows[kTileWarps];
};

struct Packing {
  int32_t* order = nullptr;         ///< [heads, tiles*kTileRows] position of each tile row, -1 = none
  Visit* visits = nullptr;          ///< [heads, tiles, blocks]; the first `visitCounts` are used
  int32_t* visitCounts = nullptr;   ///< [heads, tiles]
};

/// What a tile's rows attend to.
struct Keys {
  int32_t count = 0;                     ///< rows of k and v
  const int32_t* start = nullptr;        ///< [blocks+1]
  int32_t blocks = 0;
  const Visit* visits = nullptr;         ///< as in Packing; null = every row attends to all keys
  const int32_t* visitCounts = nullptr;
};

/// Orders each head's rows so that rows of like selections share a tile, stably: a least-significant-digit radix sort of a
/// 32-bit signature of the selection. `keys`: scratch [heads, 2*tokens] of 64-bit words; null = rows stay in their order.
void orderRows(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, uint64_t* keys, int32_t* order);

void buildVisits(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, const Packing& packing);

}  // namespace vmoba::cuda
