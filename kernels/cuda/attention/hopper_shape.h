// How a thread block of attendHopper lies in shared memory, and what its warps tell each other there.
#pragma once
#include "kernels/cuda/attention/flash_rows.h"
#include "kernels/cuda/attention/key_tiles.h"
#include "kernels/cuda/tile/warpgroup.h"

namespace vmoba::cuda {

/// What the warps of attendHopper agree on. D: padded channels. TileKeys: width of a tile of keys; LastKeys: of a block's last one. Whole: results
/// are rows of D channels, written 16 bytes at a time; others take so many registers that the line of tiles is broken to write them. Bounded:
/// no logit is large, so that no maxima are sought and nothing is rescaled.
template <int Width, bool OverCells, int WidthOfTile, int WidthOfLast, bool WholeRows, bool BoundedLogits>
struct HopperShape {
  static constexpr int D = Width, TileKeys = WidthOfTile, LastKeys = WidthOfLast;
  static constexpr bool Sparse = OverCells, Whole = WholeRows, Bounded = BoundedLogits;
  static constexpr int groupRows = 64, consumers = kTileRows / groupRows * 128, producers = 128, threads = consumers + producers;
  static constexpr int slotRows = (TileKeys + 15) / 16 * 16;            // values come by sixteen rows: weights past a tile's keys are zero
  static constexpr int slots = TileKeys > 128 ? 4 : 5;                  // keys and values by turns
  static constexpr int chunks = D / 8, panels = D / 64;                 // 16-byte pieces of a row; 128-byte ones
  static constexpr int queryElements = kTileRows * D, slotElements = slotRows * D;
  static constexpr int slotsAt = 2 * queryElements * 2, barriersAt = slotsAt + slots * slotElements * 2;
  static constexpr int filled = 0, emptied = slots, queriesFilled = 2 * slots, queriesEmptied = queriesFilled + 2, workKnown = queriesEmptied + 2, barriers = workKnown + 2;
  static constexpr int worksAt = barriersAt + barriers * 8, workWords = 4;          // of even and odd turns: index of the work, -1 = there is no more
  static constexpr int notesAt = worksAt + 2 * workWords * 4, noteWords = 8;        // one per slot
  static constexpr int targetsAt = notesAt + slots * noteWords * 4, targetTurns = 4, targetWords = kTileRows + 4;  // where each row's result goes; head, first row
  static_assert(targetTurns == 4);  // a piece may be finished after the queries of the next were let go of, which makes room for those of two on
  static constexpr int sharedBytes = targetsAt + targetTurns * targetWords * 4;
  static_assert(sharedBytes <= 227 * 1024 && LastKeys <= TileKeys && TileKeys % 8 == 0);
  /// Rows of values multiplied with the weights of a tile `Keys` wide.
  template <int Keys>
  static constexpr int valueRows = (Keys + 15) / 16 * 16;

  struct Arguments {
    FlashArguments of;
    tile::RowBoxes keys, lastKeys, values, lastValues;
  };

  /// A place in the ring, and the parity of its phase.
  struct Place {
    int slot = 0, parity = 0;
    TILE_DEVICE void advance() {
      if (++slot < slots) return;
      slot = 0;
      parity ^= 1;
    }
  };

  static TILE_DEVICE tile::Shared<Bf16> queryWindow(int turn) { return tile::sharedWindow<Bf16>((turn & 1) * queryElements * 2, queryElements); }
  static TILE_DEVICE tile::Shared<Bf16> slotWindow(int slot) { return tile::sharedWindow<Bf16>(slotsAt + slot * slotElements * 2, slotElements); }
  static TILE_DEVICE tile::Shared<uint64_t> barrierWindow() { return tile::sharedWindow<uint64_t>(barriersAt, barriers); }
  static TILE_DEVICE tile::Shared<int32_t> workWindow(int turn) { return tile::sharedWindow<int32_t>(worksAt + (turn & 1) * workWords * 4, workWords); }
  static TILE_DEVICE tile::Shared<uint32_t> noteWindow(int slot) { return tile::sharedWindow<uint32_t>(notesAt + slot * noteWords * 4, noteWords); }
  static TILE_DEVICE tile::Shared<int32_t> targetWindow(int turn) { return tile::sharedWindow<int32_t>(targetsAt + (turn & (targetTurns - 1)) * targetWords * 4, targetWords); }

  /// What is told of a tile of keys.
  struct Note {
    /// last: of its piece of work. idle, more: one bit for each consuming warpgroup: no row of it attends to the tile; the next tile, maybe of
    /// the next piece, is there and not idle.
    static constexpr uint32_t endBit = 1, lastBit = 2, idleBit = 4, moreBit = 16;
    static constexpr int keysShift = 8;
    uint32_t flags, rows;  ///< rows of two warps

    static TILE_DEVICE Note read(int slot, int warp) {
      const auto note = noteWindow(slot);
      return {note.get(0), note.get(1 + warp / 2)};
    }
    /// Known to be the same in all lanes.
    TILE_DEVICE Note uniform() const { return {tile::uniform(flags), rows}; }
    /// Whether it is the last tile of a block of keys.
    TILE_DEVICE bool end() const { return flags & endBit; }
    TILE_DEVICE bool last() const { return flags & lastBit; }
    TILE_DEVICE bool idle(int group) const { return flags & idleBit << group; }
    /// Whether products go on with the next tile.
    TILE_DEVICE bool more(int group) const { return flags & moreBit << group && (Whole || !last()); }
    TILE_DEVICE int keys() const { return static_cast<int>(flags >> keysShift); }
  };
};

}  // namespace vmoba::cuda
