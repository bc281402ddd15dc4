// The end of a group's search: the very entry at which its budget is met. See selection_groups.h.
#include "kernels/cuda/attention/selection_groups.h"

namespace vmoba::cuda {
namespace {

// Finds the last entry taken among those between a group's bounds. One thread block per group.
struct Settle {
  static constexpr const char* name = "selection settling";
  static constexpr int threads = 512, blocksPerSM = 1, warps = threads / 32, inFlight = 4, mostBins = 2048, levels = 3;
  static constexpr int highsAt = mostBins * 4, countsAt = mostBins * 8, scratchAt = countsAt + mostBins * 4, resultAt = scratchAt + warps * 8;
  static constexpr int sharedBytes = resultAt + 5 * 8;
  using Arguments = GroupSearch;
  static TILE_DEVICE int shiftOf(int level) { return level == 0 ? 21 : level == 1 ? 10 : 0; }
  static TILE_DEVICE int binsOf(int level) { return level == 2 ? 1024 : 2048; }

  /// Calls visit(active, key, flat) for the entries between the bounds; every thread as often, inactive where it has none.
  template <class Visit>
  static TILE_DEVICE void forEach(const GroupSearch& x, const GroupState& state, int group, const Visit& visit) {
    const int thread = tile::threadIndex();
    if (state.stage == Stage::Listed) {
      const auto listed = static_cast<int>(state.listed);
      for (int i0 = thread; i0 - thread < listed; i0 += threads * inFlight) {
        tile::Words2 entry[inFlight];
        TILE_UNROLL
        for (int i = 0; i < inFlight; ++i) {
          entry[i] = {};
          if (tile::within(i0 + i * threads, listed)) entry[i] = x.list[int64_t{group} * kListed + i0 + i * threads];
        }
        TILE_UNROLL
        for (int i = 0; i < inFlight; ++i) visit(tile::within(i0 + i * threads, listed), entry[i].word[0], entry[i].word[1]);
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

  static TILE_DEVICE void take(const GroupSearch& x, int group, int row, int s) {
    const int block = x.rows.block(group, row), head = x.rows.head(group, row);
    tile::atomicOr(&x.selection[(int64_t{head} * x.plan.tokens + s) * x.plan.words() + block / 32], tile::setBit(0, block % 32));
    tile::atomicAdd(&x.selected[int64_t{head} * x.plan.blocks + block], 1u);
  }

  /// Takes the candidates among the first `wanted` entries of weight 0: those with the least key, the own ones and, upstream, those of
  /// other sequences.
  static TILE_DEVICE void takeZeros(const GroupSearch& x, const GroupState& state, int group, int64_t wanted) {
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

  static TILE_DEVICE void run(const GroupSearch& x) {
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

}  // namespace

void settleCuts(tile::Stream stream, const GroupSearch& x, int groups) { tile::launch<Settle>(stream, {groups}, Settle::sharedBytes, x); }

}  // namespace vmoba::cuda
