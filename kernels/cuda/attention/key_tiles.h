// Walks the keys of an attention tile: tiles of at most `Keys` keys, each from one block or from the end of one and the
// beginning of the next visited block, so that a block that does not fill a hardware tile wastes nothing.
#pragma once
#include "kernels/cuda/attention/packing.h"
#include "kernels/cuda/tile/tile.h"

namespace vmoba::cuda {

/// Up to two runs of neighbouring keys and, for one warp, the rows that attend to each.
struct KeyTile {
  int first = 0, count = 0, second = 0, secondCount = 0;
  uint32_t rows = 0, secondRows = 0;
  uint32_t anyRows = 0;  ///< zero where no row of the warps that walk together attends to the tile
  TILE_DEVICE int keys() const { return count + secondCount; }
  /// Position of the tile's key i.
  TILE_DEVICE int position(int i) const { return i < count ? first + i : second + i - count; }
  TILE_DEVICE bool attends(int row, int key) const {
    return tile::within(key, count) ? tile::bitOf(rows, row) : tile::within(key, keys()) && tile::bitOf(secondRows, row);
  }
  /// Whether all of the rows `wanted` attend to all of `size` keys.
  TILE_DEVICE bool full(int size, uint32_t wanted) const {
    return keys() == size && (rows & wanted) == wanted && (secondCount == 0 || (secondRows & wanted) == wanted);
  }
  /// The tile's keys [from, end) that a row attends to: the first run, the second, both or neither.
  struct Run {
    int from, end;
    TILE_DEVICE bool has(int key) const { return key >= from && tile::within(key, end); }
  };
  TILE_DEVICE Run attended(int row) const { return {tile::bitOf(rows, row) ? 0 : count, tile::bitOf(secondRows, row) ? keys() : count}; }
  TILE_DEVICE bool idle() const { return anyRows == 0; }
};

/// `Together`: neighbouring words of row masks whose warps are idle only together.
template <int TileKeys, int Together = 1>
class KeyWalk {
 public:
  /// `cell` = head*tiles + tile; `warp` whose word of row masks is wanted.
  TILE_DEVICE KeyWalk(const Keys& keys, int64_t cell, int warp) : keys_(keys), warp_(warp) {
    if (keys.visits) {
      visits_ = keys.visits + cell * keys.blocks;
      left_ = keys.visitCounts[cell];
    }
  }
  /// The next tile; one without keys at the end.
  TILE_DEVICE KeyTile next() {
    KeyTile tile;
    if (!keys_.visits) {
      tile.first = offset_;
      tile.count = keys_.count - offset_ < TileKeys ? keys_.count - offset_ : TileKeys;
      tile.rows = tile.anyRows = 0xffffffffu;
      offset_ += tile.count;
      return tile;
    }
    tile.count = take(TileKeys, tile.first, tile.rows, tile.anyRows);
    if (tile.count < TileKeys) tile.secondCount = take(TileKeys - tile.count, tile.second, tile.secondRows, tile.anyRows);
    return tile;
  }

 private:
  TILE_DEVICE int take(int most, int& first, uint32_t& rows, uint32_t& anyRows) {
    if (left_ == 0) return 0;
    const int block = visits_->block, from = keys_.start[block], length = keys_.start[block + 1] - from;
    const int count = length - offset_ < most ? length - offset_ : most;
    first = from + offset_;
    rows = visits_->rows[warp_];
    TILE_UNROLL
    for (int word = 0; word < Together; ++word) anyRows |= visits_->rows[warp_ / Together * Together + word];
    offset_ += count;
    if (offset_ == length) {
      offset_ = 0;
      ++visits_;
      --left_;
    }
    return count;
  }

  const Keys& keys_;
  const Visit* visits_ = nullptr;
  int left_ = 0, offset_ = 0, warp_;
};

}  // namespace vmoba::cuda
