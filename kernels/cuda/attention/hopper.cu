// bf16 attention by wgmma, for Hopper (sm_90a). One warpgroup fetches keys and values into a ring of slots, two others of 64 query
// rows each consume them. While a warpgroup weighs the logits of one tile of keys, the tensor cores multiply its previous weights
// with their values, and the other warpgroup's products fill the rest: the two take turns at starting products, so that one's
// weighing falls together with the other's products.
#include "kernels/cuda/attention/flash_rows.h"
#include "kernels/cuda/attention/key_tiles.h"
#include "kernels/cuda/tile/warpgroup.h"

namespace vmoba::cuda {
namespace {

template <int D, bool Sparse>
struct Hopper {
  static constexpr const char* name = Sparse ? "block-sparse attention on Hopper" : "dense attention on Hopper";
  static constexpr bool warpgroups = true;
  static constexpr int groupRows = 64, consumers = kTileRows / groupRows * 128, producers = 128, threads = consumers + producers, blocksPerSM = 1;
  static constexpr int registersToFetch = 40, registersToAttend = 232;  // (40 + 2·232) · 128 of the 65,536
  static constexpr int TileKeys = 128, slots = 6;  // 3 tiles of keys and 3 of values, by turns
  static constexpr int lag = 2;                    // slots being fetched before the oldest of them is waited for
  static constexpr int chunks = D / 8;             // 16-byte pieces of a row
  static constexpr int slotElements = TileKeys * D, slotsAt = kTileRows * D * 2, barriersAt = slotsAt + slots * slotElements * 2;
  static constexpr int filled = 0, emptied = slots, queriesReady = 2 * slots, turns = queriesReady + 1, barriers = turns + 2;
  static constexpr int sharedBytes = barriersAt + barriers * 8;

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

  static TILE_DEVICE int positionOf(const AttendJob<Bf16>& x, int64_t cell, int row) {
    if constexpr (Sparse) return x.order[cell * kTileRows + row];
    const int position = tile::blockIndex().x * kTileRows + row;
    return tile::within(position, x.queries) ? position : -1;
  }

  static TILE_DEVICE void run(const Arguments& a) {
    const AttendJob<Bf16>& x = a.job;
    const int head = a.firstHead + tile::blockIndex().y, warp = tile::shuffle(tile::warpIndex(), 0);
    const int64_t cell = int64_t{head} * ((x.queries + kTileRows - 1) / kTileRows) + tile::blockIndex().x;
    const auto phases = barrierWindow();
    if (tile::threadIndex() == 0) {
      TILE_UNROLL
      for (int slot = 0; slot < slots; ++slot) {
        tile::initPhase(phases, filled + slot, producers / 32);
        tile::initPhase(phases, emptied + slot, consumers / 32);
      }
      tile::initPhase(phases, queriesReady, consumers);
      for (int group = 0; group < 2; ++group) tile::initPhase(phases, turns + group, consumers / 32 / 2);
    }
    tile::barrier();
    if (warp >= consumers / 32) {
      tile::keepRegisters<registersToFetch>();
      produce(x, head, cell);
    } else {
      tile::claimRegisters<registersToAttend>();
      consume(a, head, cell, warp);
    }
  }

  static TILE_DEVICE void produce(const AttendJob<Bf16>& x, int head, int64_t cell) {
    const auto phases = barrierWindow();
    Place filling, filledUpTo;
    int inFlight = 0;
    // What this warp copied to the oldest slot in flight has arrived: the consumers may have it.
    const auto release = [&] {
      tile::fenceAsyncProxy();
      tile::warpBarrier();
      if (tile::laneIndex() == 0) tile::arrivePhase(phases, filled + filledUpTo.slot);
      filledUpTo.advance();
      --inFlight;
    };
    KeyWalk<TileKeys> walk(x.keys, cell, 0);
    for (KeyTile keys = walk.next(); keys.keys() > 0; keys = walk.next())
      TILE_UNROLL
      for (int part = 0; part < 2; ++part) {
        const Bf16* rows = (part == 0 ? x.k : x.v) + int64_t{head} * x.keys.count * D;
        tile::waitPhase(phases, emptied + filling.slot, filling.parity ^ 1);
        fetch(slotWindow(filling.slot), rows, keys);
        filling.advance();
        ++inFlight;
        if (inFlight <= lag) continue;
        tile::waitCopies<lag>();
        release();
      }
    tile::waitCopies<0>();
    while (inFlight > 0) release();
  }

  static TILE_DEVICE void fetch(tile::Shared<Bf16> to, const Bf16* rows, const KeyTile& keys) {
    const int thread = tile::threadIndex() - consumers, chunk = thread % chunks, firstRow = thread / chunks;
    constexpr int rowsAtOnce = producers / chunks;
    if (keys.count == TileKeys) {
      const Bf16* from = rows + (int64_t{keys.first} + firstRow) * D + chunk * 8;
      TILE_UNROLL
      for (int i = 0; i < TileKeys / rowsAtOnce; ++i) tile::copyAsync<16>(to, tile::swizzled(firstRow + i * rowsAtOnce, chunk, TileKeys), from + i * rowsAtOnce * D);
    } else {
      TILE_UNROLL_BY(4)
      for (int i = 0; i < TileKeys / rowsAtOnce; ++i) {
        const int row = firstRow + i * rowsAtOnce;
        const bool inside = tile::within(row, keys.keys());
        tile::copyAsync<16>(to, tile::swizzled(row, chunk, TileKeys), rows + (inside ? int64_t{keys.position(row)} * D : 0) + chunk * 8, inside ? 16 : 0);
      }
    }
    tile::commitCopies();
  }

  static TILE_DEVICE void fetchQueries(const AttendJob<Bf16>& x, int head, int64_t cell, int group) {
    const auto queries = tile::sharedWindow<Bf16>(0, kTileRows * D);
    TILE_UNROLL_BY(2)
    for (int i = 0; i < groupRows * chunks / 128; ++i) {
      const int at = tile::threadIndex() % 128 + i * 128, row = group * groupRows + at / chunks, chunk = at % chunks, position = positionOf(x, cell, row);
      tile::copyAsync<16>(queries, tile::swizzled(row, chunk, kTileRows), x.q + (int64_t{head} * x.queries + (position < 0 ? 0 : position)) * D + chunk * 8, position < 0 ? 0 : 16);
    }
    tile::commitCopies();
    tile::waitCopies<0>();
    tile::fenceAsyncProxy();
    tile::arrivePhase(barrierWindow(), queriesReady);
    tile::waitPhase(barrierWindow(), queriesReady, 0);
  }

  /// What a thread holds of its two rows, [0] and [1] eight below, as wgmma lays out accumulators: element 4n + 2·row + e is column
  /// 8n + 2·(lane % 4) + e.
  struct Rows {
    float logits[TileKeys / 2], out[D / 2];
    float most[2] = {-3.0e38f, -3.0e38f}, total[2] = {0, 0};
    float keep[2];                        ///< what `out` has to be multiplied with before the next weights' products are added
    uint32_t weights[TileKeys / 16][4];
  };

  /// Logits become weights relative to each row's new maximum.
  static TILE_DEVICE void weigh(Rows& rows, const KeyTile& keys, int warp, float scale) {
    const int lane = tile::laneIndex(), pair = lane % 4 * 2, firstRow = warp % 2 * 16 + lane / 4;
    if (!keys.full(TileKeys, 0xffffu << (warp % 2 * 16)))
      TILE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const KeyTile::Run run = keys.attended(firstRow + half * 8);
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
      high = tile::maximum(high, tile::shuffleXor(high, 2));
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
    TILE_UNROLL
    for (int i = 0; i < D / 2; ++i) rows.out[i] *= rows.keep[i / 2 % 2];
    const tile::Operand value = tile::operand(slotWindow(slot), 0, TileKeys * 128);
    tile::fenceProducts(rows.out, rows.weights);
    TILE_UNROLL
    for (int step = 0; step < TileKeys / 16; ++step) tile::multiplyAsyncByRows(rows.out, rows.weights[step], value.from(step * 16 * 64));
    tile::commitProducts();
  }

  static TILE_DEVICE void consume(const Arguments& a, int head, int64_t cell, int warp) {
    const AttendJob<Bf16>& x = a.job;
    const int group = warp / 4, lane = tile::laneIndex();
    const auto phases = barrierWindow();
    fetchQueries(x, head, cell, group);
    Rows rows;
    TILE_UNROLL
    for (int i = 0; i < D / 2; ++i) rows.out[i] = 0;

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

    KeyWalk<TileKeys, groupRows / kWarpRows> walk(x.keys, cell, warp / 2);
    KeyTile next = walk.next();
    while (next.keys() > 0) {
      if (next.idle()) {
        TILE_UNROLL
        for (int part = 0; part < 2; ++part) {
          wait(place);
          release(place.slot);
          place.advance();
        }
        takeTurn();
        passTurn();
        next = walk.next();
        continue;
      }
      // Tiles in a row that rows of this warpgroup attend to. Their values are multiplied one tile late, beside the next logits;
      // before idle tiles pass nothing may be late, or the ring would fill up behind it.
      KeyTile keys = next;
      wait(place);
      takeTurn();
      startLogits(rows, group, place.slot);
      passTurn();
      next = walk.next();
      tile::waitProducts<0>(rows.logits);
      release(place.slot);
      weigh(rows, keys, warp, a.scale);
      packWeights(rows);
      place.advance();
      Place values = place;
      place.advance();
      bool more = next.keys() > 0 && !next.idle();
      if (more) wait(place);  // and so for the values, which lie before these keys in the ring
      while (more) {
        keys = next;
        takeTurn();
        startLogits(rows, group, place.slot);
        startOut(rows, values.slot);
        passTurn();
        next = walk.next();
        tile::waitProducts<1>(rows.logits);
        release(place.slot);
        weigh(rows, keys, warp, a.scale);
        place.advance();
        const Place justWeighed = place;
        place.advance();
        more = next.keys() > 0 && !next.idle();
        if (more) wait(place);                         // here, because its branch keeps the next wait from moving before the weighing
        tile::waitProducts<0>(rows.out, rows.logits);  // new weights take the registers of those just multiplied
        release(values.slot);
        values = justWeighed;
        packWeights(rows);
      }
      wait(values);
      startOut(rows, values.slot);
      tile::waitProducts<0>(rows.out);
      release(values.slot);
    }
    TILE_UNROLL
    for (int half = 0; half < 2; ++half)
      finishRow<D>(a, head, positionOf(x, cell, warp * 16 + half * 8 + tile::laneIndex() / 4), rows.most[half], rows.total[half],
                   [&](int n, int e) { return rows.out[n * 4 + half * 2 + e]; });
  }
};

// About 0.1 s at a quarter of the H200's data sheet.
constexpr double kFlopsPerLaunch = 2.5e13;

template <int D>
void launchWidth(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  job.keys.visits ? launchByHeads<Hopper<D, true>>(stream, job, kFlopsPerLaunch, between) : launchByHeads<Hopper<D, false>>(stream, job, kFlopsPerLaunch, between);
}

}  // namespace

void attendHopper(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  if (job.paddedDim == 64) return launchWidth<64>(stream, job, between);
  if (job.paddedDim == 128) return launchWidth<128>(stream, job, between);
  throw Error(ErrorCode::Unsupported, "attention by wgmma takes heads padded to 64 or 128 channels");
}

}  // namespace vmoba::cuda
