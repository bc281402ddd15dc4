// bf16 attention by wgmma, for Hopper (sm_90a). Thread blocks stay for many pieces of work: 128 query rows and the blocks of keys they attend
// to. One warpgroup fetches: a warp has the copy engine bring keys and values into a ring of slots, two warps gather queries, a piece ahead.
// Two other warpgroups of 64 query rows each consume them, in one unbroken line of tiles: while a warpgroup weighs the logits of one tile of
// keys, the tensor cores multiply its previous weights with their values, also where the tile is the first of the next piece and the values
// are the last of the piece before.
// A block's last tile of keys has products of its own width, so that a block that does not fill its tiles wastes little.
#include "kernels/cuda/attention/flash_rows.h"
#include "kernels/cuda/attention/key_tiles.h"
#include "kernels/cuda/tile/warpgroup.h"

namespace vmoba::cuda {
namespace {

/// `LastKeys`: width of a block's last tile of keys, a multiple of 16. `Whole`: results are rows of D channels, written 16 bytes at a time; others
/// take so many registers that the line of tiles is broken to write them. `Bounded`: does its work only where areBounded is true, without seeking
/// maxima or rescaling; the others only where it is false.
template <int D, bool Sparse, int LastKeys, bool Whole, bool Bounded>
struct Hopper {
  static constexpr const char* name = Sparse ? "block-sparse attention on Hopper" : "dense attention on Hopper";
  static constexpr bool warpgroups = true;
  static constexpr int groupRows = 64, consumers = kTileRows / groupRows * 128, producers = 128, threads = consumers + producers, blocksPerSM = 1;
  static constexpr int registersToFetch = 56, registersToAttend = 224;  // (56 + 2·224) · 128 = the 64,512 a block of 384 threads starts with
  static constexpr int TileKeys = kHopperKeys, slots = 5;               // keys and values by turns
  static constexpr int chunks = D / 8, panels = D / 64;                 // 16-byte pieces of a row; 128-byte ones
  static constexpr int queryElements = kTileRows * D, slotElements = TileKeys * D;
  static constexpr int slotsAt = 2 * queryElements * 2, barriersAt = slotsAt + slots * slotElements * 2;
  static constexpr int filled = 0, emptied = slots, queriesFilled = 2 * slots, queriesEmptied = queriesFilled + 2, workKnown = queriesEmptied + 2, barriers = workKnown + 2;
  static constexpr int worksAt = barriersAt + barriers * 8, workWords = 4;          // of even and odd turns: index of the work, -1 = there is no more
  static constexpr int notesAt = worksAt + 2 * workWords * 4, noteWords = 8;        // one per slot
  static constexpr int targetsAt = notesAt + slots * noteWords * 4, targetTurns = 4, targetWords = kTileRows + 4;  // where each row's result goes; head, first row
  static constexpr int sharedBytes = targetsAt + targetTurns * targetWords * 4;
  static_assert(sharedBytes <= 227 * 1024 && LastKeys <= TileKeys);

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

  /// Logits of at most so much, as powers of two, need no reference: neither weights nor their sums leave the range of floats.
  static constexpr float mostExponent = 64;

  /// Whether no logit can be larger: by the norms of queries and keys.
  static TILE_DEVICE bool areBounded(const FlashArguments& a) {
    const AttendJob<Bf16>& x = a.job;
    if (!x.norms) return false;
    bool bounded = true;
    for (int head = a.firstHead + tile::laneIndex(); head < a.firstHead + a.heads; head += tile::warpLanes)
      bounded = bounded && tile::floatOfBits(x.norms[head]) * tile::floatOfBits(x.norms[x.heads + head]) * a.scale * a.scale <= mostExponent * mostExponent;
    return tile::ballot(!bounded) == 0;
  }

  static TILE_DEVICE void run(const Arguments& a) {
    if (areBounded(a.of) != Bounded) return;
    const int warp = static_cast<int>(tile::uniform(static_cast<uint32_t>(tile::warpIndex())));
    const auto phases = barrierWindow();
    if (tile::threadIndex() == 0) {
      TILE_UNROLL
      for (int slot = 0; slot < slots; ++slot) {
        tile::initPhase(phases, filled + slot, 1);
        tile::initPhase(phases, emptied + slot, consumers / 32);
      }
      TILE_UNROLL
      for (int i = 0; i < 2; ++i) {
        tile::initPhase(phases, queriesFilled + i, kTileRows / groupRows);
        tile::initPhase(phases, queriesEmptied + i, consumers / 32);
        tile::initPhase(phases, workKnown + i, 1);
      }
    }
    tile::barrier();
    if (warp >= consumers / 32) {
      tile::keepRegisters<registersToFetch>();
      const int helper = warp - consumers / 32;
      if (helper == 0) fetchKeys(a);
      if (helper == 1 || helper == 2) fetchQueries(a.of, helper - 1);
    } else {
      tile::claimRegisters<registersToAttend>();
      consume(a.of, warp);
    }
  }

  // Fetching -----------------------------------------------------------------------------------------------------------

  static TILE_DEVICE int firstCellOf(const FlashArguments& a) { return Sparse ? a.job.cellFirst[a.firstHead * a.job.chunks] : 0; }

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
      if constexpr (Sparse) {
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
    TILE_DEVICE int tiles() const { return tile::warpSum(tile::laneIndex() < visits ? (length + TileKeys - 1) / TileKeys : 0); }
    /// Of this lane's visit, one bit for each consuming warpgroup.
    TILE_DEVICE uint32_t idle() const { return (rows[0] | rows[1] ? 0u : 1u) | (rows[2] | rows[3] ? 0u : 2u); }
  };

  static TILE_DEVICE void fetchKeys(const Arguments& a) {
    const AttendJob<Bf16>& x = a.of.job;
    const auto phases = barrierWindow();
    const int count = Work::count(x, a.of.firstHead, a.of.heads), firstCell = firstCellOf(a.of);
    const bool first = tile::laneIndex() == 0;
    const int lastFrom = count < HopperTurns::lastCells ? 0 : count - HopperTurns::lastCells;
    int upcoming = tile::blockIndex().x;
    const auto ask = [&] {
      if constexpr (Sparse) {
        if (first) upcoming = static_cast<int>(tile::atomicAdd(&x.turns->taken, 1u)) + tile::gridExtent().x;
      } else {
        upcoming += tile::gridExtent().x;
      }
    };
    // What is asked for is known later, and what it is later still: nothing waits for memory, and no block has much before it at the end.
    constexpr int askBefore = 5, learnBefore = 4;
    int index = 0, turn = 0;
    const auto learn = [&](int ofTurn) {
      index = tile::shuffle(upcoming, 0);
      if (!tile::within(index, count)) index = -1;
      if (Sparse && index >= lastFrom) index = x.turns->last[index - lastFrom];
      tile::waitPhase(phases, queriesFilled + (ofTurn & 1), (ofTurn >> 1 & 1) ^ 1);  // those who gather queries are done with the turn that this replaces
      if (first) {
        workWindow(ofTurn).set(0, index);
        tile::arrivePhase(phases, workKnown + (ofTurn & 1));
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
        for (int done = 0; done < length; done += TileKeys, --left) {
          if (left == askAt) ask();
          if (left == learnAt) next = learn(turn + 1);
          const bool end = done + TileKeys >= length, last = left == 1;
          const uint32_t more = last ? (index < 0 ? 0 : 3 & ~tile::shuffle(next.idle(), 0)) : 3 & ~(end ? idleThen : idle);
          TILE_UNROLL
          for (int part = 0; part < 2; ++part) {
            tile::waitPhase(phases, emptied + filling.slot, filling.parity ^ 1);
            if (first) {
              if (part == 0) {
                const auto note = noteWindow(filling.slot);
                note.set(0, idle * Note::idleBit | more * Note::moreBit | (end ? Note::endBit : 0) | (last ? Note::lastBit : 0) |
                                static_cast<uint32_t>(end ? length - done : TileKeys) << Note::keysShift);
                TILE_UNROLL
                for (int word = 0; word < kTileWarps; ++word) note.set(1 + word, rows[word]);
              }
              tile::expectBytes(phases, filled + filling.slot, (end ? LastKeys : TileKeys) * D * 2);
              const tile::RowBoxes& boxes = part == 0 ? (end ? a.lastKeys : a.keys) : end ? a.lastValues : a.values;
              TILE_UNROLL
              for (int panel = 0; panel < panels; ++panel) tile::fetchBox(slotWindow(filling.slot), panel * TileKeys * 64, boxes, panel, from + done, phases, filled + filling.slot);
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
    const auto phases = barrierWindow();
    const int lane = tile::laneIndex(), chunk = lane % chunks, firstCell = firstCellOf(a);
    for (int turn = 0;; ++turn) {
      tile::waitPhase(phases, workKnown + (turn & 1), turn >> 1 & 1);
      const int index = workWindow(turn).get(0);
      Work work;
      int entry[2], target[2];
      if (index >= 0) {
        if constexpr (Sparse) {
          const Cell& cell = x.cells[firstCell + index];
          work = {cell.head, cell.first, &cell};
        } else {
          work = Work::at(x, a.firstHead, index);
        }
        TILE_UNROLL
        for (int half = 0; half < 2; ++half) entry[half] = work.entry(x, group * groupRows + half * 32 + lane);
        TILE_UNROLL
        for (int half = 0; half < 2; ++half) target[half] = work.target(x, a.firstHead, group * groupRows + half * 32 + lane, entry[half]);
      }
      tile::waitPhase(phases, queriesEmptied + (turn & 1), (turn >> 1 & 1) ^ 1);
      const auto targets = targetWindow(turn);
      if (group == 0 && lane == 0) {
        targets.set(kTileRows, index < 0 ? -1 : work.head);
        targets.set(kTileRows + 1, static_cast<int>(work.first));
      }
      if (index >= 0)
        TILE_UNROLL
        for (int half = 0; half < 2; ++half) {
          targets.set(group * groupRows + half * 32 + lane, target[half]);
          const int mine = Work::position(entry[half]);
          TILE_UNROLL_BY(4)
          for (int row = lane / chunks; row < 32; row += 32 / chunks) {
            const int position = tile::shuffle(mine, row);
            tile::copyAsync<16>(queryWindow(turn), tile::swizzled(group * groupRows + half * 32 + row, chunk, kTileRows),
                                x.q + (int64_t{work.head} * x.queries + (position < 0 ? 0 : position)) * D + chunk * 8, position < 0 ? 0 : 16);
          }
        }
      tile::commitCopies();
      tile::waitCopies<0>();
      tile::fenceAsyncProxy();
      tile::warpBarrier();
      if (lane == 0) tile::arrivePhase(phases, queriesFilled + (turn & 1));
      if (index < 0) return;
    }
  }

  // Attending ----------------------------------------------------------------------------------------------------------

  /// What a thread holds of its two rows, [0] and [1] eight below, as wgmma lays out accumulators: element 4n + 2·row + e is column
  /// 8n + 2·(lane % 4) + e.
  struct Rows {
    float out[D / 2];
    float most[2], total[2];              ///< each row's reference, which weights are relative to, and its denominator
    float keep[2];                        ///< what `out` has to be multiplied with before the next weights' products are added
    bool rescale;                         ///< whether that is more than ones, in any row of the warp
    bool empty;                           ///< nothing has been added to `out`, whatever it holds
    uint32_t weights[TileKeys / 16][4];

    TILE_DEVICE void begin() {
      TILE_UNROLL
      for (int half = 0; half < 2; ++half) {
        most[half] = Bounded ? 0.0f : -3.0e38f;
        total[half] = 0;
      }
      empty = true;
    }
  };

  /// One consuming warpgroup's warp.
  struct Consumer {
    const FlashArguments& a;
    const int warp, group, lane;
    int turn = 0;       ///< of the piece of work whose tiles come
    Place place;        ///< of the tile that comes: its keys
    Place values;       ///< of the values that are late
    Rows rows;

    TILE_DEVICE Consumer(const FlashArguments& arguments, int warpOfBlock)
        : a(arguments), warp(warpOfBlock), group(warpOfBlock / 4), lane(tile::laneIndex()) {
      TILE_UNROLL
      for (int i = 0; i < D / 2; ++i) rows.out[i] = 0;
    }

    TILE_DEVICE void wait(const Place& at) const { tile::waitPhase(barrierWindow(), filled + at.slot, at.parity); }
    /// For what the next products read. Not before the sums of weights are known: ptxas would put off the weighing until after the next wait for
    /// products, beside which it is meant to happen.
    TILE_DEVICE void waitForNext() const {
      const int zero = rows.total[0] < 0 || rows.total[1] < 0 ? 1 : 0;
      wait({values.slot, values.parity ^ zero});
      wait(place);
    }
    TILE_DEVICE void release(int slot) const {
      if (lane == 0) tile::arrivePhase(barrierWindow(), emptied + slot);
    }
    TILE_DEVICE void waitQueries() const { tile::waitPhase(barrierWindow(), queriesFilled + (turn & 1), turn >> 1 & 1); }
    TILE_DEVICE void letGoOfQueries() const {
      if (lane == 0) tile::arrivePhase(barrierWindow(), queriesEmptied + (turn & 1));
    }

    /// A tile of keys: what is told of it, and whether it is the first of a piece of work.
    struct Tile {
      Note note;
      bool first;
    };
    TILE_DEVICE Tile read(bool first) const { return {Note::read(place.slot, warp), first}; }

    TILE_DEVICE tile::Operand queryOperand() const { return tile::uniform(tile::operand(queryWindow(0), group * groupRows * 64).from((turn & 1) * queryElements)); }
    TILE_DEVICE tile::Operand keyOperand() const { return tile::uniform(tile::operand(slotWindow(0), 0).from(place.slot * slotElements)); }
    TILE_DEVICE tile::Operand valueOperand() const { return tile::uniform(tile::operand(slotWindow(0), 0, TileKeys * 128).from(values.slot * slotElements)); }

    template <int Keys>
    TILE_DEVICE void startLogits(float (&logits)[Keys / 2], tile::Operand query, tile::Operand key) const {
      tile::fenceProducts(logits);
      TILE_UNROLL
      for (int step = 0; step < D / 16; ++step)
        tile::multiplyAsync(logits, query.from(step / 4 * kTileRows * 64 + step % 4 * 16), key.from(step / 4 * TileKeys * 64 + step % 4 * 16), step > 0);
      tile::commitProducts();
    }

    /// Adds the late weights' products.
    template <int Keys>
    TILE_DEVICE void startOut(tile::Operand value) {
      if (!Bounded && rows.rescale && !rows.empty)
        TILE_UNROLL
        for (int i = 0; i < D / 2; ++i) rows.out[i] *= rows.keep[i / 2 % 2];
      tile::fenceProducts(rows.out, tile::firstFragments<Keys / 16>(rows.weights));
      TILE_UNROLL
      for (int step = 0; step < Keys / 16; ++step) tile::multiplyAsyncByRows(rows.out, rows.weights[step], value.from(step * 16 * 64), step > 0 || !rows.empty);
      tile::commitProducts();
      rows.empty = false;
    }

    /// Logits become weights relative to each row's reference, about its maximum or 1; those of keys past the block's end, and all of a row
    /// that does not attend to the block, become zero.
    template <int Keys>
    TILE_DEVICE void weigh(float (&logits)[Keys / 2], const Note& note) {
      const int pair = lane % 4 * 2, firstRow = warp % 2 * 16 + lane / 4;
      constexpr bool ends = Keys == LastKeys;  // whether a block may end in it
      if (ends && note.keys() < Keys)
        TILE_UNROLL
        for (int n = 0; n < Keys / 8; ++n)
          if (note.keys() < n * 8 + 8)
            TILE_UNROLL
            for (int e = 0; e < 4; ++e)
              if (!tile::within(n * 8 + pair + e % 2, note.keys())) logits[n * 4 + e] = -3.4e38f;
      TILE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const bool attends = !Sparse || tile::bitOf(note.rows, firstRow + half * 8);
        if (!Bounded) raise<Keys>(logits, half, attends);
        const float shift = attends ? rows.most[half] * a.scale : 3.4e38f;
        float sum = rows.total[half];
        TILE_UNROLL
        for (int n = 0; n < Keys / 8; ++n) {
          float &first = logits[n * 4 + half * 2], &second = logits[n * 4 + half * 2 + 1];
          first = tile::exponential2(tile::fma(first, a.scale, -shift));
          second = tile::exponential2(tile::fma(second, a.scale, -shift));
          if (Bounded) {  // summed as they are multiplied, so that what rounding takes from large ones cancels; relative to a maximum those are about one
            const uint32_t rounded = tile::packBf16(first, second);
            first = tile::lowFloat(rounded);
            second = tile::highFloat(rounded);
          }
          sum += first;
          sum += second;
        }
        rows.total[half] = sum;
      }
      if (!Bounded) rows.rescale = tile::ballot(rows.keep[0] != 1 || rows.keep[1] != 1) != 0;
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
      high = !attends ? rows.most[half] : Sparse ? tile::maximum(rows.most[half], high) : raised(rows.most[half], high, a.scale);
      rows.keep[half] = tile::exponential2((rows.most[half] - high) * a.scale);
      rows.most[half] = high;
      rows.total[half] *= rows.keep[half];
    }

    /// The weights as the first operand of the products with the values.
    template <int Keys>
    TILE_DEVICE void packWeights(const float (&logits)[Keys / 2]) {
      TILE_UNROLL
      for (int step = 0; step < Keys / 16; ++step)
        TILE_UNROLL
        for (int j = 0; j < 4; ++j) rows.weights[step][j] = tile::packBf16(logits[step * 8 + j * 2], logits[step * 8 + j * 2 + 1]);
    }

    /// Writes what the piece of work of turn `ended` comes to.
    TILE_DEVICE void finish(int ended, const float (&most)[2], const float (&total)[2]) const {
      const auto targets = targetWindow(ended);
      const int head = targets.get(kTileRows), firstRow = targets.get(kTileRows + 1);
      TILE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int row = warp * 16 + half * 8 + lane / 4;
        finishRow<D, Whole>(a, head, firstRow + row, targets.get(row), most[half], total[half], [&](int n, int e) { return rows.out[n * 4 + half * 2 + e]; });
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
      if (Whole && tile.first) rows.begin();
      weigh<Keys>(logits, tile.note);
      const Tile next = advance(tile);
      tile::waitProducts<0>(rows.out, logits);  // new weights take the registers of those just multiplied
      release(late);
      packWeights<Keys>(logits);
      if (Whole && tile.first) finish(ended, most, total);
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
      tile::warpBarrier();  // all lanes have read the note
      release(place.slot);
      place.advance();
      wait(place);
      release(place.slot);
      place.advance();
      if (note.last()) letGoOfQueries();
    }

    TILE_DEVICE void run() {
      for (bool between = true;;) {  // pieces of work
        if (between) {
          waitQueries();
          if (tile::uniform(targetWindow(turn).get(kTileRows) < 0)) return;
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
          tile = lateEnd ? firstTile<LastKeys>(tile) : firstTile<TileKeys>(tile);
          while (more) {
            tile.note = tile.note.uniform();
            const bool end = tile.note.end();
            last = tile.note.last();
            more = tile.note.more(group);
            if (LastKeys == TileKeys) {
              tile = nextTile<TileKeys, TileKeys>(tile);
            } else if (end) {
              tile = lateEnd ? nextTile<LastKeys, LastKeys>(tile) : nextTile<LastKeys, TileKeys>(tile);
            } else {
              tile = lateEnd ? nextTile<TileKeys, LastKeys>(tile) : nextTile<TileKeys, TileKeys>(tile);
            }
            lateEnd = end;
          }
          lateEnd ? lastValues<LastKeys>() : lastValues<TileKeys>();
        }
        between = last;
        if (!between) continue;
        finish(turn, rows.most, rows.total);
        ++turn;
      }
    }
  };

  static TILE_DEVICE void consume(const FlashArguments& a, int warp) { Consumer(a, warp).run(); }
};

struct OrderLastCells {
  static constexpr const char* name = "order the last cells";
  static constexpr int threads = HopperTurns::lastCells, blocksPerSM = 1, warps = threads / 32, classes = kChunkBlocks;
  static constexpr int sharedBytes = classes * warps * 4;
  struct Arguments {
    AttendJob<Bf16> job;
    int32_t firstHead, heads;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const AttendJob<Bf16>& x = a.job;
    const int count = Work::count(x, a.firstHead, a.heads), from = count < threads ? 0 : count - threads, cell = from + tile::threadIndex();
    const int kind = tile::within(cell, count) ? classes - x.cells[x.cellFirst[a.firstHead * x.chunks] + cell].visitCount : -1;
    const auto counts = tile::sharedWindow<int32_t>(0, classes * warps);
    uint32_t alike = 0;
    TILE_UNROLL
    for (int i = 0; i < classes; ++i) {
      const uint32_t votes = tile::ballot(kind == i);
      if (kind == i) alike = votes;
      if (tile::laneIndex() == 0) counts.set(i * warps + tile::warpIndex(), tile::populationCount(votes));
    }
    tile::barrier();
    if (tile::threadIndex() == 0) x.turns->taken = 0;
    if (kind < 0) return;
    int place = tile::populationCount(alike & ((1u << tile::laneIndex()) - 1u));
    for (int i = 0; i < kind * warps + tile::warpIndex(); ++i) place += counts.get(i);
    x.turns->last[place] = cell;
  }
};

// About 0.1 s at a quarter of the H200's data sheet.
constexpr double kFlopsPerLaunch = 2.5e13;

template <int D, bool Sparse, int LastKeys, bool Whole = false>
void launch(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  using Kernel = Hopper<D, Sparse, LastKeys, Whole, false>;
  using Bounded = Hopper<D, Sparse, LastKeys, Whole, true>;
  const auto boxes = [&](const Bf16* matrix, int keys) { return tile::rowBoxes(matrix, int64_t{job.heads} * job.keys, D, keys); };
  const tile::RowBoxes keys = boxes(job.k, Kernel::TileKeys), lastKeys = boxes(job.k, LastKeys), values = boxes(job.v, Kernel::TileKeys), lastValues = boxes(job.v, LastKeys);
  byHeads(stream, job, kFlopsPerLaunch, between, [&](int head, int heads) {
    const int tiles = heads * tile::divideUp(job.queries, kTileRows) * (Sparse ? job.chunks : 1), blocks = std::min(tiles, tile::multiprocessors(stream));
    const FlashArguments arguments = FlashArguments::of(job, head, heads);
    if (Sparse) tile::launch<OrderLastCells>(stream, {1}, OrderLastCells::sharedBytes, {job, head, heads});
    if (job.norms) tile::launch<Bounded>(stream, {blocks}, Bounded::sharedBytes, {arguments, keys, lastKeys, values, lastValues});
    tile::launch<Kernel>(stream, {blocks}, Kernel::sharedBytes, {arguments, keys, lastKeys, values, lastValues});
  });
}

template <int D>
void launchWidth(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  if (!job.cells) return D == 128 && isWhole(job) ? launch<128, false, kHopperKeys, true>(stream, job, between) : launch<D, false, kHopperKeys>(stream, job, between);
  const int last = job.lastKeys > 0 ? job.lastKeys : kHopperKeys;
  if (D == 128 && isWhole(job)) {
    if (last <= 32) return launch<128, true, 32, true>(stream, job, between);
    if (last <= 64) return launch<128, true, 64, true>(stream, job, between);
    if (last <= 80) return launch<128, true, 80, true>(stream, job, between);
    if (last <= 96) return launch<128, true, 96, true>(stream, job, between);
    return launch<128, true, kHopperKeys, true>(stream, job, between);
  }
  launch<D, true, kHopperKeys>(stream, job, between);
}

}  // namespace

void attendHopper(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  if (job.paddedDim == 64) return launchWidth<64>(stream, job, between);
  if (job.paddedDim == 128) return launchWidth<128>(stream, job, between);
  throw Error(ErrorCode::Unsupported, "attention by wgmma takes heads padded to 64 or 128 channels");
}

}  // namespace vmoba::cuda
