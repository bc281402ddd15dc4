// What selection needs besides its two searches: masks that need no search, the dense fallback, and the map of who attends to whom.
#include "kernels/cuda/attention/selection_entries.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {
namespace {

// Every valid bit, where no budget limits them. A thread owns one word of one query.
struct SelectValid {
  static constexpr const char* name = "select everything";
  static constexpr int threads = 256, blocksPerSM = 4;
  struct Arguments {
    PlanView plan;
    uint32_t* selection;
    uint32_t* selected;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int s = tile::blockIndex().x * threads + tile::threadIndex(), word = tile::blockIndex().y, head = tile::blockIndex().z;
    const bool inside = tile::within(s, a.plan.tokens);
    uint32_t bits = 0, mine = 0;
    for (int j = 0; j < 32 && word * 32 + j < a.plan.blocks; ++j) {
      const bool taken = inside && s >= a.plan.sequenceFirst[word * 32 + j] && s < a.plan.sequenceEnd[word * 32 + j];
      if (taken) bits = tile::setBit(bits, j);
      const auto votes = static_cast<uint32_t>(tile::populationCount(tile::ballot(taken)));
      if (tile::laneIndex() == j) mine = votes;
    }
    if (inside) a.selection[(int64_t{head} * a.plan.tokens + s) * a.plan.words() + word] = bits;
    if (mine) tile::atomicAdd(&a.selected[int64_t{head} * a.plan.blocks + word * 32 + tile::laneIndex()], mine);
  }
};

struct FallBack {
  static constexpr const char* name = "dense fallback";
  static constexpr int threads = 256, blocksPerSM = 4;
  static constexpr int sharedBytes = threads / 32 * 8;
  struct Arguments {
    PlanView plan;
    const uint32_t* selected;
    uint32_t* selection;
    int32_t heads;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const auto scratch = tile::sharedWindow<int64_t>(0, threads / 32);
    int64_t sum = 0;
    for (int i = tile::threadIndex(); i < a.heads * a.plan.blocks; i += threads) sum += a.selected[i];
    if (tile::blockSum(sum, scratch, threads / 32) != int64_t{a.heads} * a.plan.tokens) return;
    const int s = tile::blockIndex().x * threads + tile::threadIndex(), head = tile::blockIndex().y;
    if (!tile::within(s, a.plan.tokens)) return;
    for (int word = 0; word < a.plan.words(); ++word) {
      uint32_t bits = 0;
      for (int j = 0; j < 32 && word * 32 + j < a.plan.blocks; ++j)
        if (s >= a.plan.sequenceFirst[word * 32 + j] && s < a.plan.sequenceEnd[word * 32 + j]) bits = tile::setBit(bits, j);
      a.selection[(int64_t{head} * a.plan.tokens + s) * a.plan.words() + word] = bits;
    }
  }
};

// A thread block counts one word of one head over the queries of one block; lane j of each warp keeps bit j's count.
struct MapSelected {
  static constexpr const char* name = "map selected";
  static constexpr int threads = 256, blocksPerSM = 4;
  struct Arguments {
    PlanView plan;
    const uint32_t* selection;
    uint32_t* map;
    int32_t firstHead;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int row = tile::blockIndex().x, word = tile::blockIndex().y, head = a.firstHead + tile::blockIndex().z;
    const int end = a.plan.start[row + 1], bitsUsed = a.plan.blocks - word * 32 < 32 ? a.plan.blocks - word * 32 : 32;
    uint32_t mine = 0;
    for (int s0 = a.plan.start[row]; s0 < end; s0 += threads) {
      const int s = s0 + tile::threadIndex();
      const uint32_t bits = tile::within(s, end) ? a.selection[(int64_t{head} * a.plan.tokens + s) * a.plan.words() + word] : 0;
      for (int j = 0; j < bitsUsed; ++j) {
        const auto votes = static_cast<uint32_t>(tile::populationCount(tile::ballot(tile::bitOf(bits, j))));
        if (tile::laneIndex() == j) mine += votes;
      }
    }
    if (mine) tile::atomicAdd(&a.map[int64_t{row} * a.plan.blocks + word * 32 + tile::laneIndex()], mine);
  }
};

}  // namespace

size_t selectionScratchBytes(const PlanView& plan, int32_t heads, const SelectionRule& rule) {
  return rule.scope == SelectionScope::QueryHead ? 16 : groupScratchBytes(plan, heads, rule.scope);
}

void select(tile::Stream stream, const SelectionJob& job) {
  const bool everything = job.rule.semantics == Semantics::Exact && job.rule.mode == SelectionMode::Threshold && job.rule.tau >= 1;
  if (!everything && job.rule.scope != SelectionScope::QueryHead) return selectGroups(stream, job);
  zeroWords(stream, job.selected, int64_t{job.heads} * job.plan.blocks);
  if (everything) {
    tile::launch<SelectValid>(stream, {tile::divideUp(job.plan.tokens, SelectValid::threads), job.plan.words(), job.heads}, 0, {job.plan, job.selection, job.selected});
  } else {
    selectPerQuery(stream, job);
  }
}

void fallBackToDense(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selected, uint32_t* selection) {
  tile::launch<FallBack>(stream, {tile::divideUp(plan.tokens, FallBack::threads), heads}, FallBack::sharedBytes, {plan, selected, selection, heads});
}

void mapSelected(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, int32_t mapHead, uint32_t* map) {
  zeroWords(stream, map, int64_t{plan.blocks} * plan.blocks);
  tile::launch<MapSelected>(stream, {plan.blocks, plan.words(), mapHead < 0 ? heads : 1}, 0, {plan, selection, map, mapHead < 0 ? 0 : mapHead});
}

}  // namespace vmoba::cuda
