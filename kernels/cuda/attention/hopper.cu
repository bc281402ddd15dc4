// bf16 attention by wgmma, for Hopper (sm_90a). Thread blocks stay for many tiles of work. One warpgroup of each fetches queries, keys and
// values, the latter two into a ring of slots, two others of 64 query rows each consume them: while these end one tile of work, what the
// next begins with is on its way. While a warpgroup weighs the logits of one tile of keys, the tensor cores multiply its previous weights
// with their values, and the other warpgroup's products fill the rest: the two take turns at starting products, so that one's
// weighing falls together with the other's products.
#include "kernels/cuda/attention/flash_rows.h"
#include "kernels/cuda/attention/key_tiles.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/tile/warpgroup.h"

namespace vmoba::cuda {
namespace {

template <int D, bool Sparse>
struct Hopper {
  static constexpr const char* name = Sparse ? "block-sparse attention on Hopper" : "dense attention on Hopper";
  static constexpr bool warpgroups = true;
  static constexpr int groupRows = 64, consumers = kTileRows / groupRows * 128, producers = 128, threads = consumers + producers, blocksPerSM = 1;
  static constexpr int registersToFetch = 88, registersToAttend = 208;  // (88 + 2·208) · 128 of the 64,512 a block of 384 threads starts with
  static constexpr int TileKeys = 128, slots = 6;  // 3 tiles of keys and 3 of values, by turns
  static constexpr int lag = Sparse ? 1 : 2;       // copies in flight before the oldest of them is waited for; measured
  static constexpr int chunks = D / 8;             // 16-byte pieces of a row
  static constexpr int slotElements = TileKeys * D, slotsAt = kTileRows * D * 2, barriersAt = slotsAt + slots * slotElements * 2;
  static constexpr int filled = 0, emptied = slots, queriesFilled = 2 * slots, queriesEmptied = queriesFilled + 1, workKnown = queriesEmptied + 1, turns = workKnown + 2;
  static constexpr int barriers = turns + 2;
  static constexpr int notesAt = (barriersAt + barriers * 8 + 127) / 128 * 128, noteWords = 16;  // one per tile of keys in the ring
  static constexpr int worksAt = notesAt + slots / 2 * noteWords * 4, workWords = 4;             // of an even and an odd turn: index of the work, -1 = there is no more
  static constexpr int targetsAt = worksAt + 2 * workWords * 4, targetWords = kTileRows + 4;     // of both: where each row's result goes, head, first row
  static constexpr int sharedBytes = targetsAt + 2 * targetWords * 4;

  using Arguments = FlashArguments;

  /// A place in the ring, and the parity of its phase.
  struct Place {
    int slot = 0, parity = 0;
    TILE_DEVICE void advance() {
      if (++slot < slots) return;
      slot = 0;
      parity ^= 1;
    }
  };

  static TILE_DEVICE tile::Shared<Bf16> slotWindow(int slot) { return tile::sharedWindow<Bf16>(slotsAt + slot * slotElements * 2, slotElements); }
  static TILE_DEVICE tile::Shared<uint64_t> barrierWindow() { return tile::sharedWindow<uint64_t>(barriersAt, barriers); }

  static TILE_DEVICE tile::Shared<int32_t> workWindow(int turn) { return tile::sharedWindow<int32_t>(worksAt + turn % 2 * workWords * 4, workWords); }
  static TILE_DEVICE tile::Shared<int32_t> targetWindow(int turn) { return tile::sharedWindow<int32_t>(targetsAt + turn % 2 * targetWords * 4, targetWords); }
  static TILE_DEVICE tile::Shared<uint32_t> noteWindow(int slot) { return tile::sharedWindow<uint32_t>(notesAt + slot / 2 * noteWords * 4, noteWords); }

  /// What the fetching warpgroup tells of a tile of keys, to the two warps that share a word of row masks.
  struct Note {
    static constexpr uint32_t fullBit = 1, idleBit = 4, nextIdleBit = 8, lastBit = 16;  // full: one bit for each of two warps
    uint32_t flags, rows, secondRows, counts;  ///< counts: keys of the first run, and 16 bits higher of both

    static TILE_DEVICE void write(int slot, int word, const KeyTile& tile, const KeyTile& next) {
      if (tile::laneIndex() != 0) return;
      const auto note = noteWindow(slot);
      uint32_t flags = 0;
      TILE_UNROLL
      for (int half = 0; half < 2; ++half) flags |= tile.full(TileKeys, 0xffffu << half * 16) ? fullBit << half : 0;
      flags |= (tile.idle() ? idleBit : 0) | (next.keys() == 0 ? lastBit : next.idle() ? nextIdleBit : 0);
      note.set(word, flags);
      note.set(4 + word, tile.rows);
      note.set(8 + word, tile.secondCount > 0 ? tile.secondRows : 0);
      if (word > 0) return;
      note.set(12, static_cast<uint32_t>(tile.count | tile.keys() << 16));
    }
    static TILE_DEVICE Note read(int slot, int word) {
      const auto note = noteWindow(slot);
      return {note.get(word), note.get(4 + word), note.get(8 + word), note.get(12)};
    }
    TILE_DEVICE bool full(int warp) const { return flags & fullBit << warp % 2; }
    TILE_DEVICE bool idle() const { return flags & idleBit; }
    TILE_DEVICE bool last() const { return flags & lastBit; }
    /// Whether the next tile of the same work is this warpgroup's too.
    TILE_DEVICE bool more() const { return !(flags & (lastBit | nextIdleBit)); }
    /// Row `row` of the word attends to the tile's keys [from, end).
    TILE_DEVICE KeyTile::Run attended(int row) const {
      const int count = static_cast<int>(counts & 0xffff), keys = static_cast<int>(counts >> 16);
      return {tile::bitOf(rows, row) ? 0 : count, tile::bitOf(secondRows, row) ? keys : count};
    }
  };

  static TILE_DEVICE void run(const Arguments& a) {
    const int warp = tile::shuffle(tile::warpIndex(), 0);
    const auto phases = barrierWindow();
    if (tile::threadIndex() == 0) {
      TILE_UNROLL
      for (int slot = 0; slot < slots; ++slot) {
        tile::initPhase(phases, filled + slot, producers / 32);
        tile::initPhase(phases, emptied + slot, consumers / 32);
      }
      tile::initPhase(phases, queriesFilled, producers / 32);
      tile::initPhase(phases, queriesEmptied, consumers / 32);
      for (int i = 0; i < 2; ++i) {
        tile::initPhase(phases, workKnown + i, 1);
        tile::initPhase(phases, turns + i, consumers / 32 / 2);
      }
    }
    tile::barrier();
    if (warp >= consumers / 32) {
      tile::keepRegisters<registersToFetch>();
      produce(a, warp - consumers / 32);
    } else {
      tile::claimRegisters<registersToAttend>();
      consume(a, warp);
    }
  }

  /// Barriers of what a warp is copying, the oldest first; -1 = none.
  struct InFlight {
    int barrier[lag];
    TILE_DEVICE InFlight() {
      TILE_UNROLL
      for (int i = 0; i < lag; ++i) barrier[i] = -1;
    }
    /// The latest copies belong to `next`; those of `lag` before have arrived.
    TILE_DEVICE void push(int next) {
      tile::commitCopies();
      tile::waitCopies<lag>();
      release(barrier[0]);
      TILE_UNROLL
      for (int i = 0; i + 1 < lag; ++i) barrier[i] = barrier[i + 1];
      barrier[lag - 1] = next;
    }
    TILE_DEVICE void flush() {
      tile::waitCopies<0>();
      TILE_UNROLL
      for (int i = 0; i < lag; ++i) {
        release(barrier[i]);
        barrier[i] = -1;
      }
    }
    /// Until what consumers hold may be overwritten. If that takes time, they get all copies first: they may be waiting for them.
    TILE_DEVICE void waitFor(int which, int parity) {
      if (tile::ballot(tile::testPhase(barrierWindow(), which, parity)) == 0xffffffffu) return;
      flush();
      tile::waitPhase(barrierWindow(), which, parity);
    }
    static TILE_DEVICE void release(int which) {
      if (which < 0) return;
      tile::fenceAsyncProxy();
      tile::warpBarrier();
      if (tile::laneIndex() == 0) tile::arrivePhase(barrierWindow(), which);
    }
  };

  static TILE_DEVICE void produce(const Arguments& a, int warp) {
    const AttendJob<Bf16>& x = a.job;
    const auto phases = barrierWindow();
    const int works = Work::count(x, a.firstHead, a.heads), firstCell = Sparse ? x.cellFirst[a.firstHead * x.chunks] : 0;
    const bool chooses = tile::threadIndex() == consumers;
    // Cells differ in length: whoever is free takes the next. One is taken ahead.
    int upcoming = tile::blockIndex().x;
    const auto take = [&] {
      const int taken = upcoming;
      if constexpr (Sparse) {
        upcoming = static_cast<int>(tile::atomicAdd(x.nextCell + a.firstHead, 1u)) + tile::gridExtent().x;
      } else {
        upcoming += tile::gridExtent().x;
      }
      return tile::within(taken, works) ? taken : -1;
    };
    Place filling;
    InFlight inFlight;
    for (int turn = 0;; ++turn) {
      // All have read what this replaces: the queries of the turn before were fetched over those of the turn before that, with which the
      // consumers were done, and so with its keys, which took all four warps.
      if (chooses) {
        workWindow(turn).set(0, take());
        tile::arrivePhase(phases, workKnown + turn % 2);
      }
      tile::waitPhase(phases, workKnown + turn % 2, turn / 2 % 2);
      const int index = workWindow(turn).get(0);
      if (index < 0) {
        inFlight.flush();
        inFlight.waitFor(queriesEmptied, turn % 2 ^ 1);
        if (tile::laneIndex() == 0) tile::arrivePhase(phases, queriesFilled);
        return;
      }
      Work work;
      if constexpr (Sparse) {
        const Cell& cell = x.cells[firstCell + index];
        work = {cell.head, cell.first, &cell};
      } else {
        work = Work::at(x, a.firstHead, index);
        work.cell = nullptr;
      }
      KeyWalk<TileKeys, groupRows / kWarpRows> walk(work.cell, x.keys, warp);
      // This lane's row, looked up now: the wait for it falls together with the first keys' way.
      const int row = warp * 32 + tile::laneIndex(), entry = work.entry(x, row), target = work.target(x, a.firstHead, row, entry);
      bool first = true;
      for (KeyTile keys = walk.next(), next; keys.keys() > 0; keys = next) {
        next = walk.next();
        TILE_UNROLL
        for (int part = 0; part < 2; ++part) {
          const Bf16* rows = (part == 0 ? x.k : x.v) + int64_t{work.head} * x.keys * D;
          inFlight.waitFor(emptied + filling.slot, filling.parity ^ 1);
          if (part == 0) Note::write(filling.slot, warp, keys, next);
          fetch(slotWindow(filling.slot), rows, keys);
          inFlight.push(filled + filling.slot);
          filling.advance();
          if (!first) continue;
          first = false;
          inFlight.waitFor(queriesEmptied, turn % 2 ^ 1);
          fetchQueries(x, work, entry, target, warp, turn);
          inFlight.push(queriesFilled);
        }
      }
    }
  }

  /// Every thread copies pieces of like place in every rowsAtOnce-th row: all addresses are one and constants.
  static TILE_DEVICE void fetch(tile::Shared<Bf16> to, const Bf16* rows, const KeyTile& keys) {
    const int thread = tile::threadIndex() - consumers, chunk = thread % chunks, firstRow = thread / chunks;
    constexpr int rowsAtOnce = producers / chunks;
    static_assert(rowsAtOnce % 8 == 0, "rows of a thread are swizzled alike");
    const tile::Shared<Bf16> toFirst = to.from(tile::swizzled(firstRow, chunk, TileKeys));
    const Bf16* const from = rows + (int64_t{keys.first} + firstRow) * D + chunk * 8;
    if (keys.count == TileKeys) {
      TILE_UNROLL
      for (int i = 0; i < TileKeys / rowsAtOnce; ++i) tile::copyAsync<16>(toFirst, i * rowsAtOnce * 64, from + i * rowsAtOnce * D);
    } else {
      const int64_t secondAt = (int64_t{keys.second} - keys.count - keys.first) * D;  // from where the first run would go on
      const int count = keys.count - firstRow, all = keys.keys() - firstRow;
      TILE_UNROLL_BY(4)
      for (int i = 0; i < TileKeys / rowsAtOnce; ++i) {
        const bool inside = tile::within(i * rowsAtOnce, all);
        const Bf16* source = from + i * rowsAtOnce * D + (i * rowsAtOnce < count ? 0 : secondAt);
        tile::copyAsync<16>(toFirst, i * rowsAtOnce * 64, inside ? source : rows, inside ? 16 : 0);
      }
    }
  }

  /// Over those of the turn before. A warp copies a quarter of the rows, each by D/8 lanes.
  static TILE_DEVICE void fetchQueries(const AttendJob<Bf16>& x, const Work& work, int entry, int target, int warp, int turn) {
    static_assert(kTileRows == producers);
    const auto queries = tile::sharedWindow<Bf16>(0, kTileRows * D);
    const int lane = tile::laneIndex(), chunk = lane % chunks, mine = Work::position(entry);
    targetWindow(turn).set(warp * 32 + lane, target);
    if (warp == 0 && lane == 0) {
      targetWindow(turn).set(kTileRows, work.head);
      targetWindow(turn).set(kTileRows + 1, static_cast<int>(work.first));
    }
    TILE_UNROLL_BY(4)
    for (int row = lane / chunks; row < 32; row += 32 / chunks) {
      const int position = tile::shuffle(mine, row);
      tile::copyAsync<16>(queries, tile::swizzled(warp * 32 + row, chunk, kTileRows), x.q + (int64_t{work.head} * x.queries + (position < 0 ? 0 : position)) * D + chunk * 8,
                          position < 0 ? 0 : 16);
    }
  }

  /// What a thread holds of its two rows, [0] and [1] eight below, as wgmma lays out accumulators: element 4n + 2·row + e is column
  /// 8n + 2·(lane % 4) + e.
  struct Rows {
    float logits[TileKeys / 2], out[D / 2];
    float most[2] = {-3.0e38f, -3.0e38f}, total[2] = {0, 0};
    float keep[2];                        ///< what `out` has to be multiplied with before the next weights' products are added
    bool rescale = false;                 ///< whether that is more than ones, in any row of the warp
    uint32_t weights[TileKeys / 16][4];
  };

  /// Logits become weights relative to each row's reference, about its maximum.
  static TILE_DEVICE void weigh(Rows& rows, const Note& note, int warp, float scale) {
    const int lane = tile::laneIndex(), pair = lane % 4 * 2, firstRow = warp % 2 * 16 + lane / 4;
    if (!note.full(warp))
      TILE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const KeyTile::Run run = note.attended(firstRow + half * 8);
        TILE_UNROLL
        for (int n = 0; n < TileKeys / 8; ++n)
          TILE_UNROLL
          for (int e = 0; e < 2; ++e)
            if (!run.has(n * 8 + pair + e)) rows.logits[n * 4 + half * 2 + e] = -3.4e38f;
      }
    TILE_UNROLL
    for (int half = 0; half < 2; ++half) {
      float high = rows.most[half];
      TILE_UNROLL
      for (int n = 0; n < TileKeys / 8; ++n) high = tile::maximum(high, tile::maximum(rows.logits[n * 4 + half * 2], rows.logits[n * 4 + half * 2 + 1]));
      high = tile::maximum(high, tile::shuffleXor(high, 1));
      high = raised(rows.most[half], tile::maximum(high, tile::shuffleXor(high, 2)), scale);
      rows.keep[half] = tile::exponential2((rows.most[half] - high) * scale);
      rows.most[half] = high;
      const float shift = high * scale;
      float sum = rows.total[half] * rows.keep[half];
      TILE_UNROLL
      for (int n = 0; n < TileKeys / 8; ++n)
        TILE_UNROLL
        for (int e = 0; e < 2; ++e) {
          float& logit = rows.logits[n * 4 + half * 2 + e];
          logit = tile::exponential2(tile::fma(logit, scale, -shift));
          sum += logit;
        }
      rows.total[half] = sum;
    }
    rows.rescale = tile::ballot(rows.keep[0] != 1 || rows.keep[1] != 1) != 0;
  }

  /// The weights as the first operand of the products with the values.
  static TILE_DEVICE void packWeights(Rows& rows) {
    TILE_UNROLL
    for (int step = 0; step < TileKeys / 16; ++step)
      TILE_UNROLL
      for (int j = 0; j < 4; ++j) rows.weights[step][j] = tile::packBf16(rows.logits[step * 8 + j * 2], rows.logits[step * 8 + j * 2 + 1]);
  }

  static TILE_DEVICE void startLogits(Rows& rows, int group, int slot) {
    const tile::Operand query = tile::operand(tile::sharedWindow<Bf16>(0, kTileRows * D), group * groupRows * 64), key = tile::operand(slotWindow(slot), 0);
    tile::fenceProducts(rows.logits);
    TILE_UNROLL
    for (int step = 0; step < D / 16; ++step)
      tile::multiplyAsync(rows.logits, query.from(step / 4 * kTileRows * 64 + step % 4 * 16), key.from(step / 4 * TileKeys * 64 + step % 4 * 16), step > 0);
    tile::commitProducts();
  }

  static TILE_DEVICE void startOut(Rows& rows, int slot) {
    if (rows.rescale)
      TILE_UNROLL
      for (int i = 0; i < D / 2; ++i) rows.out[i] *= rows.keep[i / 2 % 2];
    const tile::Operand value = tile::operand(slotWindow(slot), 0, TileKeys * 128);
    tile::fenceProducts(rows.out, rows.weights);
    TILE_UNROLL
    for (int step = 0; step < TileKeys / 16; ++step) tile::multiplyAsyncByRows(rows.out, rows.weights[step], value.from(step * 16 * 64));
    tile::commitProducts();
  }

  static TILE_DEVICE void consume(const Arguments& a, int warp) {
    const int group = warp / 4, lane = tile::laneIndex();
    const auto phases = barrierWindow();
    Place place;
    const auto wait = [&](const Place& at) { tile::waitPhase(phases, filled + at.slot, at.parity); };
    const auto release = [&](int slot) {
      if (lane == 0) tile::arrivePhase(phases, emptied + slot);
    };
    // One turn per tile and warpgroup, the first warpgroup's before the second's.
    int turnParity = group == 0 ? 1 : 0;
    const auto takeTurn = [&] {
      tile::waitPhase(phases, turns + group, turnParity);
      turnParity ^= 1;
    };
    const auto passTurn = [&] {
      if (lane == 0) tile::arrivePhase(phases, turns + 1 - group);
    };

    for (int turn = 0;; turn ^= 1) {
      tile::waitPhase(phases, queriesFilled, turn);
      if (workWindow(turn).get(0) < 0) return;
      Rows rows;
      TILE_UNROLL
      for (int i = 0; i < D / 2; ++i) rows.out[i] = 0;
      bool holding = true;  // the queries
      const auto letGo = [&] {
        holding = false;
        tile::warpBarrier();  // all lanes know their work
        if (lane == 0) tile::arrivePhase(phases, queriesEmptied);
      };
      for (bool last = false; !last;) {
        wait(place);
        Note note = Note::read(place.slot, warp / 2);
        if (note.idle()) {
          tile::warpBarrier();  // all lanes have read the note
          release(place.slot);
          place.advance();
          wait(place);
          release(place.slot);
          place.advance();
          takeTurn();
          passTurn();
          last = note.last();
          continue;
        }
        // Tiles in a row that rows of this warpgroup attend to. Their values are multiplied one tile late, beside the next logits;
        // before idle tiles pass nothing may be late, or the ring would fill up behind it.
        takeTurn();
        startLogits(rows, group, place.slot);
        passTurn();
        tile::waitProducts<0>(rows.logits);
        release(place.slot);
        if (note.last()) letGo();
        weigh(rows, note, warp, a.scale);
        packWeights(rows);
        place.advance();
        Place values = place;
        place.advance();
        bool more = note.more();
        if (more) wait(place);  // and so for the values, which lie before these keys in the ring
        while (more) {
          note = Note::read(place.slot, warp / 2);
          takeTurn();
          startLogits(rows, group, place.slot);
          startOut(rows, values.slot);
          passTurn();
          tile::waitProducts<1>(rows.logits);
          release(place.slot);
          if (note.last()) letGo();
          weigh(rows, note, warp, a.scale);
          place.advance();
          const Place justWeighed = place;
          place.advance();
          more = note.more();
          if (more) wait(place);                         // here, because its branch keeps the next wait from moving before the weighing
          tile::waitProducts<0>(rows.out, rows.logits);  // new weights take the registers of those just multiplied
          release(values.slot);
          values = justWeighed;
          packWeights(rows);
        }
        last = note.last();
        wait(values);
        startOut(rows, values.slot);
        tile::waitProducts<0>(rows.out);
        release(values.slot);
      }
      if (holding) letGo();
      const auto targets = targetWindow(turn);
      const int head = targets.get(kTileRows), firstRow = targets.get(kTileRows + 1);
      TILE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int row = warp * 16 + half * 8 + lane / 4;
        finishRow<D>(a, head, firstRow + row, targets.get(row), rows.most[half], rows.total[half], [&](int n, int e) { return rows.out[n * 4 + half * 2 + e]; });
      }
    }
  }
};

// About 0.1 s at a quarter of the H200's data sheet.
constexpr double kFlopsPerLaunch = 2.5e13;

template <int D>
void launchWidth(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  if (job.cells) zeroWords(stream, job.nextCell, job.heads);
  byHeads(stream, job, kFlopsPerLaunch, between, [&](int head, int heads) {
    const int tiles = heads * tile::divideUp(job.queries, kTileRows) * (job.cells ? job.chunks : 1), blocks = std::min(tiles, tile::multiprocessors(stream));
    const FlashArguments arguments = FlashArguments::of(job, head, heads);
    if (job.cells) return tile::launch<Hopper<D, true>>(stream, {blocks}, Hopper<D, true>::sharedBytes, arguments);
    tile::launch<Hopper<D, false>>(stream, {blocks}, Hopper<D, false>::sharedBytes, arguments);
  });
}

}  // namespace

void attendHopper(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  if (job.paddedDim == 64) return launchWidth<64>(stream, job, between);
  if (job.paddedDim == 128) return launchWidth<128>(stream, job, between);
  throw Error(ErrorCode::Unsupported, "attention by wgmma takes heads padded to 64 or 128 channels");
}

}  // namespace vmoba::cuda
