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
  TILE_DEVICE int keys() const { return count + secondCount; }
  /// Position of the tile's key i.
  TILE_DEVICE int position(int i) const { return i < count ? first + i : second + i - count; }
  TILE_DEVICE bool attends(int row, int key) const {
    return tile::within(key, count) ? tile::bitOf(rows, row) : tile::within(key, keys()) && tile::bitOf(secondRows, row);
  }
  TILE_DEVICE bool idle() const { return (rows | secondRows) == 0; }
};

template <int TileKeys>
class KeyWalk {
 public:
  /// `cell` = head*tiles + tile; `warp` whose row masks are wanted.
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
      tile.rows = 0xffffffffu;
      offset_ += tile.count;
      return tile;
    }
    tile.count = take(TileKeys, tile.first, tile.rows);
    if (tile.count < TileKeys) tile.secondCount = take(TileKeys - tile.count, tile.second, tile.secondRows);
    return tile;
  }

 private:
  TILE_DEVICE int take(int most, int& first, uint32_t& rows) {
    if (left_ == 0) return 0;
    const int block = visits_->block, from = keys_.start[block], length = keys_.start[block + 1] - from;
    const int count = length - offset_ < most ? length - offset_ : most;
    first = from + offset_;
    rows = visits_->rows[warp_];
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
