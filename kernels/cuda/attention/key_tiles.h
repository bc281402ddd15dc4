// Walks the keys of an attention tile: tiles of at most `Keys` keys, each from one block or from the end of one and the
// beginning of the next visited block, so that a block that does not fill a hardware tile wastes nothing.
#pragma once
#include <algorithm>

#include "kernels/cuda/attention/attend.h"
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
  /// Whether no row attends to the tile.
  TILE_DEVICE bool idle() const { return (rows | secondRows) == 0; }
};

/// Walks the keys of a piece of work; each lane of the warp keeps one visit, so that a step waits for no memory. All lanes step together.
template <int TileKeys>
class KeyWalk {
 public:
  /// Over the visits of `cell`, or where that is null over `keys` keys. `warp`: whose word of row masks is wanted.
  TILE_DEVICE KeyWalk(const Cell* cell, int keys, int warp) {
    static_assert(kChunkBlocks <= tile::warpLanes);
    if (!cell) {
      length_ = keys;
      rows_ = 0xffffffffu;
      return;
    }
    visits_ = cell->visitCount;
    const Visit& visit = cell->visits[tile::laneIndex() < visits_ ? tile::laneIndex() : 0];
    from_ = visit.from;
    length_ = visit.length;
    rows_ = visit.rows[warp];
  }
  /// The next tile; one without keys at the end.
  TILE_DEVICE KeyTile next() {
    KeyTile tile;
    tile.count = take(TileKeys, tile.first, tile.rows);
    if (tile.count < TileKeys) tile.secondCount = take(TileKeys - tile.count, tile.second, tile.secondRows);
    return tile;
  }

 private:
  TILE_DEVICE int take(int most, int& first, uint32_t& rows) {
    if (at_ == visits_) return 0;
    const int left = tile::shuffle(length_, at_) - offset_, count = left < most ? left : most;
    first = tile::shuffle(from_, at_) + offset_;
    rows = tile::shuffle(rows_, at_);
    offset_ += count;
    if (count == left) {
      offset_ = 0;
      ++at_;
    }
    return count;
  }

  int from_ = 0, length_ = 0;  // this lane's visit
  uint32_t rows_ = 0;
  int visits_ = 1, at_ = 0, offset_ = 0;
};

/// What a thread block attends to: rows of one head, and where their results go. `x`: AttendJob, or what has its members of like names.
struct Work {
  int head = 0;
  int64_t first = 0;           ///< of the rows: entry of `order`, or position where there are no cells
  const Cell* cell = nullptr;  ///< null: dense

  /// Work `index` of the heads from `firstHead` on.
  template <class Job>
  static TILE_DEVICE Work at(const Job& x, int firstHead, int index) {
    if (x.cells) {
      const Cell* cell = x.cells + x.cellFirst[firstHead * x.chunks] + index;
      return {cell->head, cell->first, cell};
    }
    const int tiles = (x.queries + kTileRows - 1) / kTileRows;
    return {firstHead + index / tiles, int64_t{index % tiles} * kTileRows, nullptr};
  }
  /// How many there are of `heads` heads.
  template <class Job>
  static TILE_DEVICE int count(const Job& x, int firstHead, int heads) {
    if (x.cells) return x.cellFirst[(firstHead + heads) * x.chunks] - x.cellFirst[firstHead * x.chunks];
    return (x.queries + kTileRows - 1) / kTileRows * heads;
  }
  /// Position of a row, negative where there is none, and kSharedRow where it attends to keys of other chunks too.
  template <class Job>
  TILE_DEVICE int entry(const Job& x, int row) const {
    if (cell) return x.order[first + row];
    return tile::within(first + row, int64_t{x.queries}) ? static_cast<int>(first) + row : -1;
  }
  static TILE_DEVICE int position(int entry) { return entry < 0 ? -1 : entry & ~kSharedRow; }
  /// Where the result of a row with this entry goes, in a launch that begins with head `firstHead`: the raster row of `out`, or with
  /// kSharedRow the row of the partial results; negative: nowhere.
  template <class Job>
  TILE_DEVICE int target(const Job& x, int firstHead, int row, int entry) const {
    if (!cell) return entry >= 0 && x.scatter ? x.scatter[entry] : entry;
    const int end = x.ends[first + row];
    return entry < 0 ? -1 : entry & kSharedRow ? static_cast<int>(first + row - int64_t{firstHead} * x.chunks * listRowsOf(x.queries)) | kSharedRow : end;
  }
};

/// Launches that attend `heads` heads each, few enough for the time and for the room of partial results, and merge what they left.
template <class T, class Launch>
void byHeads(tile::Stream stream, const AttendJob<T>& job, double flopsPerLaunch, const BetweenLaunches& between, const Launch& launch) {
  const double perHead = 4.0 * job.queries * job.keys * job.paddedDim;
  int most = static_cast<int>(std::clamp(flopsPerLaunch / perHead, 1.0, static_cast<double>(job.heads)));
  if (job.cells && job.chunks > 1) most = std::min(most, job.partials.heads);
  most = inEqualParts(job.heads, most);
  for (int head = 0; head < job.heads; head += most) {
    const int heads = std::min(most, job.heads - head);
    launch(head, heads);
    if (job.cells && job.chunks > 1) mergePartials(stream, job, head, heads);
    if (between) between();
  }
}

}  // namespace vmoba::cuda
