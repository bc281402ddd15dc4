// Selection where a group (a head, a block, the whole call) shares one budget. Two passes over the gates:
//
//   Sample   guesses from a few thousand gates the interval in which they lie (a bad guess costs time, never correctness)
//   Survey   counts the candidates in 4096 bins of that interval; least, most and the sums of all gates
//   Aim      bounds the weight above each bin from its count, which leaves a few bins in which the budget can be met
//   Survey, Aim  once more within those bins, only where they hold more than a list takes
//   Sift     selects what lies above the bins, lists what lies in them, and sums the gates above
//   Settle   finds the very entry among those listed, eleven bits of the key at a time, and selects up to it
//
// Where so many gates are equal that no list takes them, Settle goes over the group itself, with one thread block: slow and rare.
// Sums are doubles added in an order that only the sizes decide; counts are integers; the list's order decides nothing.
#include "kernels/cuda/attention/selection_entries.h"
#include "kernels/cuda/tile/launch.h"

#include <algorithm>

namespace vmoba::cuda {
namespace {

constexpr int kBins = 4096;
constexpr int kBinBits = 12;
/// Entries that a group's list takes.
constexpr int kListed = 16384;
/// Thread blocks of a survey, two for each multiprocessor of the largest GPUs, and entries below which one is not worth while.
constexpr int kSurveyBlocks = 264, kLeastPart = 2048;
constexpr int kSiftTokens = 1024;

enum class Stage : uint32_t {
  Open,
  Crowded,  // more candidates between lowKey and highKey than a list takes
  Listed,   // few enough
  Done,     // no search: everything, nothing, or only entries of weight 0
};

struct GroupState {
  uint32_t leastKey, mostKey;  // over valid entries
  uint32_t lowKey, highKey;    // the last entry taken has a key among these
  Stage stage;
  uint32_t byCount;        // the budget counts entries (top-k, and upstream's cut-off of two), not weight
  uint32_t zeros;          // Stage::Done: entries of weight 0 to take from the front of the list
  uint32_t listed;         // entries in the list
  int32_t shift;           // of the second survey: bin = (key - lowKey) >> shift
  float origin, scale;     // of the first: bin = (gate - origin)·scale
  float above, from;       // Sift takes gates above the first and lists the others from the second on
  int64_t budget;          // entries to take when byCount
  int64_t aboveCount;      // entries above highKey
  double need, least, range, total;  // share to reach; weight = (gate - least)/range; weight of all
};

struct Search {
  PlanView plan;
  Rows rows;
  SelectionRule rule;
  const float* gate;        // [heads, blocks, tokens]
  uint32_t* selection;
  uint32_t* selected;
  int64_t entries, perPart; // of a group; of one part of a survey
  int32_t parts, siftParts;
  GroupState* state;        // [groups]
  double* surveySums;       // [groups, parts, 2]
  double* siftSums;         // [groups, siftParts]
  uint32_t* counts;         // [groups, kBins]
  tile::Words2* list;       // [groups, kListed] key, flat position
  TILE_DEVICE const float* row(int head, int block) const { return gate + (int64_t{head} * plan.blocks + block) * plan.tokens; }
};

/// Of the first survey; rises with the gate.
TILE_DEVICE int binOf(float gate, float origin, float scale) {
  return static_cast<int>(tile::minimum(tile::maximum((gate - origin) * scale, 0.0f), static_cast<float>(kBins - 1)));
}

struct Sample {
  static constexpr const char* name = "selection sample";
  static constexpr int threads = 512, blocksPerSM = 2, perThread = 8;
  static constexpr int sharedBytes = threads / 32 * 4;
  using Arguments = Search;
  static TILE_DEVICE void run(const Search& x) {
    const int group = tile::blockIndex().x, thread = tile::threadIndex();
    const auto scratch = tile::sharedWindow<float>(0, threads / 32);
    float value[perThread];
    TILE_UNROLL
    for (int i = 0; i < perThread; ++i) {
      const auto tokens = static_cast<uint32_t>(x.plan.tokens), flat = static_cast<uint32_t>(x.entries * (thread * perThread + i) / (threads * perThread));
      const int row = static_cast<int>(flat / tokens), s = static_cast<int>(flat % tokens);
      const int block = x.rows.block(group, row);
      const bool candidate = s >= x.plan.sequenceFirst[block] && s < x.plan.sequenceEnd[block] && (s < x.plan.start[block] || s >= x.plan.start[block + 1]);
      value[i] = candidate ? x.row(x.rows.head(group, row), block)[s] : notANumber();
    }
    for (int bin = thread; bin < kBins; bin += threads) x.counts[int64_t{group} * kBins + bin] = 0;
    float least = 3.4e38f, most = -3.4e38f;
    TILE_UNROLL
    for (int i = 0; i < perThread; ++i) {
      least = tile::minimum(least, value[i]);
      most = tile::maximum(most, value[i]);
    }
    least = -tile::blockMax(-least, scratch, threads / 32);
    most = tile::blockMax(most, scratch, threads / 32);
    if (thread != 0) return;
    GroupState fresh = {};
    fresh.leastKey = 0xffffffffu;
    fresh.origin = least;
    fresh.scale = least < most ? static_cast<float>(kBins) / (most - least) : 0.0f;
    if (!(fresh.scale < 3.4e38f)) fresh.scale = 0.0f;
    fresh.above = fresh.from = infinity();
    x.state[group] = fresh;
  }
};

// A thread block counts one part of a group: `perPart` entries in flat order.
template <bool Second>
struct Survey {
  static constexpr const char* name = Second ? "selection second survey" : "selection survey";
  static constexpr int threads = 512, blocksPerSM = 2, inFlight = 8;
  static constexpr int sharedBytes = kBins * 4 + threads / 32 * 8;
  using Arguments = Search;
  static TILE_DEVICE void run(const Search& x) {
    const int group = tile::blockIndex().y, part = tile::blockIndex().x, thread = tile::threadIndex();
    GroupState& state = x.state[group];
    if (Second && state.stage != Stage::Crowded) return;
    const auto counts = tile::sharedWindow<uint32_t>(0, kBins);
    const auto scratch = tile::sharedWindow<double>(kBins * 4, threads / 32);
    const auto scratch4 = tile::sharedWindow<float>(kBins * 4, threads / 32);
    for (int bin = thread; bin < kBins; bin += threads) counts.set(bin, 0u);
    tile::barrier();
    const float origin = state.origin, scale = state.scale;
    const uint32_t lowKey = state.lowKey, highKey = state.highKey;
    const int shift = state.shift;
    const int64_t first = part * x.perPart, end = first + x.perPart < x.entries ? first + x.perPart : x.entries;
    float least = 3.4e38f, most = -3.4e38f;
    double own = 0, rest = 0;  // sums of own gates, of candidates; in the second survey of those above
    for (int64_t flat = first; tile::within(flat, end);) {
      const int row = static_cast<int>(static_cast<uint32_t>(flat) / static_cast<uint32_t>(x.plan.tokens));
      const int64_t rowStart = int64_t{row} * x.plan.tokens, rowEnd = rowStart + x.plan.tokens;
      const int block = x.rows.block(group, row), head = x.rows.head(group, row);
      const int ownFirst = x.plan.start[block], ownLength = x.plan.start[block + 1] - ownFirst;
      const int from = static_cast<int>(flat - rowStart), to = static_cast<int>((end < rowEnd ? end : rowEnd) - rowStart);
      const int s0 = from > x.plan.sequenceFirst[block] ? from : x.plan.sequenceFirst[block];
      const int s1 = to < x.plan.sequenceEnd[block] ? to : x.plan.sequenceEnd[block];
      const float* gates = x.row(head, block);
      for (int base = s0 + thread; base < s1; base += threads * inFlight) {
        float value[inFlight];
        TILE_UNROLL
        for (int i = 0; i < inFlight; ++i) value[i] = base + i * threads < s1 ? gates[base + i * threads] : 0.0f;
        TILE_UNROLL
        for (int i = 0; i < inFlight; ++i) {
          const int s = base + i * threads;
          if (s >= s1) continue;
          if (!Second) {
            least = tile::minimum(least, value[i]);
            most = tile::maximum(most, value[i]);
          }
          if (static_cast<uint32_t>(s - ownFirst) < static_cast<uint32_t>(ownLength)) {
            if (!Second) own += static_cast<double>(value[i]);
            continue;
          }
          if (Second) {
            const uint32_t key = orderedKey(value[i]);
            if (key > highKey) rest += static_cast<double>(value[i]);
            if (key > highKey || key < lowKey) continue;
            tile::atomicAdd(counts, static_cast<int>((key - lowKey) >> shift), 1u);
          } else {
            rest += static_cast<double>(value[i]);
            tile::atomicAdd(counts, binOf(value[i], origin, scale), 1u);
          }
        }
      }
      flat = rowEnd;
    }
    if (!Second) {
      least = -tile::blockMax(-least, scratch4, threads / 32);
      most = tile::blockMax(most, scratch4, threads / 32);
      own = tile::blockSum(own, scratch, threads / 32);
    }
    rest = tile::blockSum(rest, scratch, threads / 32);
    if (thread == 0) {
      double* sums = x.surveySums + (int64_t{group} * x.parts + part) * 2;
      sums[0] = rest;
      sums[1] = own;
      if (!Second && least <= most) {
        tile::atomicMin(&state.leastKey, orderedKey(least));
        tile::atomicMax(&state.mostKey, orderedKey(most));
      }
    }
    tile::barrier();
    for (int bin = thread; bin < kBins; bin += threads)
      if (const uint32_t count = counts.get(bin)) tile::atomicAdd(&x.counts[int64_t{group} * kBins + bin], count);
  }
};

/// Exclusive sum over the threads of a block in their order. `scratch`: one T per warp. Holds two barriers.
template <class T>
TILE_DEVICE T sumBefore(T value, tile::Shared<T> scratch) {
  T inclusive = value;
  TILE_UNROLL
  for (int delta = 1; delta < tile::warpLanes; delta *= 2) {
    const T below = tile::shuffleUp(inclusive, delta);
    if (tile::laneIndex() >= delta) inclusive = inclusive + below;
  }
  if (tile::laneIndex() == tile::warpLanes - 1) scratch.set(tile::warpIndex(), inclusive);
  tile::barrier();
  T before = tile::shuffleUp(inclusive, 1);
  if (tile::laneIndex() == 0) before = T{};
  T warps = T{};
  for (int w = 0; w < tile::warpIndex(); ++w) warps = warps + scratch.get(w);
  tile::barrier();
  return warps + before;
}

// Leaves the bins in which the budget can be met. One thread block per group.
template <bool Second>
struct Aim {
  static constexpr const char* name = Second ? "selection second aim" : "selection aim";
  static constexpr int threads = 512, blocksPerSM = 1, perThread = kBins / threads, warps = threads / 32;
  static constexpr int sharedBytes = warps * 8;
  using Arguments = Search;

  static TILE_DEVICE void finish(GroupState& state, float above) {
    state.stage = Stage::Done;
    state.above = above;
  }

  static TILE_DEVICE void start(const Search& x, GroupState& state, int group, double own, double rest, int64_t candidates) {
    int64_t owned = x.plan.tokens;
    if (x.rows.scope == SelectionScope::Block) owned = int64_t{x.rows.heads} * (x.plan.start[group + 1] - x.plan.start[group]);
    if (x.rows.scope == SelectionScope::Overall) owned *= x.rows.heads;
    state.least = static_cast<double>(valueOfKey(state.leastKey));
    const double range = static_cast<double>(valueOfKey(state.mostKey)) - state.least;
    state.range = range <= 1e-6 ? 1 : range;
    if (x.rule.mode == SelectionMode::TopK) {
      const int64_t k = x.rule.k < x.plan.blocks ? x.rule.k : x.plan.blocks;
      state.byCount = 1;
      state.budget = k * x.entries / x.plan.blocks - owned;
      if (state.budget <= 0 || candidates == 0) return finish(state, infinity());
      if (state.budget > candidates) return finish(state, -infinity());
      return;
    }
    const double ownWeight = (own - static_cast<double>(owned) * state.least) / state.range;
    rest = (rest - static_cast<double>(candidates) * state.least) / state.range;
    state.total = 1e-6 + ownWeight + rest;
    const double need = static_cast<double>(x.rule.tau) - ownWeight / state.total;
    state.need = need > 0 ? need : 0;
    if (rest / state.total < state.need) {
      const bool two = x.rule.semantics == Semantics::Upstream && x.rule.scope == SelectionScope::Block;
      if (!two) return finish(state, -infinity());  // the share is never reached: everything
      state.byCount = 1;
      state.budget = 2;
      if (candidates < 2) {  // with weight 0 the candidate ranks among the own entries
        state.zeros = 2;
        return finish(state, valueOfKey(state.leastKey));
      }
    }
    if (candidates == 0) finish(state, infinity());
  }

  /// The least key whose bin is `bin` or above, or (`upper`) the greatest whose bin is `bin` or below.
  static TILE_DEVICE uint32_t edge(const GroupState& state, int bin, bool upper) {
    uint32_t low = state.leastKey, high = state.mostKey;
    if (upper && bin >= kBins - 1) return high;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2 + (upper ? (high - low) % 2 : 0);
      const int at = binOf(valueOfKey(middle), state.origin, state.scale);
      if (upper) (at <= bin ? low : high) = at <= bin ? middle : middle - 1;
      else (at >= bin ? high : low) = at >= bin ? middle : middle + 1;
    }
    return low;
  }

  static TILE_DEVICE void run(const Search& x) {
    const int group = tile::blockIndex().x, thread = tile::threadIndex();
    GroupState& state = x.state[group];
    if (Second && state.stage != Stage::Crowded) return;
    const auto scratch = tile::sharedWindow<double>(0, warps);
    const auto scratch8 = tile::sharedWindow<int64_t>(0, warps);
    const auto scratch4 = tile::sharedWindow<float>(0, warps);
    // Thread t has the bins [t*perThread, (t+1)*perThread) counted from the top.
    uint32_t count[perThread];
    int64_t mine = 0;
    TILE_UNROLL
    for (int j = 0; j < perThread; ++j) {
      uint32_t& at = x.counts[int64_t{group} * kBins + kBins - 1 - (thread * perThread + j)];
      count[j] = at;
      at = 0;  // for the second survey
      mine += count[j];
    }
    double rest = 0, own = 0;
    for (int part = thread; part < x.parts; part += threads) {
      rest += x.surveySums[(int64_t{group} * x.parts + part) * 2];
      own += x.surveySums[(int64_t{group} * x.parts + part) * 2 + 1];
    }
    rest = tile::blockSum(rest, scratch, warps);
    if (!Second) {
      own = tile::blockSum(own, scratch, warps);
      const int64_t candidates = tile::blockSum(mine, scratch8, warps);
      if (thread == 0) start(x, state, group, own, rest, candidates);
      tile::barrier();
      if (state.stage == Stage::Done) return;
    }
    const GroupState now = state;
    const double lowest = now.least, highest = static_cast<double>(valueOfKey(now.mostKey)), step = now.scale > 0 ? 1 / static_cast<double>(now.scale) : 0;
    // What a gate in the bin is at least and at most; in the first survey a hundredth of a bin covers the rounding of binOf.
    const auto bound = [&](int bin, bool upper) {
      double value;
      if (Second) {
        const uint64_t last = uint64_t{now.lowKey} + (static_cast<uint64_t>(bin + 1) << now.shift) - 1;
        const uint64_t key = upper ? (last < now.highKey ? last : now.highKey) : uint64_t{now.lowKey} + (static_cast<uint64_t>(bin) << now.shift);
        value = static_cast<double>(valueOfKey(static_cast<uint32_t>(key)));
      } else if (upper) {
        value = bin == kBins - 1 || step == 0 ? highest : static_cast<double>(now.origin) + (bin + 1.01) * step;
      } else {
        value = bin == 0 ? lowest : static_cast<double>(now.origin) + (bin - 0.01) * step;
      }
      value = value < lowest ? lowest : value > highest ? highest : value;
      return value - lowest;
    };
    // Weights are kept in units of the gate here: one of `unit` is the whole.
    const double unit = now.range * now.total;
    double fewest = 0, most = 0;  // bounds of the weight in this thread's bins
    TILE_UNROLL
    for (int j = 0; j < perThread; ++j) {
      if (count[j] == 0) continue;
      const int bin = kBins - 1 - (thread * perThread + j);
      fewest += static_cast<double>(count[j]) * bound(bin, false);
      most += static_cast<double>(count[j]) * bound(bin, true);
    }
    int64_t before = sumBefore(mine, scratch8);
    const double base = Second && !now.byCount ? rest - static_cast<double>(now.aboveCount) * now.least : 0;
    fewest = base + sumBefore(fewest, scratch);
    most = base + sumBefore(most, scratch);
    int highBin = -1, lowBin = -1;  // the topmost bins in which the budget may be met, and must be
    constexpr double slack = 1e-9;  // far above the rounding of the sums
    const double mayNeed = (now.need - slack) * unit, mustNeed = (now.need + slack) * unit;
    TILE_UNROLL
    for (int j = 0; j < perThread; ++j) {
      if (count[j] == 0) continue;
      const int bin = kBins - 1 - (thread * perThread + j);
      before += count[j];
      fewest += static_cast<double>(count[j]) * bound(bin, false);
      most += static_cast<double>(count[j]) * bound(bin, true);
      const bool may = now.byCount ? now.aboveCount + before >= now.budget : most >= mayNeed;
      const bool must = now.byCount ? may : fewest >= mustNeed;
      if (may && highBin < 0) highBin = bin;
      if (must && lowBin < 0) lowBin = bin;
    }
    highBin = static_cast<int>(tile::blockMax(static_cast<float>(highBin), scratch4, warps));
    lowBin = static_cast<int>(tile::blockMax(static_cast<float>(lowBin), scratch4, warps));
    if (highBin < 0) highBin = kBins - 1;
    if (lowBin < 0) lowBin = 0;
    int64_t above = 0, within = 0;
    TILE_UNROLL
    for (int j = 0; j < perThread; ++j) {
      const int bin = kBins - 1 - (thread * perThread + j);
      if (bin > highBin) above += count[j];
      else if (bin >= lowBin) within += count[j];
    }
    above = tile::blockSum(above, scratch8, warps);
    within = tile::blockSum(within, scratch8, warps);
    if (thread != 0) return;
    GroupState next = now;
    next.aboveCount = now.aboveCount + above;
    if (Second) {
      const uint64_t last = uint64_t{now.lowKey} + (static_cast<uint64_t>(highBin + 1) << now.shift) - 1;
      next.highKey = static_cast<uint32_t>(last < now.highKey ? last : now.highKey);
      next.lowKey = now.lowKey + (static_cast<uint32_t>(lowBin) << now.shift);
    } else {
      next.lowKey = edge(now, lowBin, false);
      next.highKey = edge(now, highBin, true);
    }
    if (next.highKey == kNegativeZero) --next.highKey;  // no entry has it, and Sift could not tell it from zero
    next.stage = within <= kListed ? Stage::Listed : Stage::Crowded;
    next.shift = 0;
    while (((next.highKey - next.lowKey) >> next.shift) >= static_cast<uint32_t>(kBins)) ++next.shift;
    next.above = valueOfKey(next.highKey);
    next.from = next.stage == Stage::Listed ? valueOfKey(next.lowKey) : infinity();
    state = next;
  }
};

// Writes the masks but for what lies between a group's bounds, lists that, and sums what lies above. A thread has a word of 32
// blocks for four queries; lane j of each warp keeps the count of the word's bit j.
template <bool PerBlock>  // a group is a block: the sums of a word's 32 blocks stay apart
struct Sift {
  static constexpr const char* name = "selection sift";
  static constexpr int threads = 256, blocksPerSM = 4, warps = threads / 32, queries = kSiftTokens / threads, batch = 2;
  static constexpr int cutsAt = 32 * 16, sumsAt = cutsAt + 32 * 8;
  static constexpr int sharedBytes = sumsAt + (PerBlock ? 32 : 1) * warps * 8;
  using Arguments = Search;
  struct Bounds {
    int32_t ownFirst, ownLength, first, length;
  };
  static TILE_DEVICE void list(const Search& x, int head, int block, int s, float gate) {
    const int group = x.rows.groupOf(head, block);
    const uint32_t at = tile::atomicAdd(&x.state[group].listed, 1u);
    const auto flat = static_cast<uint32_t>(int64_t{x.rows.rowOf(head, block)} * x.plan.tokens + s);
    if (at < static_cast<uint32_t>(kListed)) x.list[int64_t{group} * kListed + at] = {{orderedKey(gate), flat}};
  }
  static TILE_DEVICE void run(const Search& x) {
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

// Finds the last entry taken among those between a group's bounds. One thread block per group.
struct Settle {
  static constexpr const char* name = "selection settling";
  static constexpr int threads = 512, blocksPerSM = 1, warps = threads / 32, mostBins = 2048, levels = 3;
  static constexpr int highsAt = mostBins * 4, countsAt = mostBins * 8, scratchAt = countsAt + mostBins * 4, resultAt = scratchAt + warps * 8;
  static constexpr int sharedBytes = resultAt + 5 * 8;
  using Arguments = Search;
  static TILE_DEVICE int shiftOf(int level) { return level == 0 ? 21 : level == 1 ? 10 : 0; }
  static TILE_DEVICE int binsOf(int level) { return level == 2 ? 1024 : 2048; }

  /// Calls visit(active, key, flat) for the entries between the bounds; every thread as often, inactive where it has none.
  template <class Visit>
  static TILE_DEVICE void forEach(const Search& x, const GroupState& state, int group, const Visit& visit) {
    const int thread = tile::threadIndex();
    if (state.stage == Stage::Listed) {
      const auto listed = static_cast<int>(state.listed);
      for (int i0 = 0; i0 < listed; i0 += threads) {
        tile::Words2 entry{};
        const bool active = tile::within(i0 + thread, listed);
        if (active) entry = x.list[int64_t{group} * kListed + i0 + thread];
        visit(active, entry.word[0], entry.word[1]);
      }
      return;
    }
    for (int row = 0; row < x.rows.rows(); ++row) {
      const int block = x.rows.block(group, row);
      const float* gates = x.row(x.rows.head(group, row), block);
      const int ownFirst = x.plan.start[block], ownEnd = x.plan.start[block + 1], end = x.plan.sequenceEnd[block];
      for (int s0 = x.plan.sequenceFirst[block]; s0 < end; s0 += threads) {
        const int s = s0 + thread;
        const bool candidate = tile::within(s, end) && (s < ownFirst || s >= ownEnd);
        const uint32_t key = candidate ? orderedKey(gates[s]) : 0;
        visit(candidate && key >= state.lowKey && key <= state.highKey, key, static_cast<uint32_t>(int64_t{row} * x.plan.tokens + s));
      }
    }
  }

  struct Found {
    double above, inBin;  // weight, in units of the gate, of what stands above the bin; in it
    int64_t countAbove, count, bin;
  };

  /// Shared memory adds 32 bits in one instruction and 64 in a loop: the carry goes by hand.
  static TILE_DEVICE void addLow(int bin, uint32_t low) {
    if (low == 0) return;
    const uint32_t before = tile::atomicAdd(tile::sharedWindow<uint32_t>(0, mostBins), bin, low);
    if (before + low < before) tile::atomicAdd(tile::sharedWindow<uint32_t>(highsAt, mostBins), bin, 1u);
  }
  static TILE_DEVICE uint64_t lowsOf(int bin) {
    return uint64_t{tile::sharedWindow<uint32_t>(highsAt, mostBins).get(bin)} << 32 | tile::sharedWindow<uint32_t>(0, mostBins).get(bin);
  }

  /// Adds to the histogram; equal bins of a warp at once, for where all gates are equal.
  static TILE_DEVICE void tally(bool active, int bin, uint32_t low) {
    const auto counts = tile::sharedWindow<uint32_t>(countsAt, mostBins);
    const uint32_t votes = tile::ballot(active);
    if (votes == 0) return;
    const int leader = tile::lowestBit(votes), common = tile::shuffle(bin, leader);
    if (tile::ballot(active && bin == common) == votes) {
      const uint32_t sum = tile::warpSum(active ? low : 0u);  // of 21 bits each
      if (tile::laneIndex() != leader) return;
      tile::atomicAdd(counts, bin, static_cast<uint32_t>(tile::populationCount(votes)));
      addLow(bin, sum);
    } else if (active) {
      tile::atomicAdd(counts, bin, 1u);
      addLow(bin, low);
    }
  }

  static TILE_DEVICE void clear(int bins) {
    const auto words = tile::sharedWindow<uint32_t>(0, 3 * mostBins);
    for (int bin = tile::threadIndex(); bin < bins; bin += threads)
      for (int part = 0; part < 3; ++part) words.set(part * mostBins + bin, 0u);
    tile::barrier();
  }

  /// The topmost bin in which the budget is met, the last one with entries where rounding left it a hair short.
  template <class Weight, class Reached>
  static TILE_DEVICE Found descend(int bins, double above, const Weight& weightOf, const Reached& reached) {
    const auto counts = tile::sharedWindow<uint32_t>(countsAt, mostBins);
    const auto scratch = tile::sharedWindow<double>(scratchAt, warps);
    const auto scratch8 = tile::sharedWindow<int64_t>(scratchAt, warps);
    const auto scratch4 = tile::sharedWindow<float>(scratchAt, warps);
    const auto weights = tile::sharedWindow<double>(resultAt, 2);
    const auto numbers = tile::sharedWindow<int64_t>(resultAt + 16, 3);
    const int thread = tile::threadIndex(), perThread = bins / threads;
    tile::barrier();
    double weight = 0;
    int64_t count = 0;
    for (int j = 0; j < perThread; ++j) {
      const int bin = bins - 1 - (thread * perThread + j);
      weight += weightOf(bin, counts.get(bin), lowsOf(bin));
      count += counts.get(bin);
    }
    double before = above + sumBefore(weight, scratch);
    int64_t countBefore = sumBefore(count, scratch8);
    const bool here = count > 0 && reached(before + weight, countBefore + count);
    int chosen = -static_cast<int>(tile::blockMax(here ? static_cast<float>(-thread) : static_cast<float>(-threads), scratch4, warps));
    if (chosen == threads) chosen = static_cast<int>(tile::blockMax(count > 0 ? static_cast<float>(thread) : -1.0f, scratch4, warps));
    if (thread == (chosen < 0 ? 0 : chosen)) {
      Found found{above, 0, 0, 0, 0};
      for (int j = 0; j < perThread; ++j) {
        const int bin = bins - 1 - (thread * perThread + j);
        const uint32_t entries = counts.get(bin);
        if (entries == 0) continue;
        found = {before, weightOf(bin, entries, lowsOf(bin)), countBefore, entries, bin};
        before += found.inBin;
        countBefore += entries;
        if (reached(before, countBefore)) break;
      }
      weights.set(0, found.above);
      weights.set(1, found.inBin);
      numbers.set(0, found.countAbove);
      numbers.set(1, found.count);
      numbers.set(2, found.bin);
    }
    tile::barrier();
    return {weights.get(0), weights.get(1), numbers.get(0), numbers.get(1), numbers.get(2)};
  }

  // All gates in a bin share sign, exponent and leading mantissa bits, so their sum is exact: count·base + ulp·lows.
  static TILE_DEVICE double weightOf(const GroupState& state, uint32_t binKey, uint32_t count, uint64_t lows) {
    if (count == 0) return 0;
    const double base = static_cast<double>(valueOfKey(binKey));
    const double unit = static_cast<double>(valueOfKey(binKey + 1)) - base;
    const double rest = lows ? static_cast<double>(lows) * unit : 0;  // unit may be infinite where nothing lies above the base
    return static_cast<double>(count) * (base - state.least) + rest;
  }

  static TILE_DEVICE void take(const Search& x, int group, int row, int s) {
    const int block = x.rows.block(group, row), head = x.rows.head(group, row);
    tile::atomicOr(&x.selection[(int64_t{head} * x.plan.tokens + s) * x.plan.words() + block / 32], tile::setBit(0, block % 32));
    tile::atomicAdd(&x.selected[int64_t{head} * x.plan.blocks + block], 1u);
  }

  /// Takes the candidates among the first `wanted` entries of weight 0: those with the least key, the own ones and, upstream, those of
  /// other sequences.
  static TILE_DEVICE void takeZeros(const Search& x, const GroupState& state, int group, int64_t wanted) {
    const auto warpCounts = tile::sharedWindow<int32_t>(scratchAt, warps);
    const int thread = tile::threadIndex();
    int64_t seen = 0;
    for (int row = 0; row < x.rows.rows() && seen < wanted; ++row) {
      const int block = x.rows.block(group, row);
      const float* gates = x.row(x.rows.head(group, row), block);
      const int ownFirst = x.plan.start[block], ownEnd = x.plan.start[block + 1];
      const int first = x.plan.sequenceFirst[block], end = x.plan.sequenceEnd[block];
      for (int s0 = 0; s0 < x.plan.tokens && seen < wanted; s0 += threads) {
        const int s = s0 + thread;
        const bool inside = s < x.plan.tokens, valid = inside && s >= first && s < end, own = valid && s >= ownFirst && s < ownEnd;
        bool listed = valid && !own && orderedKey(gates[s]) == state.leastKey;
        if (own) listed = x.rule.scope != SelectionScope::Overall;
        if (inside && !valid) listed = x.rule.semantics == Semantics::Upstream;
        const uint32_t votes = tile::ballot(listed);
        if (tile::laneIndex() == 0) warpCounts.set(tile::warpIndex(), tile::populationCount(votes));
        tile::barrier();
        int64_t rank = seen + tile::populationCount(votes & ((1u << tile::laneIndex()) - 1u));
        for (int w = 0; w < warps; ++w) {
          if (w < tile::warpIndex()) rank += warpCounts.get(w);
          seen += warpCounts.get(w);
        }
        tile::barrier();
        if (listed && valid && !own && rank < wanted) take(x, group, row, s);
      }
    }
  }

  static TILE_DEVICE void run(const Search& x) {
    const int group = tile::blockIndex().x, thread = tile::threadIndex();
    const GroupState state = x.state[group];
    if (state.stage == Stage::Done) {
      if (state.zeros > 0) takeZeros(x, state, group, state.zeros);
      return;
    }
    double above = 0;
    if (!state.byCount) {
      for (int part = thread; part < x.siftParts; part += threads) above += x.siftSums[int64_t{group} * x.siftParts + part];
      above = tile::blockSum(above, tile::sharedWindow<double>(scratchAt, warps), warps);
      above -= static_cast<double>(state.aboveCount) * state.least;
    }
    const double unit = state.range * state.total;  // weights are in units of the gate here
    int64_t budget = state.budget - state.aboveCount;
    uint32_t key = 0;
    Found found{};
    for (int level = 0; level < levels; ++level) {
      const int shift = shiftOf(level);
      if (level + 1 < levels && (state.lowKey >> shift) == (state.highKey >> shift)) {
        key = state.lowKey >> shift << shift;
        continue;
      }
      clear(binsOf(level));
      const uint32_t prefix = key, known = level == 0 ? 0u : ~0u << shiftOf(level == 0 ? 0 : level - 1);
      forEach(x, state, group, [&](bool active, uint32_t mine, uint32_t) {
        tally(active && (mine & known) == prefix, static_cast<int>(mine >> shift) & (binsOf(level) - 1), mine & ((1u << shift) - 1u));
      });
      found = descend(
          binsOf(level), above, [&](int bin, uint32_t count, uint64_t lows) { return weightOf(state, prefix | static_cast<uint32_t>(bin) << shift, count, lows); },
          [&](double weight, int64_t count) { return state.byCount ? count >= budget : weight / unit >= state.need; });
      above = found.above;
      budget -= found.countAbove;
      key = prefix | static_cast<uint32_t>(found.bin) << shift;
    }

    // All bits are known: how many of the entries with this very key?
    int64_t needed = budget, limit = INT64_MAX;
    if (!state.byCount) {
      const double one = found.count > 0 ? found.inBin / static_cast<double>(found.count) : 0;
      needed = 1;
      if (one > 0) {
        needed = static_cast<int64_t>((state.need * unit - above) / one);
        needed = needed < 1 ? 1 : needed > found.count ? found.count : needed;
        while (needed > 1 && (above + static_cast<double>(needed - 1) * one) / unit >= state.need) --needed;
        while (needed < found.count && (above + static_cast<double>(needed) * one) / unit < state.need) ++needed;
      }
    }
    // Weight 0 (the least gate) ranks among the own entries, which stand in the list with weight 0: the front of those decides.
    const bool ranksOwn = x.rule.mode == SelectionMode::Threshold && key == state.leastKey;
    if (ranksOwn) {
      limit = -1;
    } else if (needed < found.count) {  // the first by flat position, searched as the key was
      uint32_t place = 0;  // ~flat
      budget = needed;
      for (int level = 0; level < levels; ++level) {
        const int shift = shiftOf(level);
        const uint32_t prefix = place, known = level == 0 ? 0u : ~0u << shiftOf(level == 0 ? 0 : level - 1);
        clear(binsOf(level));
        forEach(x, state, group, [&](bool active, uint32_t mine, uint32_t flat) {
          tally(active && mine == key && (~flat & known) == prefix, static_cast<int>(~flat >> shift) & (binsOf(level) - 1), 0);
        });
        const Found at = descend(
            binsOf(level), 0, [](int, uint32_t, uint64_t) { return 0.0; }, [&](double, int64_t count) { return count >= budget; });
        budget -= at.countAbove;
        place = prefix | static_cast<uint32_t>(at.bin) << shift;
      }
      limit = int64_t{~place};
    }
    forEach(x, state, group, [&](bool active, uint32_t mine, uint32_t flat) {
      if (active && (mine > key || (mine == key && int64_t{flat} <= limit)))
        take(x, group, static_cast<int>(flat / static_cast<uint32_t>(x.plan.tokens)), static_cast<int>(flat % static_cast<uint32_t>(x.plan.tokens)));
    });
    if (ranksOwn) takeZeros(x, state, group, needed < 2 ? needed : 2);
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
  s.list = after(s.counts, groups * kBins * 4);
  s.total = after(s.list, groups * kListed * sizeof(tile::Words2));
  return s;
}

}  // namespace

size_t groupScratchBytes(const PlanView& plan, int32_t heads, SelectionScope scope) { return sizesOf(plan, heads, scope).total; }

void selectGroups(tile::Stream stream, const SelectionJob& job) {
  const Sizes sizes = sizesOf(job.plan, job.heads, job.rule.scope);
  auto* base = static_cast<unsigned char*>(job.scratch);
  Search x{};
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
  const tile::Extent parts{sizes.parts, sizes.groups}, words{tile::divideUp(job.plan.tokens, kSiftTokens), job.plan.words(), job.heads};
  tile::launch<Sample>(stream, {sizes.groups}, Sample::sharedBytes, x);
  tile::launch<Survey<false>>(stream, parts, Survey<false>::sharedBytes, x);
  tile::launch<Aim<false>>(stream, {sizes.groups}, Aim<false>::sharedBytes, x);
  tile::launch<Survey<true>>(stream, parts, Survey<true>::sharedBytes, x);
  tile::launch<Aim<true>>(stream, {sizes.groups}, Aim<true>::sharedBytes, x);
  if (job.rule.scope == SelectionScope::Block) tile::launch<Sift<true>>(stream, words, Sift<true>::sharedBytes, x);
  else tile::launch<Sift<false>>(stream, words, Sift<false>::sharedBytes, x);
  tile::launch<Settle>(stream, {sizes.groups}, Settle::sharedBytes, x);
}

}  // namespace vmoba::cuda
