#include "kernels/cuda/attention/packing.h"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {
namespace {

struct BuildVisits {
  static constexpr const char* name = "build visits";
  static constexpr int threads = kTileRows, blocksPerSM = 8;
  static constexpr int sharedBytes = kTileRows * 4;
  struct Arguments {
    PlanView plan;
    const uint32_t* selection;
    Packing packing;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int tileIndex = tile::blockIndex().x, head = tile::blockIndex().y, tiles = a.plan.tiles();
    const int64_t cell = int64_t{head} * tiles + tileIndex;
    const int row = tile::threadIndex(), lane = tile::laneIndex(), warp = tile::warpIndex();
    const auto masks = tile::sharedWindow<uint32_t>(0, kTileRows);
    const int position = a.packing.order[cell * kTileRows + row];
    const int rows = a.plan.tokens - tileIndex * kTileRows;  // of this tile, where fewer than a full one
    int count = 0;
    for (int word = 0; word < a.plan.words(); ++word) {
      const uint32_t bits = position >= 0 ? a.selection[(int64_t{head} * a.plan.tokens + position) * a.plan.words() + word] : 0;
      uint32_t mine = 0;  // of lane j: which rows of the warp select block 32*word + j
      for (int j = 0; j < 32; ++j) {
        const uint32_t votes = tile::ballot(tile::bitOf(bits, j));
        if (lane == j) mine = votes;
      }
      masks.set(row, mine);
      tile::barrier();
      if (warp == 0) {
        Visit visit;
        visit.block = word * 32 + lane;
        uint32_t any = 0;
        TILE_UNROLL
        for (int w = 0; w < kTileWarps; ++w) {
          const int present = rows - w * kWarpRows;
          const uint32_t missing = present >= kWarpRows ? 0 : present <= 0 ? 0xffffffffu : 0xffffffffu << present;
          const uint32_t selecting = masks.get(w * 32 + lane);
          visit.rows[w] = selecting ? selecting | missing : 0;
          any |= selecting;
        }
        const uint32_t votes = tile::ballot(any != 0);
        if (any) a.packing.visits[cell * a.plan.blocks + count + tile::populationCount(votes & ((1u << lane) - 1u))] = visit;
        count += tile::populationCount(votes);
      }
      tile::barrier();
    }
    if (row == 0) a.packing.visitCounts[cell] = count;
  }
};

// Signature of a selection: its words folded into 32 bits, low blocks in the high bits, so that sorting groups rows by the
// first blocks they select, then by the next. Rows that agree on all words keep their spatial order.
TILE_DEVICE uint32_t signature(const uint32_t* words, int count) {
  uint32_t folded = 0;
  for (int i = 0; i < count; ++i) folded = i == 0 ? words[0] : folded ^ (words[i] * 0x9e3779b1u);
  uint32_t reversed = 0;
  for (int bit = 0; bit < 32; ++bit)
    if (tile::bitOf(folded, bit)) reversed |= 0x80000000u >> bit;
  return reversed;
}

// One thread block sorts a head. Each thread keeps a run of consecutive rows; a digit's counts are scanned over
// (digit, thread), so equal digits keep their order.
struct OrderRows {
  static constexpr const char* name = "order rows";
  static constexpr int threads = 256, blocksPerSM = 1, digits = 16;
  static constexpr int sharedBytes = digits * threads * 4 + threads / 32 * 4;
  struct Arguments {
    PlanView plan;
    const uint32_t* selection;
    uint64_t* keys;
    int32_t* order;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int head = tile::blockIndex().x, thread = tile::threadIndex(), tokens = a.plan.tokens;
    int32_t* order = a.order + int64_t{head} * a.plan.tiles() * kTileRows;
    if (!a.keys) {
      for (int row = thread; row < a.plan.tiles() * kTileRows; row += threads) order[row] = row < tokens ? row : -1;
      return;
    }
    const int each = (tokens + threads - 1) / threads;
    const int first = thread * each < tokens ? thread * each : tokens, end = first + each < tokens ? first + each : tokens;
    uint64_t* from = a.keys + int64_t{head} * 2 * tokens;
    uint64_t* to = from + tokens;
    const auto counts = tile::sharedWindow<uint32_t>(0, digits * threads);
    const auto warpSums = tile::sharedWindow<uint32_t>(digits * threads * 4, threads / 32);
    for (int s = first; s < end; ++s) {
      const uint32_t mark = signature(a.selection + (int64_t{head} * tokens + s) * a.plan.words(), a.plan.words());
      from[s] = (static_cast<uint64_t>(mark) << 32) | static_cast<uint32_t>(s);
    }
    for (int shift = 32; shift < 64; shift += 4) {
      tile::barrier();
      for (int digit = 0; digit < digits; ++digit) counts.set(digit * threads + thread, 0u);
      for (int s = first; s < end; ++s) {
        const int at = static_cast<int>((from[s] >> shift) & (digits - 1)) * threads + thread;
        counts.set(at, counts.get(at) + 1);
      }
      tile::barrier();
      // Exclusive scan of digits*threads counts: thread t owns the `digits` consecutive ones from t*digits on.
      uint32_t sum = 0;
      for (int i = 0; i < digits; ++i) sum += counts.get(thread * digits + i);
      uint32_t scan = sum;
      TILE_UNROLL
      for (int delta = 1; delta < 32; delta *= 2) {
        const uint32_t below = tile::shuffleUp(scan, delta);
        if (tile::laneIndex() >= delta) scan += below;
      }
      if (tile::laneIndex() == 31) warpSums.set(tile::warpIndex(), scan);
      tile::barrier();
      uint32_t base = scan - sum;
      for (int w = 0; w < tile::warpIndex(); ++w) base += warpSums.get(w);
      for (int i = 0; i < digits; ++i) {
        const uint32_t count = counts.get(thread * digits + i);
        counts.set(thread * digits + i, base);
        base += count;
      }
      tile::barrier();
      for (int s = first; s < end; ++s) {
        const int at = static_cast<int>((from[s] >> shift) & (digits - 1)) * threads + thread;
        const uint32_t place = counts.get(at);
        counts.set(at, place + 1);
        to[place] = from[s];
      }
      uint64_t* const swap = from;
      from = to;
      to = swap;
    }
    tile::barrier();
    for (int row = thread; row < a.plan.tiles() * kTileRows; row += threads)
      order[row] = row < tokens ? static_cast<int32_t>(from[row] & 0xffffffffu) : -1;
  }
};

}  // namespace

void orderRows(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, uint64_t* keys, int32_t* order) {
  tile::launch<OrderRows>(stream, {heads}, OrderRows::sharedBytes, {plan, selection, keys, order});
}

void buildVisits(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, const Packing& packing) {
  tile::launch<BuildVisits>(stream, {plan.tiles(), heads}, BuildVisits::sharedBytes, {plan, selection, packing});
}

}  // namespace vmoba::cuda
