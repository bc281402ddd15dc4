// The second pass over the gates of a group, which writes the masks, and what surrounds it. See selection_groups.h.
#include "kernels/cuda/attention/selection_groups.h"

#include <algorithm>

namespace vmoba::cuda {
namespace {

/// Thread blocks of a survey, two for each multiprocessor of the largest GPUs, and entries below which one is not worth while.
constexpr int kSurveyBlocks = 264, kLeastPart = 2048;
constexpr int kSiftTokens = 1024;

// Writes the masks but for what lies between a group's bounds, lists that, and sums what lies above. A thread has a word of 32
// blocks for four queries; lane j of each warp keeps the count of the word's bit j.
template <bool PerBlock>  // a group is a block: the sums of a word's 32 blocks stay apart
struct Sift {
  static constexpr const char* name = "selection sift";
  static constexpr int threads = 256, blocksPerSM = 4, warps = threads / 32, queries = kSiftTokens / threads, batch = 2;
  static constexpr int cutsAt = 32 * 16, sumsAt = cutsAt + 32 * 8;
  static constexpr int sharedBytes = sumsAt + (PerBlock ? 32 : 1) * warps * 8;
  using Arguments = GroupSearch;
  struct Bounds {
    int32_t ownFirst, ownLength, first, length;
  };
  static TILE_DEVICE void list(const GroupSearch& x, int head, int block, int s, float gate) {
    const int group = x.rows.groupOf(head, block);
    const uint32_t at = tile::atomicAdd(&x.state[group].listed, 1u);
    const auto flat = static_cast<uint32_t>(int64_t{x.rows.rowOf(head, block)} * x.plan.tokens + s);
    if (at < static_cast<uint32_t>(kListed)) x.list[int64_t{group} * kListed + at] = {{orderedKey(gate), flat}};
  }
  static TILE_DEVICE void run(const GroupSearch& x) {
    const int part = tile::blockIndex().x, word = tile::blockIndex().y, head = tile::blockIndex().z, thread = tile::threadIndex();
    const auto bounds = tile::sharedWindow<Bounds>(0, 32);
    const auto cuts = tile::sharedWindow<tile::Floats2>(cutsAt, 32);
    const auto sums = tile::sharedWindow<double>(sumsAt, (PerBlock ? 32 : 1) * warps);
    if (thread < 32) {
      const int block = word * 32 + thread;
      Bounds b{};
      tile::Floats2 cut{};
      if (block < x.plan.blocks) {
        b.ownFirst = x.plan.start[block];
        b.ownLength = x.plan.start[block + 1] - b.ownFirst;
        b.first = x.plan.sequenceFirst[block];
        b.length = x.plan.sequenceEnd[block] - b.first;
        const GroupState& state = x.state[x.rows.groupOf(head, block)];
        cut.at[0] = state.above;
        cut.at[1] = state.from;
      }
      bounds.set(thread, b);
      cuts.set(thread, cut);
    }
    tile::barrier();
    const int s0 = part * kSiftTokens + thread, blocks = x.plan.blocks - word * 32 < 32 ? x.plan.blocks - word * 32 : 32;
    uint32_t bits[queries] = {}, mine = 0;
    double sum = 0;
    for (int j0 = 0; j0 < blocks; j0 += batch) {
      float value[batch][queries];
      TILE_UNROLL
      for (int i = 0; i < batch; ++i) {
        const float* gates = x.row(head, word * 32 + j0 + i);
        TILE_UNROLL
        for (int t = 0; t < queries; ++t) value[i][t] = j0 + i < blocks && s0 + t * threads < x.plan.tokens ? gates[s0 + t * threads] : 0.0f;
      }
      TILE_UNROLL
      for (int i = 0; i < batch; ++i) {
        const int j = j0 + i;
        if (j >= blocks) break;
        const Bounds b = bounds.get(j);
        const tile::Floats2 cut = cuts.get(j);
        uint32_t votes = 0, open = 0;
        const auto sift = [&](int t, bool own, bool candidate) {
          const bool above = candidate && value[i][t] > cut.at[0];
          if (above) sum += static_cast<double>(value[i][t]);
          if (candidate && !above && value[i][t] >= cut.at[1]) open |= 1u << t;
          if (own || above) bits[t] = tile::setBit(bits[t], j);
          votes += static_cast<uint32_t>(tile::populationCount(tile::ballot(own || above)));
        };
        const int first = part * kSiftTokens, end = first + kSiftTokens;
        const bool foreign = (b.ownFirst >= end || b.ownFirst + b.ownLength <= first) && b.first <= first && end <= b.first + b.length;
        if (foreign) {  // no own query here and none of another sequence: the rule
          TILE_UNROLL
          for (int t = 0; t < queries; ++t) sift(t, false, true);
        } else {
          TILE_UNROLL
          for (int t = 0; t < queries; ++t) {
            const int s = s0 + t * threads;
            const bool inside = tile::within(s, x.plan.tokens);
            const bool own = inside && static_cast<uint32_t>(s - b.ownFirst) < static_cast<uint32_t>(b.ownLength);
            sift(t, own, inside && !own && static_cast<uint32_t>(s - b.first) < static_cast<uint32_t>(b.length));
          }
        }
        if (open) {
          TILE_UNROLL
          for (int t = 0; t < queries; ++t)
            if (open >> t & 1u) list(x, head, word * 32 + j, s0 + t * threads, value[i][t]);
        }
        if (tile::laneIndex() == j) mine = votes;
        if (PerBlock) {
          sum = tile::warpSum(sum);
          if (tile::laneIndex() == 0) sums.set(j * warps + tile::warpIndex(), sum);
          sum = 0;
        }
      }
    }
    TILE_UNROLL
    for (int t = 0; t < queries; ++t)
      if (s0 + t * threads < x.plan.tokens) x.selection[(int64_t{head} * x.plan.tokens + s0 + t * threads) * x.plan.words() + word] = bits[t];
    if (mine) tile::atomicAdd(&x.selected[int64_t{head} * x.plan.blocks + word * 32 + tile::laneIndex()], mine);
    if (PerBlock) {
      tile::barrier();
      if (thread < blocks) {
        for (int w = 0; w < warps; ++w) sum += sums.get(thread * warps + w);
        x.siftSums[int64_t{word * 32 + thread} * x.siftParts + part * x.rows.heads + head] = sum;
      }
    } else {
      sum = tile::blockSum(sum, sums, warps);
      const int words = tile::gridExtent().y, parts = tile::gridExtent().x;
      const int ofHead = word * parts + part, group = x.rows.groupOf(head, 0);
      if (thread == 0) x.siftSums[int64_t{group} * x.siftParts + (x.rows.scope == SelectionScope::Overall ? head * words * parts : 0) + ofHead] = sum;
    }
  }
};

struct Sizes {
  int groups;
  int64_t entries, perPart;
  int parts, siftParts;
  size_t surveySums, siftSums, counts, list, total;
};

Sizes sizesOf(const PlanView& plan, int32_t heads, SelectionScope scope) {
  const Rows rows{scope, heads, plan.blocks};
  Sizes s{};
  s.groups = rows.groups();
  s.entries = int64_t{rows.rows()} * plan.tokens;
  s.parts = std::min(std::max(1, kSurveyBlocks / s.groups), tile::divideUp(s.entries, kLeastPart));
  s.perPart = int64_t{tile::divideUp(tile::divideUp(s.entries, s.parts), 32)} * 32;
  s.siftParts = tile::divideUp(plan.tokens, kSiftTokens) * (scope == SelectionScope::Block ? heads : plan.words() * (scope == SelectionScope::Overall ? heads : 1));
  const auto groups = static_cast<size_t>(s.groups);
  const auto after = [](size_t at, size_t bytes) { return (at + bytes + 15) / 16 * 16; };
  s.surveySums = after(0, groups * sizeof(GroupState));
  s.siftSums = after(s.surveySums, groups * static_cast<size_t>(s.parts) * 16);
  s.counts = after(s.siftSums, groups * static_cast<size_t>(s.siftParts) * 8);
  s.list = after(s.counts, groups * kSurveyBins * 4);
  s.total = after(s.list, groups * kListed * sizeof(tile::Words2));
  return s;
}

}  // namespace

size_t groupScratchBytes(const PlanView& plan, int32_t heads, SelectionScope scope) { return sizesOf(plan, heads, scope).total; }

void selectGroups(tile::Stream stream, const SelectionJob& job) {
  const Sizes sizes = sizesOf(job.plan, job.heads, job.rule.scope);
  if (sizes.entries > INT64_C(0xffffffff))
    throw Error(ErrorCode::Unsupported, "so many blocks cannot be compared with each other on the GPU; choose larger blocks, or a selection per head", "policy.partitions");
  auto* base = static_cast<unsigned char*>(job.scratch);
  GroupSearch x{};
  x.plan = job.plan;
  x.rows = {job.rule.scope, job.heads, job.plan.blocks};
  x.rule = job.rule;
  x.gate = job.gate;
  x.selection = job.selection;
  x.selected = job.selected;
  x.entries = sizes.entries;
  x.perPart = sizes.perPart;
  x.parts = sizes.parts;
  x.siftParts = sizes.siftParts;
  x.state = reinterpret_cast<GroupState*>(base);
  x.surveySums = reinterpret_cast<double*>(base + sizes.surveySums);
  x.siftSums = reinterpret_cast<double*>(base + sizes.siftSums);
  x.counts = reinterpret_cast<uint32_t*>(base + sizes.counts);
  x.list = reinterpret_cast<tile::Words2*>(base + sizes.list);
  const tile::Extent words{tile::divideUp(job.plan.tokens, kSiftTokens), job.plan.words(), job.heads};
  aimAtCuts(stream, x, sizes.groups);
  if (job.rule.scope == SelectionScope::Block) tile::launch<Sift<true>>(stream, words, Sift<true>::sharedBytes, x);
  else tile::launch<Sift<false>>(stream, words, Sift<false>::sharedBytes, x);
  settleCuts(stream, x, sizes.groups);
}

}  // namespace vmoba::cuda
