// Two launches. The first ranks what every row selects of every chunk, a byte each, and counts ranks. The second sorts the rows by rank and,
// because the counts alone say where the rows of each rank will lie, builds the cells beside it. Thread blocks hand each other nothing within a launch.
#include "kernels/cuda/attention/packing.h"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {
namespace {

struct PackArguments {
  PlanView plan;
  const uint32_t* selection;
  Packing packing;
  int32_t chunks, sortBlocks;
  TILE_DEVICE int64_t listRows() const { return int64_t{plan.tiles()} * kTileRows; }
  TILE_DEVICE int firstBlock(int chunk) const { return firstBlockOf(chunk, chunks, plan.blocks); }
  TILE_DEVICE uint32_t* countsOf(int list) const { return packing.counts + int64_t{list} * kPatterns * sortBlocks; }
};

constexpr int kThreads = 256, kWarps = kThreads / tile::warpLanes, kRounds = kSortRows / kThreads;

// Patterns, the selected blocks of a chunk as bits, are ranked by the Gray code: neighbours differ in one block, so that a tile across their
// border visits one more. The empty one is 0.
TILE_DEVICE uint32_t rankOf(uint32_t pattern) {
  TILE_UNROLL
  for (int shift = 1; shift < kChunkBlocks; shift *= 2) pattern ^= pattern >> shift;
  return pattern;
}
TILE_DEVICE uint32_t patternOf(uint32_t rank) { return rank ^ rank >> 1; }

// A thread block takes the rows of one sort block and a few chunks: one counter for each thread, and one word holds what a row selects of them.
struct RankRows {
  static constexpr const char* name = "rank rows";
  static constexpr int threads = kThreads, blocksPerSM = 5, chunksTogether = threads / kPatterns;
  static constexpr int sharedBytes = threads * 4;
  static_assert(chunksTogether * kChunkBlocks <= 32);
  using Arguments = PackArguments;
  static TILE_DEVICE void run(const Arguments& a) {
    const int sortBlock = tile::blockIndex().x, firstChunk = tile::blockIndex().y * chunksTogether, head = tile::blockIndex().z, thread = tile::threadIndex();
    const int firstBlock = a.firstBlock(firstChunk), words = a.plan.words(), firstRow = sortBlock * kSortRows + thread;
    const auto counts = tile::sharedWindow<uint32_t>(0, threads);
    counts.set(thread, 0u);

    uint32_t low[kRounds] = {}, high[kRounds] = {};  // the two words in which the chunks' bits lie
    int selected[kRounds] = {};
    const uint32_t* rows = a.selection + (int64_t{head} * a.plan.tokens + firstRow) * words;
    for (int word = 0; word < words; ++word) {
      const uint32_t* at = rows + word;
      TILE_UNROLL
      for (int round = 0; round < kRounds; ++round, at += threads * words) {
        const uint32_t bits = tile::within(firstRow + round * threads, a.plan.tokens) ? *at : 0;
        selected[round] += tile::populationCount(bits);
        if (word == firstBlock / 32) low[round] = bits;
        if (word == firstBlock / 32 + 1) high[round] = bits;
      }
    }
    TILE_UNROLL
    for (int round = 0; round < kRounds; ++round) low[round] = static_cast<uint32_t>((uint64_t{high[round]} << 32 | low[round]) >> firstBlock % 32);

    tile::barrier();
    for (int i = 0, from = firstBlock; i < chunksTogether && firstChunk + i < a.chunks; ++i) {
      const int chunk = firstChunk + i, shift = from - firstBlock, to = a.firstBlock(chunk + 1);
      const uint32_t mask = (1u << (to - from)) - 1u;
      from = to;
      uint8_t* ranks = a.packing.ranks + (int64_t{head} * a.chunks + chunk) * a.plan.tokens + firstRow;
      TILE_UNROLL
      for (int round = 0; round < kRounds; ++round) {
        const uint32_t pattern = low[round] >> shift & mask, rank = rankOf(pattern);
        const bool shared = pattern != 0 && tile::populationCount(pattern) != selected[round];
        tile::atomicAdd(counts, i * kPatterns + static_cast<int>(rank), 1u);
        if (tile::within(firstRow + round * threads, a.plan.tokens)) ranks[round * threads] = static_cast<uint8_t>(rank | (shared ? kSharedRank : 0));
      }
    }
    tile::barrier();
    const int rank = thread % kPatterns, chunk = firstChunk + thread / kPatterns;
    if (chunk < a.chunks) a.countsOf(head * a.chunks + chunk)[rank * a.sortBlocks + sortBlock] = rank ? counts.get(thread) : kSortRows - counts.get(thread);
    if (sortBlock + firstChunk + head + thread == 0) *a.packing.visitTotal = 0;
  }
};

// Exclusive sum over the threads of a block; `total` of all. `sums`: one per warp. Holds a barrier.
template <class T>
TILE_DEVICE T scanBlock(T value, tile::Shared<T> sums, T& total) {
  T scan = value;
  TILE_UNROLL
  for (int delta = 1; delta < tile::warpLanes; delta *= 2) {
    const T below = tile::shuffleUp(scan, delta);
    if (tile::laneIndex() >= delta) scan += below;
  }
  if (tile::laneIndex() == tile::warpLanes - 1) sums.set(tile::warpIndex(), scan);
  tile::barrier();
  T base = 0;
  total = 0;
  TILE_UNROLL
  for (int warp = 0; warp < kWarps; ++warp) {
    if (warp < tile::warpIndex()) base += sums.get(warp);
    total += sums.get(warp);
  }
  return base + scan - value;
}

// How many rows of a list have a rank. A thread block looks at all ranks, four neighbouring lanes at one.
struct RankCount {
  static constexpr int lanes = kThreads / kPatterns;
  int rank = tile::threadIndex() / lanes;
  bool speaks = rank != 0 && tile::threadIndex() % lanes == 0;  // for the rank: one of its lanes; none for rank 0, which has no place
  uint32_t total = 0, before = 0, here;                         // in all sort blocks, in earlier ones than `sortBlock`, in that

  TILE_DEVICE RankCount(const PackArguments& a, int list, int sortBlock) {
    const int lane = tile::threadIndex() % lanes;
    const uint32_t* counts = a.countsOf(list) + rank * a.sortBlocks;
    here = counts[sortBlock];
    counts += lane;
    TILE_UNROLL_BY(4)
    for (int i = lane; i < a.sortBlocks; i += lanes, counts += lanes) {
      total += *counts;
      before += i < sortBlock ? *counts : 0;
    }
    TILE_UNROLL
    for (int mask = 1; mask < lanes; mask *= 2) {
      total += tile::shuffleXor(total, mask);
      before += tile::shuffleXor(before, mask);
    }
  }
};

// A thread block builds a list's cells, eight lanes one of them: lane j finds which of its rows select block j of the chunk.
struct BuildCells {
  static constexpr int lanes = 8, sharedBytes = (kPatterns + 1 + 2 * kWarps) * 4;
  static_assert(kChunkBlocks <= lanes);

  static TILE_DEVICE int tilesOf(int rows) { return (rows + kTileRows - 1) / kTileRows; }
  // The first `count` rows of a warp.
  static TILE_DEVICE uint32_t firstRows(int count) { return count <= 0 ? 0u : count >= kWarpRows ? ~0u : (1u << count) - 1u; }

  static TILE_DEVICE void run(const PackArguments& a) {
    const int chunk = tile::blockIndex().y, head = tile::blockIndex().z, list = head * a.chunks + chunk, thread = tile::threadIndex();
    const auto firstOf = tile::sharedWindow<int32_t>(0, kPatterns + 1);  // of each rank's rows
    const auto scanSums = tile::sharedWindow<uint32_t>((kPatterns + 1) * 4, kWarps), sums = tile::sharedWindow<uint32_t>((kPatterns + 1 + kWarps) * 4, kWarps);
    const RankCount ranked(a, list, 0);
    uint32_t listed = 0;
    const uint32_t base = scanBlock(ranked.speaks ? ranked.total : 0u, scanSums, listed);
    if (thread % RankCount::lanes == 0) firstOf.set(ranked.rank, static_cast<int32_t>(base));
    const int rows = static_cast<int>(listed), tiles = tilesOf(rows);
    if (thread == 0) firstOf.set(kPatterns, rows);

    uint32_t earlier = 0;  // cells of the lists before
    for (int other = thread; other < list; other += kThreads) {
      const uint32_t* counts = a.countsOf(other);
      uint32_t count = 0;
      TILE_UNROLL_BY(8)
      for (int i = 0; i < a.sortBlocks; ++i) count += counts[i];
      earlier += static_cast<uint32_t>(tilesOf(static_cast<int>(count)));
    }
    const int firstCell = static_cast<int>(tile::blockSum(earlier, sums, kWarps));
    if (thread == 0) {
      a.packing.cellFirst[list + 1] = firstCell + tiles;
      if (list == 0) a.packing.cellFirst[0] = 0;
    }
    for (int row = rows + thread; row < tiles * kTileRows; row += kThreads) a.packing.order[list * a.listRows() + row] = -1;

    uint32_t visits = 0;
    const int block = thread % lanes;
    const int32_t* start = a.plan.start + a.firstBlock(chunk) + block;
    for (int first = 0; first < tiles; first += kThreads / lanes) {
      const int index = first + thread / lanes, firstRow = index * kTileRows;
      const bool present = index < tiles;
      uint32_t attending[kTileWarps] = {}, any = 0;
      int rank = 0;  // the last whose rows begin no later than the tile's
      TILE_UNROLL
      for (int step = kPatterns / 2; step > 0; step /= 2) rank += firstOf.get(rank + step) <= firstRow ? step : 0;
      for (; present && rank < kPatterns && firstOf.get(rank) < firstRow + kTileRows; ++rank) {
        if (!tile::bitOf(patternOf(static_cast<uint32_t>(rank)), block)) continue;
        const int from = firstOf.get(rank) - firstRow, to = firstOf.get(rank + 1) - firstRow;
        TILE_UNROLL
        for (int word = 0; word < kTileWarps; ++word) attending[word] |= firstRows(to - word * kWarpRows) & ~firstRows(from - word * kWarpRows);
      }
      TILE_UNROLL
      for (int word = 0; word < kTileWarps; ++word) {
        if (attending[word]) attending[word] |= ~firstRows(rows - firstRow - word * kWarpRows);
        any |= attending[word];
      }
      const uint32_t visited = tile::ballot(any != 0) >> tile::laneIndex() / lanes * lanes & ((1u << lanes) - 1u);
      if (!present) continue;
      Cell& cell = a.packing.cells[firstCell + index];
      if (any != 0) {
        Visit& visit = cell.visits[tile::populationCount(visited & ((1u << block) - 1u))];
        visit.from = start[0];
        visit.length = start[1] - start[0];
        TILE_UNROLL
        for (int word = 0; word < kTileWarps; ++word) visit.rows[word] = attending[word];
        ++visits;
      }
      if (block != 0) continue;
      cell.head = head;
      cell.first = list * a.listRows() + firstRow;
      cell.visitCount = tile::populationCount(visited);
    }
    visits = tile::blockSum(visits, sums, kWarps);
    if (thread == 0 && visits > 0) tile::atomicAdd(a.packing.visitTotal, visits);
  }
};

// A thread block sorts the rows of one sort block for one chunk, in shared memory, and then writes each rank's as one run. The first thread block
// of each list builds its cells instead.
struct SortRows {
  static constexpr const char* name = "sort rows";
  static constexpr int threads = kThreads, blocksPerSM = 5, warpRows = kSortRows / kWarps;
  static constexpr int countsAt = kSortRows * 4, shiftsAt = countsAt + kWarps * kPatterns * 4, sumsAt = shiftsAt + kPatterns * 4;
  static constexpr int sharedBytes = sumsAt + kWarps * 8;
  static constexpr uint32_t rowBits = 16;
  static_assert(kSortRows <= 1 << rowBits && BuildCells::sharedBytes <= sharedBytes);
  using Arguments = PackArguments;

  static TILE_DEVICE void run(const Arguments& a) {
    if (tile::blockIndex().x == 0) return BuildCells::run(a);
    const int sortBlock = tile::blockIndex().x - 1, chunk = tile::blockIndex().y, head = tile::blockIndex().z, list = head * a.chunks + chunk;
    const int firstRow = sortBlock * kSortRows, lane = tile::laneIndex(), own = tile::warpIndex() * kPatterns, ownRow = tile::warpIndex() * warpRows + lane;
    const auto sorted = tile::sharedWindow<uint32_t>(0, kSortRows);  // row of the sort block, and above it the byte of its rank
    const auto counts = tile::sharedWindow<uint32_t>(countsAt, kWarps * kPatterns);
    const auto shifts = tile::sharedWindow<int32_t>(shiftsAt, kPatterns);  // from a place in `sorted` to that in the list
    const uint8_t* ranks = a.packing.ranks + int64_t{list} * a.plan.tokens + firstRow + ownRow;

    uint32_t state[kRounds];  // a row's byte, and above it how many of the warp's earlier rows have its rank
    TILE_UNROLL
    for (int round = 0; round < kRounds; ++round)
      state[round] = tile::within(firstRow + ownRow + round * tile::warpLanes, a.plan.tokens) ? ranks[round * tile::warpLanes] : 0;
    const RankCount ranked(a, list, sortBlock);
    TILE_UNROLL
    for (int i = 0; i < kPatterns; i += tile::warpLanes) counts.set(own + i + lane, 0u);
    tile::warpBarrier();
    TILE_UNROLL
    for (int round = 0; round < kRounds; ++round) {
      const uint32_t alike = tile::lanesAlike<kChunkBlocks>(state[round]);
      const int last = tile::highestBit(alike), below = tile::populationCount(alike & ((1u << lane) - 1u));
      uint32_t earlier = 0;  // atomic, as reading and writing would take a barrier each; the shuffle holds back the next round
      if (lane == last) earlier = tile::atomicAdd(counts, own + static_cast<int>(state[round] % kPatterns), static_cast<uint32_t>(below) + 1u);
      state[round] |= (tile::shuffle(earlier, last) + static_cast<uint32_t>(below)) << 8;
    }

    // Two sums at once: over the list's ranks where their rows begin, and above that the same of this sort block alone.
    uint64_t all = 0;
    const uint64_t begin = scanBlock(ranked.speaks ? uint64_t{ranked.here} << 32 | ranked.total : 0, tile::sharedWindow<uint64_t>(sumsAt, kWarps), all);
    if (ranked.speaks) {
      auto place = static_cast<uint32_t>(begin >> 32);
      shifts.set(ranked.rank, static_cast<int32_t>(static_cast<uint32_t>(begin) + ranked.before - place));
      TILE_UNROLL
      for (int warp = 0; warp < kWarps; ++warp) {
        const uint32_t here = counts.get(warp * kPatterns + ranked.rank);
        counts.set(warp * kPatterns + ranked.rank, place);
        place += here;
      }
    }
    tile::barrier();
    TILE_UNROLL
    for (int round = 0; round < kRounds; ++round) state[round] += counts.get(own + static_cast<int>(state[round] % kPatterns)) << 8;
    int32_t* places = a.packing.places + int64_t{list} * a.plan.tokens + firstRow + ownRow;
    TILE_UNROLL
    for (int round = 0; round < kRounds; ++round) {
      const int row = round * tile::warpLanes, rank = static_cast<int>(state[round] % kPatterns), place = static_cast<int>(state[round] >> 8);
      if (rank) sorted.set(place, static_cast<uint32_t>(ownRow + row) | (state[round] & 0xffu) << rowBits);
      const int32_t shared = state[round] & kSharedRank ? place + shifts.get(rank) : -1;
      if (tile::within(firstRow + ownRow + row, a.plan.tokens)) places[row] = shared;
    }
    tile::barrier();
    int32_t *order = a.packing.order + list * a.listRows(), *ends = a.packing.ends + list * a.listRows();
    for (int i = tile::threadIndex(); i < static_cast<int>(all >> 32); i += threads) {
      const uint32_t entry = sorted.get(i), byte = entry >> rowBits;
      const int position = firstRow + static_cast<int>(entry & ((1u << rowBits) - 1u)), at = i + shifts.get(static_cast<int>(byte % kPatterns));
      order[at] = position | (byte & kSharedRank ? kSharedRow : 0);
      if (!(byte & kSharedRank)) ends[at] = a.plan.permutation ? a.plan.permutation[position] : position;
    }
  }
};

}  // namespace

void packRows(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, const Packing& packing) {
  const int chunks = chunksOf(plan.blocks), sortBlocks = sortBlocksOf(plan.tokens);
  const PackArguments arguments{plan, selection, packing, chunks, sortBlocks};
  tile::launch<RankRows>(stream, {sortBlocks, tile::divideUp(chunks, RankRows::chunksTogether), heads}, RankRows::sharedBytes, arguments);
  tile::launch<SortRows>(stream, {sortBlocks + 1, chunks, heads}, SortRows::sharedBytes, arguments);
}

}  // namespace vmoba::cuda
