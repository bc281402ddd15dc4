// The fetching warpgroup of attendHopper: one warp has the copy engine bring keys and values, two gather queries, a piece of work ahead.
#pragma once
#include "kernels/cuda/attention/hopper_shape.h"

namespace vmoba::cuda {

template <class Shape>
struct HopperFetch {
  using Arguments = typename Shape::Arguments;
  using Note = typename Shape::Note;
  using Place = typename Shape::Place;

  static TILE_DEVICE int firstCellOf(const FlashArguments& a) { return Shape::Sparse ? a.job.cellFirst[a.firstHead * a.job.chunks] : 0; }

  /// A piece of work and the blocks of keys it visits, one per lane. Cells differ in length: whoever is free takes the next.
  struct Piece {
    int head = 0, visits = 1;
    int from = 0, length = 0;
    uint32_t rows[kTileWarps] = {};

    static TILE_DEVICE Piece of(const FlashArguments& a, int firstCell, int index) {
      const AttendJob<Bf16>& x = a.job;
      Piece piece;
      if (index < 0) return piece;
      piece.length = x.keys;
      TILE_UNROLL
      for (int word = 0; word < kTileWarps; ++word) piece.rows[word] = 0xffffffffu;
      if constexpr (Shape::Sparse) {
        const Cell& cell = x.cells[firstCell + index];
        const Visit& visit = cell.visits[tile::laneIndex() < kChunkBlocks ? tile::laneIndex() : 0];  // not waiting for how many there are
        piece.head = cell.head;
        piece.visits = cell.visitCount;
        piece.from = visit.from;
        piece.length = visit.length;
        TILE_UNROLL
        for (int word = 0; word < kTileWarps; ++word) piece.rows[word] = visit.rows[word];
      } else {
        piece.head = Work::at(x, a.firstHead, index).head;
      }
      return piece;
    }
    TILE_DEVICE int tiles() const { return tile::warpSum(tile::laneIndex() < visits ? (length + Shape::TileKeys - 1) / Shape::TileKeys : 0); }
    /// Of this lane's visit, one bit for each consuming warpgroup.
    TILE_DEVICE uint32_t idle() const { return (rows[0] | rows[1] ? 0u : 1u) | (rows[2] | rows[3] ? 0u : 2u); }
  };

  static TILE_DEVICE void fetchKeys(const Arguments& a) {
    const AttendJob<Bf16>& x = a.of.job;
    const auto phases = Shape::barrierWindow();
    const int count = Work::count(x, a.of.firstHead, a.of.heads), firstCell = firstCellOf(a.of);
    const bool first = tile::laneIndex() == 0;
    const int lastFrom = count < HopperTurns::lastCells ? 0 : count - HopperTurns::lastCells;
    int upcoming = tile::blockIndex().x;
    const auto ask = [&] {
      if constexpr (Shape::Sparse) {
        if (first) upcoming = static_cast<int>(tile::atomicAdd(&x.turns->taken, 1u)) + tile::gridExtent().x;
      } else {
        upcoming += tile::gridExtent().x;
      }
    };
    // What is asked for is known later, and what it is later still: except in pieces of few tiles nothing waits for memory, and no block has
    // much before it at the end.
    constexpr int askBefore = 5, learnBefore = 4;
    int index = 0, turn = 0;
    const auto learn = [&](int ofTurn) {
      index = tile::shuffle(upcoming, 0);
      if (!tile::within(index, count)) index = -1;
      if (Shape::Sparse && index >= lastFrom) index = x.turns->last[index - lastFrom];
      tile::waitPhase(phases, Shape::queriesFilled + (ofTurn & 1), (ofTurn >> 1 & 1) ^ 1);  // those who gather queries are done with the turn that this replaces
      if (first) {
        Shape::workWindow(ofTurn).set(0, index);
        tile::arrivePhase(phases, Shape::workKnown + (ofTurn & 1));
      }
      return Piece::of(a.of, firstCell, index);
    };
    Place filling;
    for (Piece piece = learn(0), next; index >= 0; piece = next, ++turn) {
      int left = piece.tiles();
      const int askAt = left < askBefore ? left : askBefore, learnAt = left < learnBefore ? left : learnBefore;
      for (int visit = 0; visit < piece.visits; ++visit) {
        const bool lastVisit = visit + 1 == piece.visits;
        const int from = piece.head * x.keys + tile::shuffle(piece.from, visit), length = tile::shuffle(piece.length, visit);
        const uint32_t idle = tile::shuffle(piece.idle(), visit), idleThen = tile::shuffle(piece.idle(), lastVisit ? visit : visit + 1);
        uint32_t rows[kTileWarps];
        TILE_UNROLL
        for (int word = 0; word < kTileWarps; ++word) rows[word] = tile::shuffle(piece.rows[word], visit);
        for (int done = 0; done < length; done += Shape::TileKeys, --left) {
          if (left == askAt) ask();
          if (left == learnAt) next = learn(turn + 1);
          const bool end = done + Shape::TileKeys >= length, last = left == 1;
          const uint32_t more = last ? (index < 0 ? 0 : 3 & ~tile::shuffle(next.idle(), 0)) : 3 & ~(end ? idleThen : idle);
          TILE_UNROLL
          for (int part = 0; part < 2; ++part) {
            tile::waitPhase(phases, Shape::emptied + filling.slot, filling.parity ^ 1);  // all lanes, which meet again below: none falls back by two phases
            if (first) {
              if (part == 0) {
                const auto note = Shape::noteWindow(filling.slot);
                note.set(0, idle * Note::idleBit | more * Note::moreBit | (end ? Note::endBit : 0) | (last ? Note::lastBit : 0) |
                                static_cast<uint32_t>(end ? length - done : Shape::TileKeys) << Note::keysShift);
                TILE_UNROLL
                for (int word = 0; word < kTileWarps; ++word) note.set(1 + word, rows[word]);
              }
              constexpr int whole[2] = {Shape::TileKeys, Shape::template valueRows<Shape::TileKeys>}, ending[2] = {Shape::LastKeys, Shape::template valueRows<Shape::LastKeys>};
              tile::expectBytes(phases, Shape::filled + filling.slot, (end ? ending[part] : whole[part]) * Shape::D * 2);
              const tile::RowBoxes& boxes = part == 0 ? (end ? a.lastKeys : a.keys) : end ? a.lastValues : a.values;
              TILE_UNROLL
              for (int panel = 0; panel < Shape::panels; ++panel) tile::fetchBox(Shape::slotWindow(filling.slot), panel * Shape::slotRows * 64, boxes, panel, from + done, phases, Shape::filled + filling.slot);
            }
            tile::warpBarrier();
            filling.advance();
          }
        }
      }
    }
  }

  /// The queries of one consuming warpgroup, two rows per lane to look up and D/8 lanes to copy a row.
  static TILE_DEVICE void fetchQueries(const FlashArguments& a, int group) {
    const AttendJob<Bf16>& x = a.job;
    const auto phases = Shape::barrierWindow();
    const int lane = tile::laneIndex(), chunk = lane % Shape::chunks, firstCell = firstCellOf(a);
    for (int turn = 0;; ++turn) {
      tile::waitPhase(phases, Shape::workKnown + (turn & 1), turn >> 1 & 1);
      const int index = Shape::workWindow(turn).get(0);
      Work work;
      int entry[2], target[2];
      if (index >= 0) {
        if constexpr (Shape::Sparse) {
          const Cell& cell = x.cells[firstCell + index];
          work = {cell.head, cell.first, &cell};
        } else {
          work = Work::at(x, a.firstHead, index);
        }
        TILE_UNROLL
        for (int half = 0; half < 2; ++half) entry[half] = work.entry(x, group * Shape::groupRows + half * 32 + lane);
        TILE_UNROLL
        for (int half = 0; half < 2; ++half) target[half] = work.target(x, a.firstHead, group * Shape::groupRows + half * 32 + lane, entry[half]);
      }
      tile::waitPhase(phases, Shape::queriesEmptied + (turn & 1), (turn >> 1 & 1) ^ 1);
      const auto targets = Shape::targetWindow(turn);
      if (group == 0 && lane == 0) {
        targets.set(kTileRows, index < 0 ? -1 : work.head);
        targets.set(kTileRows + 1, static_cast<int>(work.first));
      }
      if (index >= 0)
        TILE_UNROLL
        for (int half = 0; half < 2; ++half) {
          targets.set(group * Shape::groupRows + half * 32 + lane, target[half]);
          const int mine = Work::position(entry[half]);
          TILE_UNROLL_BY(4)
          for (int row = lane / Shape::chunks; row < 32; row += 32 / Shape::chunks) {
            const int position = tile::shuffle(mine, row);
            tile::copyAsync<16>(Shape::queryWindow(turn), tile::swizzled(group * Shape::groupRows + half * 32 + row, chunk, kTileRows),
                                x.q + (int64_t{work.head} * x.queries + (position < 0 ? 0 : position)) * Shape::D + chunk * 8, position < 0 ? 0 : 16);
          }
        }
      tile::commitCopies();
      tile::waitCopies<0>();
      tile::fenceAsyncProxy();
      tile::warpBarrier();
      if (lane == 0) tile::arrivePhase(phases, Shape::queriesFilled + (turn & 1));
      if (index < 0) return;
    }
  }
};

}  // namespace vmoba::cuda
