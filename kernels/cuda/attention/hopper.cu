// bf16 attention by wgmma, for Hopper (sm_90a). Thread blocks stay for many pieces of work: 128 query rows and the blocks of keys they attend
// to. One warpgroup fetches: a warp has the copy engine bring keys and values into a ring of slots, two warps gather queries, a piece ahead.
// Two other warpgroups of 64 query rows each consume them, in one unbroken line of tiles: while a warpgroup weighs the logits of one tile of
// keys, the tensor cores multiply its previous weights with their values, also where the tile is the first of the next piece and the values
// are the last of the piece before.
// A block's last tile of keys has products of its own width, so that a block that does not fill its tiles wastes little; in wide tiles, which
// the blocks of common sizes fill, all products are alike.
#include "kernels/cuda/attention/hopper_attend.h"
#include "kernels/cuda/attention/hopper_fetch.h"

namespace vmoba::cuda {
namespace {

/// One that is Bounded does its work only where areBounded is true, the others only where it is false.
template <int D, bool Sparse, int TileKeys, int LastKeys, bool Whole, bool Bounded>
struct Hopper {
  using Shape = HopperShape<D, Sparse, TileKeys, LastKeys, Whole, Bounded>;
  using Arguments = typename Shape::Arguments;
  static constexpr const char* name = Sparse ? "block-sparse attention on Hopper" : "dense attention on Hopper";
  static constexpr bool warpgroups = true;
  static constexpr int threads = Shape::threads, blocksPerSM = 1, sharedBytes = Shape::sharedBytes;
  static constexpr int registersToFetch = 56, registersToAttend = 224;  // (56 + 2·224) · 128 = the 64,512 a block of 384 threads starts with

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
    if (areBounded(a.of) != Shape::Bounded) return;
    const int warp = static_cast<int>(tile::uniform(static_cast<uint32_t>(tile::warpIndex())));
    const auto phases = Shape::barrierWindow();
    if (tile::threadIndex() == 0) {
      TILE_UNROLL
      for (int slot = 0; slot < Shape::slots; ++slot) {
        tile::initPhase(phases, Shape::filled + slot, 1);
        tile::initPhase(phases, Shape::emptied + slot, Shape::consumers / 32);
      }
      TILE_UNROLL
      for (int i = 0; i < 2; ++i) {
        tile::initPhase(phases, Shape::queriesFilled + i, kTileRows / Shape::groupRows);
        tile::initPhase(phases, Shape::queriesEmptied + i, Shape::consumers / 32);
        tile::initPhase(phases, Shape::workKnown + i, 1);
      }
      tile::fenceAsyncProxy();  // the copy engine arrives at them
    }
    tile::barrier();
    if (warp >= Shape::consumers / 32) {
      tile::keepRegisters<registersToFetch>();
      const int helper = warp - Shape::consumers / 32;
      if (helper == 0) HopperFetch<Shape>::fetchKeys(a);
      if (helper == 1 || helper == 2) HopperFetch<Shape>::fetchQueries(a.of, helper - 1);
    } else {
      tile::claimRegisters<registersToAttend>();
      HopperConsumer<Shape>(a.of, warp).run();
    }
  }
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

template <int D, bool Sparse, int TileKeys, int LastKeys, bool Whole = false>
void launch(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  using Kernel = Hopper<D, Sparse, TileKeys, LastKeys, Whole, false>;
  using Bounded = Hopper<D, Sparse, TileKeys, LastKeys, Whole, true>;
  using Shape = typename Kernel::Shape;
  const auto boxes = [&](const Bf16* matrix, int keys) { return tile::rowBoxes(matrix, int64_t{job.heads} * job.keys, D, keys); };
  const tile::RowBoxes keys = boxes(job.k, TileKeys), lastKeys = boxes(job.k, LastKeys), values = boxes(job.v, Shape::template valueRows<TileKeys>),
                       lastValues = boxes(job.v, Shape::template valueRows<LastKeys>);
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
  constexpr int narrow = kHopperKeys, wide = kWideHopperKeys;
  const bool sparse = job.cells != nullptr;
  if (D == 128 && isWhole(job)) {
    if (job.tileKeys == wide) return sparse ? launch<128, true, wide, wide, true>(stream, job, between) : launch<128, false, wide, wide, true>(stream, job, between);
    if (!sparse) return launch<128, false, narrow, narrow, true>(stream, job, between);
    switch (job.lastKeys > 0 ? hopperLastWidth(job.lastKeys) : narrow) {
      case 32: return launch<128, true, narrow, 32, true>(stream, job, between);
      case 64: return launch<128, true, narrow, 64, true>(stream, job, between);
      case 80: return launch<128, true, narrow, 80, true>(stream, job, between);
      case 96: return launch<128, true, narrow, 96, true>(stream, job, between);
      default: return launch<128, true, narrow, narrow, true>(stream, job, between);
    }
  }
  sparse ? launch<D, true, narrow, narrow>(stream, job, between) : launch<D, false, narrow, narrow>(stream, job, between);
}

}  // namespace

void attendHopper(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  if (job.queries <= 0 || job.keys <= 0) throw Error(ErrorCode::Internal, "attention needs queries and keys");
  if (job.paddedDim == 64) return launchWidth<64>(stream, job, between);
  if (job.paddedDim == 128) return launchWidth<128>(stream, job, between);
  throw Error(ErrorCode::Unsupported, "attention by wgmma takes heads padded to 64 or 128 channels");
}

}  // namespace vmoba::cuda
