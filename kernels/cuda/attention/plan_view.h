// A block plan (kernels/partition.h) as device memory: one int32 array, uploaded once per plan and viewed by all kernels.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/attention.h"
#include "kernels/cuda/tile/common.h"

namespace vmoba::cuda {

/// Tokens one thread block of the preparation pass takes; never across the border of two blocks.
constexpr int kSegmentTokens = 64;
/// Query rows of one attention tile, and of one warp's part of it: the unit of a visit's row masks.
constexpr int kTileRows = 128, kWarpRows = 32, kTileWarps = kTileRows / kWarpRows;

/// Keys of one tile of attendHopper: the last one of a block may be narrower, or all are wide.
constexpr int kHopperKeys = 128, kWideHopperKeys = 152;
/// Of the widths that a last tile may have, the least with room for so many keys.
constexpr int hopperLastWidth(int keys) { return keys <= 32 ? 32 : keys <= 64 ? 64 : keys <= 80 ? 80 : keys <= 96 ? 96 : kHopperKeys; }

/// Device pointers into an uploaded plan. Dense attention uses a plan of one block.
struct PlanView {
  int32_t tokens = 0, blocks = 0, segments = 0;
  int32_t lastKeys = 0;                        ///< most positions in any block's last tile of kHopperKeys
  int32_t tileKeys = 0;                        ///< kHopperKeys or kWideHopperKeys, whichever should cost less
  const int32_t* permutation = nullptr;        ///< [tokens] raster row of each position; null = identity
  const int32_t* start = nullptr;              ///< [blocks+1] first position of each block
  const int32_t* blockOf = nullptr;            ///< [tokens] block of each position
  const int32_t* sequenceFirst = nullptr;      ///< [blocks] positions of the block's packed sequence: [first, end)
  const int32_t* sequenceEnd = nullptr;        ///< [blocks]
  const int32_t* segmentFirst = nullptr;       ///< [segments+1] first position of each segment
  const int32_t* blockFirstSegment = nullptr;  ///< [blocks+1]
  TILE_SHARED_CODE int32_t words() const { return (blocks + 31) / 32; }  ///< 32-bit words of one query's selection
  TILE_SHARED_CODE int32_t tiles() const { return (tokens + kTileRows - 1) / kTileRows; }
};

/// The array to upload, and the view of it once it lies at `device`.
struct PlanUpload {
  std::vector<int32_t> data;
  PlanView view(const int32_t* device) const;

  PlanView offsets;  ///< pointers not set
  bool permuted = false;
};

PlanUpload layOut(const BlockPlan& plan);
/// The plan of dense attention over `tokens` tokens in raster order.
PlanUpload layOutDense(int32_t tokens);

}  // namespace vmoba::cuda
