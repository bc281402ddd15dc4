// The consuming warpgroups of attendHopper: 64 rows each, all tiles of all pieces of work in one line.
#pragma once
#include "kernels/cuda/attention/hopper_shape.h"

namespace vmoba::cuda {

/// What a thread holds of its two rows, [0] and [1] eight below, as wgmma lays out accumulators: element 4n + 2·row + e is column
/// 8n + 2·(lane % 4) + e.
template <class Shape>
struct HopperRows {
  float out[Shape::D / 2];
  float most[2], total[2];              ///< each row's reference, which weights are relative to, and its denominator
  float keep[2];                        ///< what `out` has to be multiplied with before the next weights' products are added
  bool rescale;                         ///< whether that is more than ones, in any row of the warp
  bool empty;                           ///< nothing has been added to `out`, whatever it holds
  uint32_t weights[Shape::slotRows / 16][4];

  TILE_DEVICE void begin() {
    TILE_UNROLL
    for (int half = 0; half < 2; ++half) {
      most[half] = Shape::Bounded ? 0.0f : -3.0e38f;
      total[half] = 0;
    }
    empty = true;
  }
};

/// One consuming warpgroup's warp.
template <class Shape>
struct HopperConsumer {
  using Note = typename Shape::Note;
  using Place = typename Shape::Place;
  const FlashArguments& a;
  const int warp, group, lane;
  int turn = 0;       ///< of the piece of work whose tiles come
  Place place;        ///< of the tile that comes: its keys
  Place values;       ///< of the values that are late
  HopperRows<Shape> rows;

  TILE_DEVICE HopperConsumer(const FlashArguments& arguments, int warpOfBlock)
      : a(arguments), warp(warpOfBlock), group(warpOfBlock / 4), lane(tile::laneIndex()) {
    TILE_UNROLL
    for (int i = 0; i < Shape::D / 2; ++i) rows.out[i] = 0;
  }

  TILE_DEVICE void wait(const Place& at) const { tile::waitPhase(Shape::barrierWindow(), Shape::filled + at.slot, at.parity); }
  /// For what the next products read. Not before the sums of weights are known: ptxas would put off the weighing until after the next wait for
  /// products, beside which it is meant to happen.
  TILE_DEVICE void waitForNext() const {
    const int zero = rows.total[0] < 0 || rows.total[1] < 0 ? 1 : 0;
    wait({values.slot, values.parity ^ zero});
    wait(place);
  }
  TILE_DEVICE void release(int slot) const {
    if (lane == 0) tile::arrivePhase(Shape::barrierWindow(), Shape::emptied + slot);
  }
  TILE_DEVICE void waitQueries() const { tile::waitPhase(Shape::barrierWindow(), Shape::queriesFilled + (turn & 1), turn >> 1 & 1); }
  TILE_DEVICE void letGoOfQueries() const {
    if (lane == 0) tile::arrivePhase(Shape::barrierWindow(), Shape::queriesEmptied + (turn & 1));
  }

  /// A tile of keys: what is told of it, and whether it is the first of a piece of work.
  struct Tile {
    Note note;
    bool first;
  };
  TILE_DEVICE Tile read(bool first) const { return {Note::read(place.slot, warp), first}; }

  TILE_DEVICE tile::Operand queryOperand() const { return tile::uniform(tile::operand(Shape::queryWindow(0), group * Shape::groupRows * 64).from((turn & 1) * Shape::queryElements)); }
  TILE_DEVICE tile::Operand keyOperand() const { return tile::uniform(tile::operand(Shape::slotWindow(0), 0).from(place.slot * Shape::slotElements)); }
  TILE_DEVICE tile::Operand valueOperand() const { return tile::uniform(tile::operand(Shape::slotWindow(0), 0, Shape::slotRows * 128).from(values.slot * Shape::slotElements)); }

  template <int Keys>
  TILE_DEVICE void startLogits(float (&logits)[Keys / 2], tile::Operand query, tile::Operand key) const {
    tile::fenceProducts(logits);
    TILE_UNROLL
    for (int step = 0; step < Shape::D / 16; ++step)
      tile::multiplyAsync(logits, query.from(step / 4 * kTileRows * 64 + step % 4 * 16), key.from(step / 4 * Shape::slotRows * 64 + step % 4 * 16), step > 0);
    tile::commitProducts();
  }

  /// Adds the late weights' products.
  template <int Keys>
  TILE_DEVICE void startOut(tile::Operand value) {
    if (!Shape::Bounded && rows.rescale && !rows.empty)
      TILE_UNROLL
      for (int i = 0; i < Shape::D / 2; ++i) rows.out[i] *= rows.keep[i / 2 % 2];
    constexpr int steps = Shape::template valueRows<Keys> / 16;
    tile::fenceProducts(rows.out, tile::firstFragments<steps>(rows.weights));
    TILE_UNROLL
    for (int step = 0; step < steps; ++step) tile::multiplyAsyncByRows(rows.out, rows.weights[step], value.from(step * 16 * 64), step > 0 || !rows.empty);
    tile::commitProducts();
    rows.empty = false;
  }

  /// Logits become weights relative to each row's reference, about its maximum or 1; those of keys past the block's end, and all of a row
  /// that does not attend to the block, become zero.
  template <int Keys>
  TILE_DEVICE void weigh(float (&logits)[Keys / 2], const Note& note) {
    const int pair = lane % 4 * 2, firstRow = warp % 2 * 16 + lane / 4;
    constexpr bool ends = Keys == Shape::LastKeys;  // whether a block may end in it
    if (ends && note.keys() < Keys)
      TILE_UNROLL
      for (int n = 0; n < Keys / 8; ++n)
        if (note.keys() < n * 8 + 8)
          TILE_UNROLL
          for (int e = 0; e < 4; ++e)
            if (!tile::within(n * 8 + pair + e % 2, note.keys())) logits[n * 4 + e] = -3.4e38f;
    TILE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const bool attends = !Shape::Sparse || tile::bitOf(note.rows, firstRow + half * 8);
      if (!Shape::Bounded) raise<Keys>(logits, half, attends);
      const float shift = attends ? rows.most[half] * a.scale : 3.4e38f;
      float sum = rows.total[half];
      TILE_UNROLL
      for (int n = 0; n < Keys / 8; ++n) {
        float &first = logits[n * 4 + half * 2], &second = logits[n * 4 + half * 2 + 1];
        first = tile::exponential2(tile::fma(first, a.scale, -shift));
        second = tile::exponential2(tile::fma(second, a.scale, -shift));
        if (Shape::Bounded) {  // summed as they are multiplied, so that what rounding takes from large ones cancels; relative to a maximum those are about one
          const uint32_t rounded = tile::packBf16(first, second);
          first = tile::lowFloat(rounded);
          second = tile::highFloat(rounded);
        }
        sum += first;
        sum += second;
      }
      rows.total[half] = sum;
    }
    if (!Shape::Bounded) rows.rescale = tile::ballot(rows.keep[0] != 1 || rows.keep[1] != 1) != 0;
  }

  /// A row's reference follows its maximum: closely where a row attends to few keys, whose largest weight then is exactly one.
  template <int Keys>
  TILE_DEVICE void raise(const float (&logits)[Keys / 2], int half, bool attends) {
    float highs[4];  // several, or each comparison waits for the one before
    TILE_UNROLL
    for (int i = 0; i < Keys / 4; ++i) {
      const float logit = logits[i / 2 * 4 + half * 2 + i % 2];
      highs[i % 4] = i < 4 ? logit : tile::maximum(highs[i % 4], logit);
    }
    float high = tile::maximum(tile::maximum(highs[0], highs[1]), tile::maximum(highs[2], highs[3]));
    high = tile::maximum(high, tile::shuffleXor(high, 1));
    high = tile::maximum(high, tile::shuffleXor(high, 2));
    high = !attends ? rows.most[half] : Shape::Sparse ? tile::maximum(rows.most[half], high) : raised(rows.most[half], high, a.scale);
    rows.keep[half] = tile::exponential2((rows.most[half] - high) * a.scale);
    rows.most[half] = high;
    rows.total[half] *= rows.keep[half];
  }

  /// The weights as the first operand of the products with the values.
  template <int Keys>
  TILE_DEVICE void packWeights(const float (&logits)[Keys / 2]) {
    TILE_UNROLL
    for (int i = 0; i < Shape::template valueRows<Keys> / 4; ++i) rows.weights[i / 4][i % 4] = i < Keys / 4 ? tile::packBf16(logits[i * 2], logits[i * 2 + 1]) : 0u;
  }

  /// Writes what the piece of work of turn `ended` comes to.
  TILE_DEVICE void finish(int ended, const float (&most)[2], const float (&total)[2]) const {
    const auto targets = Shape::targetWindow(ended);
    const int head = targets.get(kTileRows), firstRow = targets.get(kTileRows + 1);
    TILE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = warp * 16 + half * 8 + lane / 4;
      finishRow<Shape::D, Shape::Whole>(a, head, firstRow + row, targets.get(row), most[half], total[half], [&](int n, int e) { return rows.out[n * 4 + half * 2 + e]; });
    }
  }

  /// On to the next tile, if it is this warpgroup's too: it is read while products are in flight.
  TILE_DEVICE Tile advance(const Tile& tile) {
    place.advance();
    values = place;
    place.advance();
    if (!tile.note.more(group)) return tile;
    waitForNext();
    if (tile.note.last()) {
      ++turn;
      waitQueries();
    }
    return read(tile.note.last());
  }

  /// The first of tiles in a row that rows of this warpgroup attend to. Returns the next.
  template <int Keys>
  TILE_DEVICE Tile firstTile(const Tile& tile) {
    float logits[Keys / 2];
    startLogits<Keys>(logits, queryOperand(), keyOperand());
    tile::waitProducts<0>(logits);
    release(place.slot);
    if (tile.note.last()) letGoOfQueries();
    weigh<Keys>(logits, tile.note);
    packWeights<Keys>(logits);
    return advance(tile);
  }

  /// One more: its logits, and beside them the values of the tile before, `Late` keys wide. Where it is the first of a piece of work, those
  /// were the last of the one before.
  template <int Keys, int Late>
  TILE_DEVICE Tile nextTile(const Tile& tile) {
    float logits[Keys / 2];
    const tile::Operand query = queryOperand(), key = keyOperand(), value = valueOperand();
    startLogits<Keys>(logits, query, key);
    startOut<Late>(value);
    tile::waitProducts<1>(logits);
    release(place.slot);
    if (tile.note.last()) letGoOfQueries();
    const int late = values.slot, ended = turn - 1;
    float most[2], total[2];
    TILE_UNROLL
    for (int half = 0; half < 2; ++half) {
      most[half] = rows.most[half];
      total[half] = rows.total[half];
    }
    if (Shape::Whole && tile.first) rows.begin();
    weigh<Keys>(logits, tile.note);
    const Tile next = advance(tile);
    tile::waitProducts<0>(rows.out, logits);  // new weights take the registers of those just multiplied
    release(late);
    packWeights<Keys>(logits);
    if (Shape::Whole && tile.first) finish(ended, most, total);
    return next;
  }

  /// The values of the last tile.
  template <int Late>
  TILE_DEVICE void lastValues() {
    wait(values);
    startOut<Late>(valueOperand());
    tile::waitProducts<0>(rows.out);
    release(values.slot);
  }

  TILE_DEVICE void passIdleTile(const Note& note) {
    const int keys = place.slot;
    place.advance();
    wait(place);
    tile::warpBarrier();  // all lanes have read the note, and none is left waiting for a phase that may be over twice
    release(keys);
    release(place.slot);
    place.advance();
    if (note.last()) letGoOfQueries();
  }

  TILE_DEVICE void run() {
    for (bool between = true;;) {  // pieces of work
      if (between) {
        waitQueries();
        if (tile::uniform(Shape::targetWindow(turn).get(kTileRows) < 0)) return;
        rows.begin();
      }
      // Nothing is late: before idle tiles pass nothing may be, or the ring would fill up behind it.
      wait(place);
      Tile tile = read(between);
      tile.note = tile.note.uniform();
      bool last = tile.note.last();
      if (tile.note.idle(group)) {
        passIdleTile(tile.note);
      } else {
        bool more = tile.note.more(group), lateEnd = tile.note.end();
        tile = lateEnd ? firstTile<Shape::LastKeys>(tile) : firstTile<Shape::TileKeys>(tile);
        while (more) {
          tile.note = tile.note.uniform();
          const bool end = tile.note.end();
          last = tile.note.last();
          more = tile.note.more(group);
          if (Shape::LastKeys == Shape::TileKeys) {
            tile = nextTile<Shape::TileKeys, Shape::TileKeys>(tile);
          } else if (end) {
            tile = lateEnd ? nextTile<Shape::LastKeys, Shape::LastKeys>(tile) : nextTile<Shape::LastKeys, Shape::TileKeys>(tile);
          } else {
            tile = lateEnd ? nextTile<Shape::TileKeys, Shape::LastKeys>(tile) : nextTile<Shape::TileKeys, Shape::TileKeys>(tile);
          }
          lateEnd = end;
        }
        lateEnd ? lastValues<Shape::LastKeys>() : lastValues<Shape::TileKeys>();
      }
      between = last;
      if (!between) continue;
      finish(turn, rows.most, rows.total);
      ++turn;
    }
  }
};

}  // namespace vmoba::cuda
