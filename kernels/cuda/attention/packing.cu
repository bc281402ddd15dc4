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
};

// Where a chunk's blocks lie in the words of a selection.
struct ChunkBits {
  int words, word, shift;
  uint32_t low, high;  // of its bits in `word` and in the next

  TILE_DEVICE ChunkBits(const PackArguments& a, int chunk) : words(a.plan.words()) {
    const int first = firstBlockOf(chunk, a.chunks, a.plan.blocks), count = firstBlockOf(chunk + 1, a.chunks, a.plan.blocks) - first;
    word = first / 32;
    shift = first % 32;
    const uint64_t mask = ((uint64_t{1} << count) - 1) << shift;
    low = static_cast<uint32_t>(mask);
    high = static_cast<uint32_t>(mask >> 32);
  }
};

// What a row selects in a chunk, as bits, and whether it selects anything elsewhere.
struct Pattern {
  uint32_t bits = 0;
  bool elsewhere = false;

  static TILE_DEVICE Pattern of(const PackArguments& a, const ChunkBits& chunk, int head, int position) {
    const uint32_t* row = a.selection + (int64_t{head} * a.plan.tokens + position) * chunk.words;
    uint32_t own = 0, next = 0, others = 0;
    for (int word = 0; word < chunk.words; ++word) {
      const uint32_t bits = row[word], mine = word == chunk.word ? chunk.low : word == chunk.word + 1 ? chunk.high : 0;
      own = word == chunk.word ? bits & mine : own;
      next = word == chunk.word + 1 ? bits & mine : next;
      others |= bits & ~mine;
    }
    return {static_cast<uint32_t>((uint64_t{next} << 32 | own) >> chunk.shift), others != 0};
  }
  // Patterns by the Gray code: neighbours differ in one block, so that a tile across their border visits one more. The empty one is 0.
  TILE_DEVICE int rank() const {
    uint32_t r = bits;
    for (int shift = 1; shift < kChunkBlocks; shift *= 2) r ^= r >> shift;
    return static_cast<int>(r);
  }
};

// A warp owns kSortRows/8 neighbouring rows; each lane keeps the rank of its row in every round, and how many of the warp's earlier
// rows have the same.
struct WarpRanks {
  static constexpr int threads = 256, warps = threads / 32, rounds = kSortRows / threads;
  int rank[rounds], before[rounds];
  bool elsewhere[rounds];

  // `counts` [warps][kPatterns] of the thread block's shared memory.
  TILE_DEVICE void count(const PackArguments& a, int head, int chunk, int firstRow, tile::Shared<uint32_t> counts) {
    const ChunkBits bits(a, chunk);
    const int lane = tile::laneIndex(), own = tile::warpIndex() * kPatterns;
    for (int i = lane; i < kPatterns; i += 32) counts.set(own + i, 0u);
    tile::warpBarrier();
    TILE_UNROLL
    for (int round = 0; round < rounds; ++round) {
      const int position = firstRow + round * 32 + lane;
      const Pattern pattern = tile::within(position, a.plan.tokens) ? Pattern::of(a, bits, head, position) : Pattern{};
      rank[round] = pattern.rank();
      elsewhere[round] = pattern.elsewhere;
    }
    TILE_UNROLL
    for (int round = 0; round < rounds; ++round) {
      uint32_t alike = 0xffffffffu;
      TILE_UNROLL
      for (int bit = 0; bit < kChunkBlocks; ++bit) {
        const bool set = tile::bitOf(static_cast<uint32_t>(rank[round]), bit);
        const uint32_t votes = tile::ballot(set);
        alike &= set ? votes : ~votes;
      }
      const uint32_t earlier = counts.get(own + rank[round]);
      before[round] = static_cast<int>(earlier) + tile::populationCount(alike & ((1u << lane) - 1u));
      tile::warpBarrier();
      if (lane == tile::lowestBit(alike)) counts.set(own + rank[round], earlier + static_cast<uint32_t>(tile::populationCount(alike)));
      tile::warpBarrier();
    }
  }
  static TILE_DEVICE int firstRow() { return tile::blockIndex().x * kSortRows + tile::warpIndex() * (kSortRows / warps); }
};

struct CountPatterns {
  static constexpr const char* name = "count patterns";
  static constexpr int threads = WarpRanks::threads, blocksPerSM = 4;
  static constexpr int sharedBytes = WarpRanks::warps * kPatterns * 4;
  using Arguments = PackArguments;
  static TILE_DEVICE void run(const Arguments& a) {
    const int chunk = tile::blockIndex().y, head = tile::blockIndex().z, thread = tile::threadIndex();
    const auto counts = tile::sharedWindow<uint32_t>(0, WarpRanks::warps * kPatterns);
    WarpRanks ranks;
    ranks.count(a, head, chunk, WarpRanks::firstRow(), counts);
    tile::barrier();
    if (thread >= kPatterns) return;
    uint32_t sum = 0;
    for (int warp = 0; warp < WarpRanks::warps; ++warp) sum += counts.get(warp * kPatterns + thread);
    a.packing.counts[((int64_t{head} * a.chunks + chunk) * kPatterns + thread) * a.sortBlocks + tile::blockIndex().x] = sum;
  }
};

// Exclusive sum over the threads of a block; `total` of all. `sums`: one per warp.
TILE_DEVICE uint32_t scanBlock(uint32_t value, tile::Shared<uint32_t> sums, int warps, uint32_t& total) {
  uint32_t scan = value;
  TILE_UNROLL
  for (int delta = 1; delta < 32; delta *= 2) {
    const uint32_t below = tile::shuffleUp(scan, delta);
    if (tile::laneIndex() >= delta) scan += below;
  }
  tile::barrier();
  if (tile::laneIndex() == 31) sums.set(tile::warpIndex(), scan);
  tile::barrier();
  uint32_t base = 0;
  total = 0;
  for (int warp = 0; warp < warps; ++warp) {
    if (warp < tile::warpIndex()) base += sums.get(warp);
    total += sums.get(warp);
  }
  return base + scan - value;
}

// Counts become places: a list's rows by rank, then by position. Its last tile's missing rows are marked.
struct PlacePatterns {
  static constexpr const char* name = "place patterns";
  static constexpr int threads = 256, blocksPerSM = 4;
  static constexpr int sharedBytes = threads / 32 * 4;
  using Arguments = PackArguments;
  static TILE_DEVICE void run(const Arguments& a) {
    const int list = tile::blockIndex().x, thread = tile::threadIndex();
    const auto sums = tile::sharedWindow<uint32_t>(0, threads / 32);
    uint32_t* counts = a.packing.counts + int64_t{list} * kPatterns * a.sortBlocks;
    const int count = kPatterns * a.sortBlocks, each = (count + threads - 1) / threads;
    const int first = thread * each < count ? thread * each : count, end = first + each < count ? first + each : count;
    uint32_t sum = 0;
    for (int i = first; i < end; ++i) sum += i < a.sortBlocks ? 0 : counts[i];  // the empty pattern, which has no place
    uint32_t total = 0, base = scanBlock(sum, sums, threads / 32, total);
    for (int i = first; i < end; ++i) {
      const uint32_t here = i < a.sortBlocks ? 0 : counts[i];
      counts[i] = base;
      base += here;
    }
    const int rows = static_cast<int>(total), tiles = (rows + kTileRows - 1) / kTileRows;
    for (int row = rows + thread; row < tiles * kTileRows; row += threads) a.packing.order[list * a.listRows() + row] = -1;
    if (thread == 0) a.packing.cellFirst[list + 1] = tiles;
  }
};

struct PlaceLists {
  static constexpr const char* name = "place lists";
  static constexpr int threads = 256, blocksPerSM = 1;
  static constexpr int sharedBytes = threads / 32 * 4;
  struct Arguments {
    Packing packing;
    int32_t lists;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const auto sums = tile::sharedWindow<uint32_t>(0, threads / 32);
    int32_t* first = a.packing.cellFirst;
    uint32_t base = 0;
    for (int list0 = 0; list0 < a.lists; list0 += threads) {
      const int list = list0 + tile::threadIndex();
      const uint32_t tiles = tile::within(list, a.lists) ? static_cast<uint32_t>(first[list + 1]) : 0;
      uint32_t total = 0;
      const uint32_t before = scanBlock(tiles, sums, threads / 32, total);
      if (tile::within(list, a.lists)) first[list + 1] = static_cast<int32_t>(base + before + tiles);
      base += total;
    }
    if (tile::threadIndex() == 0) {
      first[0] = 0;
      *a.packing.visitTotal = 0;
    }
  }
};

struct SortRows {
  static constexpr const char* name = "sort rows";
  static constexpr int threads = WarpRanks::threads, blocksPerSM = 4;
  static constexpr int sharedBytes = WarpRanks::warps * kPatterns * 4;
  using Arguments = PackArguments;
  static TILE_DEVICE void run(const Arguments& a) {
    const int chunk = tile::blockIndex().y, head = tile::blockIndex().z, list = head * a.chunks + chunk, thread = tile::threadIndex();
    const auto counts = tile::sharedWindow<uint32_t>(0, WarpRanks::warps * kPatterns);
    WarpRanks ranks;
    ranks.count(a, head, chunk, WarpRanks::firstRow(), counts);
    tile::barrier();
    if (thread < kPatterns) {
      uint32_t place = a.packing.counts[(int64_t{list} * kPatterns + thread) * a.sortBlocks + tile::blockIndex().x];
      for (int warp = 0; warp < WarpRanks::warps; ++warp) {
        const uint32_t here = counts.get(warp * kPatterns + thread);
        counts.set(warp * kPatterns + thread, place);
        place += here;
      }
    }
    tile::barrier();
    TILE_UNROLL
    for (int round = 0; round < WarpRanks::rounds; ++round) {
      const int position = WarpRanks::firstRow() + round * 32 + tile::laneIndex();
      if (!tile::within(position, a.plan.tokens)) continue;
      const bool listed = ranks.rank[round] != 0, shared = listed && ranks.elsewhere[round];
      const int place = static_cast<int>(counts.get(tile::warpIndex() * kPatterns + ranks.rank[round])) + ranks.before[round];
      if (listed) a.packing.order[list * a.listRows() + place] = position | (shared ? kSharedRow : 0);
      a.packing.places[int64_t{list} * a.plan.tokens + position] = shared ? place : -1;
    }
  }
};

// A warp builds a cell: lane j gathers which rows select block j of the chunk.
struct BuildCells {
  static constexpr const char* name = "build cells";
  static constexpr int threads = 256, blocksPerSM = 4, warps = threads / 32;
  using Arguments = PackArguments;
  static TILE_DEVICE void run(const Arguments& a) {
    const int list = tile::blockIndex().x, head = list / a.chunks, chunk = list % a.chunks, lane = tile::laneIndex();
    const int firstCell = a.packing.cellFirst[list], cells = a.packing.cellFirst[list + 1] - firstCell, chunkFirst = firstBlockOf(chunk, a.chunks, a.plan.blocks);
    const ChunkBits chunkBits(a, chunk);
    uint32_t visits = 0;
    for (int index = tile::blockIndex().y * warps + tile::warpIndex(); index < cells; index += tile::gridExtent().y * warps) {
      const int64_t first = list * a.listRows() + int64_t{index} * kTileRows;
      int entry[kTileWarps];
      uint32_t bits[kTileWarps], rows[kTileWarps] = {}, any = 0;
      TILE_UNROLL
      for (int word = 0; word < kTileWarps; ++word) entry[word] = a.packing.order[first + word * 32 + lane];
      TILE_UNROLL
      for (int word = 0; word < kTileWarps; ++word) bits[word] = entry[word] < 0 ? 0 : Pattern::of(a, chunkBits, head, entry[word] & ~kSharedRow).bits;
      TILE_UNROLL
      for (int word = 0; word < kTileWarps; ++word) {
        if (entry[word] >= 0 && !(entry[word] & kSharedRow)) a.packing.ends[first + word * 32 + lane] = a.plan.permutation ? a.plan.permutation[entry[word]] : entry[word];
        const uint32_t missing = tile::ballot(entry[word] < 0);
        TILE_UNROLL
        for (int j = 0; j < kChunkBlocks; ++j) {
          const uint32_t votes = tile::ballot(tile::bitOf(bits[word], j));
          if (lane == j && votes) rows[word] = votes | missing;
        }
        any |= rows[word];
      }
      const uint32_t visited = tile::ballot(any != 0);
      Cell& cell = a.packing.cells[firstCell + index];
      if (any != 0) {
        Visit& visit = cell.visits[tile::populationCount(visited & ((1u << lane) - 1u))];
        visit.from = a.plan.start[chunkFirst + lane];
        visit.length = a.plan.start[chunkFirst + lane + 1] - visit.from;
        TILE_UNROLL
        for (int word = 0; word < kTileWarps; ++word) visit.rows[word] = rows[word];
      }
      visits += static_cast<uint32_t>(tile::populationCount(visited));
      if (lane != 0) continue;
      cell.head = head;
      cell.first = first;
      cell.visitCount = tile::populationCount(visited);
    }
    if (lane == 0 && visits > 0) tile::atomicAdd(a.packing.visitTotal, visits);
  }
};

}  // namespace

void packRows(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, const Packing& packing) {
  const int chunks = chunksOf(plan.blocks), lists = heads * chunks, sortBlocks = sortBlocksOf(plan.tokens);
  const PackArguments arguments{plan, selection, packing, chunks, sortBlocks};
  tile::launch<CountPatterns>(stream, {sortBlocks, chunks, heads}, CountPatterns::sharedBytes, arguments);
  tile::launch<PlacePatterns>(stream, {lists}, PlacePatterns::sharedBytes, arguments);
  tile::launch<PlaceLists>(stream, {1}, PlaceLists::sharedBytes, {packing, lists});
  tile::launch<SortRows>(stream, {sortBlocks, chunks, heads}, SortRows::sharedBytes, arguments);
  tile::launch<BuildCells>(stream, {lists, tile::divideUp(plan.tiles(), 4 * BuildCells::warps)}, 0, arguments);
}

}  // namespace vmoba::cuda
