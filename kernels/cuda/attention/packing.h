// From selections to the work of attention tiles. The blocks are cut into chunks of a few; per head and chunk the rows are sorted by
// which of its blocks they select, so that almost every tile's rows attend to the same keys whatever the data. Rows that select blocks
// of several chunks get a partial result from each, merged afterwards (merge.cu).
#pragma once
#include "kernels/cuda/attention/plan_view.h"
#include "kernels/cuda/tile/common.h"
#include "kernels/cuda/tile/tile.h"

namespace vmoba::cuda {

/// Most blocks of a chunk. More: fewer partial results to merge, but patterns of selection too rare to fill tiles.
constexpr int kChunkBlocks = 6, kPatterns = 1 << kChunkBlocks;
/// Rows one thread block sorts.
constexpr int kSortRows = 2048;

/// A tile's visit of one block: of `length` keys from position `from` on. Bit r of rows[w]: row 32w + r attends to it. Rows past the end
/// count as attending where any row of their warp does, so that a warp whose rows all attend has all bits set.
struct Visit {
  int32_t from, length;
  uint32_t rows[kTileWarps];
};

/// A tile of sparse attention: kTileRows rows of a head's list for one chunk.
struct Cell {
  int64_t first;  ///< of its entries in Packing::order
  int32_t head, visitCount;
  Visit visits[kChunkBlocks];
};

/// Set in an entry of Packing::order where the row attends to blocks of other chunks too.
constexpr int32_t kSharedRow = 1 << 30;
/// The same in Packing::ranks.
constexpr uint32_t kSharedRank = kPatterns;

/// Device memory. A list holds the rows of one head that select blocks of one chunk: list = head*chunks + chunk.
struct Packing {
  int32_t* order = nullptr;      ///< [lists, tiles*kTileRows] position of each row, maybe with kSharedRow; -1 up to the end of a tile
  int32_t* ends = nullptr;       ///< [lists, tiles*kTileRows] raster row of each row's output, where it is not shared
  int32_t* places = nullptr;     ///< [lists, tokens] index of a shared row in the list, -1 = not there or not shared
  Cell* cells = nullptr;         ///< [lists*tiles] all lists' tiles one after the other
  int32_t* cellFirst = nullptr;  ///< [lists+1] first cell of each list
  uint8_t* ranks = nullptr;      ///< scratch [lists, tokens] rank of what each row selects of the chunk, maybe with kSharedRank
  uint32_t* counts = nullptr;    ///< scratch [lists, kPatterns, sort blocks] rows of each rank; for rank 0, which selects nothing, all others
  uint32_t* visitTotal = nullptr;  ///< [1] visits of all cells
};

TILE_SHARED_CODE int32_t chunksOf(int32_t blocks) { return (blocks + kChunkBlocks - 1) / kChunkBlocks; }
/// Chunks are as equal as can be.
TILE_SHARED_CODE int32_t firstBlockOf(int32_t chunk, int32_t chunks, int32_t blocks) { return chunk * blocks / chunks; }
inline int32_t sortBlocksOf(int32_t tokens) { return (tokens + kSortRows - 1) / kSortRows; }

/// `selection` as in SelectionJob. Stable: rows of the same pattern keep their order.
void packRows(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, const Packing& packing);

}  // namespace vmoba::cuda
