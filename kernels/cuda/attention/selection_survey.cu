// The first pass over the gates of a group: which keys the last entry taken can have. See selection_groups.h.
#include "kernels/cuda/attention/selection_groups.h"

namespace vmoba::cuda {
namespace {

/// Of the first survey; rises with the gate.
TILE_DEVICE int binOf(float gate, float origin, float scale) {
  return static_cast<int>(tile::minimum(tile::maximum((gate - origin) * scale, 0.0f), static_cast<float>(kSurveyBins - 1)));
}

struct Sample {
  static constexpr const char* name = "selection sample";
  static constexpr int threads = 512, blocksPerSM = 2, perThread = 8;
  static constexpr int sharedBytes = threads / 32 * 4;
  using Arguments = GroupSearch;
  static TILE_DEVICE void run(const GroupSearch& x) {
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
    for (int bin = thread; bin < kSurveyBins; bin += threads) x.counts[int64_t{group} * kSurveyBins + bin] = 0;
    for (int i = group * threads + thread; i < x.rows.heads * x.plan.blocks; i += tile::gridExtent().x * threads) x.selected[i] = 0;
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
    fresh.scale = least < most ? static_cast<float>(kSurveyBins) / (most - least) : 0.0f;
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
  static constexpr int sharedBytes = kSurveyBins * 4 + threads / 32 * 8;
  using Arguments = GroupSearch;
  static TILE_DEVICE void run(const GroupSearch& x) {
    const int group = tile::blockIndex().y, part = tile::blockIndex().x, thread = tile::threadIndex();
    GroupState& state = x.state[group];
    if (Second && state.stage != Stage::Crowded) return;
    const auto counts = tile::sharedWindow<uint32_t>(0, kSurveyBins);
    const auto scratch = tile::sharedWindow<double>(kSurveyBins * 4, threads / 32);
    const auto scratch4 = tile::sharedWindow<float>(kSurveyBins * 4, threads / 32);
    for (int bin = thread; bin < kSurveyBins; bin += threads) counts.set(bin, 0u);
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
    for (int bin = thread; bin < kSurveyBins; bin += threads)
      if (const uint32_t count = counts.get(bin)) tile::atomicAdd(&x.counts[int64_t{group} * kSurveyBins + bin], count);
  }
};

// Leaves the bins in which the budget can be met. One thread block per group.
template <bool Second>
struct Aim {
  static constexpr const char* name = Second ? "selection second aim" : "selection aim";
  static constexpr int threads = 512, blocksPerSM = 1, perThread = kSurveyBins / threads, warps = threads / 32;
  static constexpr int sharedBytes = warps * 8;
  using Arguments = GroupSearch;

  static TILE_DEVICE void finish(GroupState& state, float above) {
    state.stage = Stage::Done;
    state.above = above;
  }

  static TILE_DEVICE void start(const GroupSearch& x, GroupState& state, int group, double own, double rest, int64_t candidates) {
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
    if (upper && bin >= kSurveyBins - 1) return high;
    while (low < high) {
      const uint32_t middle = low + (high - low) / 2 + (upper ? (high - low) % 2 : 0);
      const int at = binOf(valueOfKey(middle), state.origin, state.scale);
      if (upper) (at <= bin ? low : high) = at <= bin ? middle : middle - 1;
      else (at >= bin ? high : low) = at >= bin ? middle : middle + 1;
    }
    return low;
  }

  static TILE_DEVICE void run(const GroupSearch& x) {
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
      uint32_t& at = x.counts[int64_t{group} * kSurveyBins + kSurveyBins - 1 - (thread * perThread + j)];
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
        value = bin == kSurveyBins - 1 || step == 0 ? highest : static_cast<double>(now.origin) + (bin + 1.01) * step;
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
      const int bin = kSurveyBins - 1 - (thread * perThread + j);
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
      const int bin = kSurveyBins - 1 - (thread * perThread + j);
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
    if (highBin < 0) highBin = kSurveyBins - 1;
    if (lowBin < 0) lowBin = 0;
    int64_t above = 0, within = 0;
    TILE_UNROLL
    for (int j = 0; j < perThread; ++j) {
      const int bin = kSurveyBins - 1 - (thread * perThread + j);
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
    while (((next.highKey - next.lowKey) >> next.shift) >= static_cast<uint32_t>(kSurveyBins)) ++next.shift;
    next.above = valueOfKey(next.highKey);
    next.from = next.stage == Stage::Listed ? valueOfKey(next.lowKey) : infinity();
    state = next;
  }
};

}  // namespace

void aimAtCuts(tile::Stream stream, const GroupSearch& x, int groups) {
  const tile::Extent parts{x.parts, groups};
  tile::launch<Sample>(stream, {groups}, Sample::sharedBytes, x);
  tile::launch<Survey<false>>(stream, parts, Survey<false>::sharedBytes, x);
  tile::launch<Aim<false>>(stream, {groups}, Aim<false>::sharedBytes, x);
  tile::launch<Survey<true>>(stream, parts, Survey<true>::sharedBytes, x);
  tile::launch<Aim<true>>(stream, {groups}, Aim<true>::sharedBytes, x);
}

}  // namespace vmoba::cuda
