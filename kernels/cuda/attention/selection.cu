#include "kernels/cuda/attention/selection.h"
#include "kernels/cuda/tile/launch.h"

#include <algorithm>

namespace vmoba::cuda {
namespace {

// Floats as integers of the same order; both zeros are one value.
TILE_DEVICE uint32_t orderedKey(float value) {
  const uint32_t bits = tile::bitsOfFloat(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
TILE_DEVICE float valueOfKey(uint32_t key) { return tile::floatOfBits(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

// Entries of a group lie in rows of `tokens` gates, one row per (block, head), in flat order.
struct Rows {
  SelectionScope scope;
  int32_t heads, blocks;
  TILE_SHARED_CODE int groups() const {
    return scope == SelectionScope::HeadGlobal ? heads : scope == SelectionScope::Block ? blocks : 1;
  }
  TILE_SHARED_CODE int rows() const {
    return scope == SelectionScope::HeadGlobal ? blocks : scope == SelectionScope::Block ? heads : blocks * heads;
  }
  TILE_DEVICE int block(int group, int row) const {
    return scope == SelectionScope::HeadGlobal ? row : scope == SelectionScope::Block ? group : row / heads;
  }
  TILE_DEVICE int head(int group, int row) const {
    return scope == SelectionScope::HeadGlobal ? group : scope == SelectionScope::Block ? row : row % heads;
  }
  TILE_DEVICE int groupOf(int h, int c) const { return scope == SelectionScope::HeadGlobal ? h : scope == SelectionScope::Block ? c : 0; }
  TILE_DEVICE int rowOf(int h, int c) const { return scope == SelectionScope::HeadGlobal ? c : scope == SelectionScope::Block ? h : c * heads + h; }
};

// How the radix search of one group stands. A key is found eleven, eleven and ten bits at a time.
struct GroupState {
  uint32_t leastKey, mostKey;  // over valid entries
  uint32_t prefix;             // bits found so far, then the key of the last entry taken
  uint32_t done;               // nothing left to search
  uint32_t byCount;            // the budget counts entries (top-k, and upstream's cut-off of two), not weight
  uint32_t zeros;              // entries of weight 0 to take from the front of the list
  int64_t budget;              // entries still to take when byCount
  double need, least, range;   // weight still to reach; weight = (gate - least)/range
  double above, total;         // weight of the entries above the prefix; of all
  int64_t tiesNeeded, ties;    // entries with the found key: to take, present
  int64_t limit;               // flat position of the last of them that is taken
  int64_t extra[2];            // flat positions taken besides; -1 = none
};

constexpr int kLevels = 3;
TILE_SHARED_CODE constexpr int shiftOf(int level) { return level == 0 ? 21 : level == 1 ? 10 : 0; }
TILE_SHARED_CODE constexpr int binsOf(int level) { return level == 2 ? 1024 : 2048; }
constexpr int kMostBins = 2048;

// One thread block's share of a group.
constexpr int kChunkTokens = 16384;

struct Search {
  PlanView plan;
  Rows rows;
  SelectionRule rule;
  int32_t chunks;      // per row
  const float* gate;   // [heads, blocks, tokens]
  uint32_t* selection;
  GroupState* state;   // [groups]
  uint32_t* counts;    // [groups, kMostBins]
  uint64_t* lows;      // [groups, kMostBins] sum of the key bits below the bin's
  double* ownSums;     // [groups, rows*chunks]
};

struct ClearSearch {
  static constexpr const char* name = "clear selection search";
  static constexpr int threads = 256, blocksPerSM = 4;
  struct Arguments {
    Search search;
    int32_t first;  // also the states
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int group = tile::blockIndex().x;
    for (int bin = tile::threadIndex(); bin < kMostBins; bin += threads) {
      a.search.counts[int64_t{group} * kMostBins + bin] = 0;
      a.search.lows[int64_t{group} * kMostBins + bin] = 0;
    }
    if (a.first && tile::threadIndex() == 0) {
      GroupState fresh = {};
      fresh.leastKey = 0xffffffffu;
      fresh.extra[0] = fresh.extra[1] = -1;
      a.search.state[group] = fresh;
    }
  }
};

// Counts the candidates (valid, not own) under the prefix by their next bits.
struct Histogram {
  static constexpr const char* name = "selection histogram";
  static constexpr int threads = 256, blocksPerSM = 2;
  static constexpr int sharedBytes = kMostBins * (8 + 4) + threads / 32 * 8;
  struct Arguments {
    Search search;
    int32_t level;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const Search& x = a.search;
    const int group = tile::blockIndex().y, row = tile::blockIndex().x / x.chunks, chunk = tile::blockIndex().x % x.chunks;
    GroupState& state = x.state[group];
    if (a.level > 0 && state.done) return;
    const int thread = tile::threadIndex(), shift = shiftOf(a.level), bins = binsOf(a.level);
    const int block = x.rows.block(group, row), head = x.rows.head(group, row);
    const auto lows = tile::sharedWindow<uint64_t>(0, kMostBins);
    const auto counts = tile::sharedWindow<uint32_t>(kMostBins * 8, kMostBins);
    const auto scratch = tile::sharedWindow<double>(kMostBins * 12, threads / 32);
    for (int bin = thread; bin < bins; bin += threads) {
      lows.set(bin, uint64_t{0});
      counts.set(bin, 0u);
    }
    tile::barrier();
    const int ownFirst = x.plan.start[block], ownEnd = x.plan.start[block + 1];
    const int from = chunk * kChunkTokens > x.plan.sequenceFirst[block] ? chunk * kChunkTokens : x.plan.sequenceFirst[block];
    const int last = (chunk + 1) * kChunkTokens, end = last < x.plan.sequenceEnd[block] ? last : x.plan.sequenceEnd[block];
    const float* gates = x.gate + (int64_t{head} * x.plan.blocks + block) * x.plan.tokens;
    const uint32_t prefix = a.level > 0 ? state.prefix : 0;
    const uint32_t lowMask = (1u << shift) - 1u;
    double own = 0;
    float least = 3.4e38f, most = -3.4e38f;
    for (int s = from + thread; tile::within(s, end); s += threads) {
      const float value = gates[s];
      const uint32_t key = orderedKey(value);
      if (a.level == 0) {
        least = tile::minimum(least, value);
        most = tile::maximum(most, value);
      }
      if (s >= ownFirst && s < ownEnd) {
        own += static_cast<double>(value);
        continue;
      }
      if (a.level > 0 && (key >> shiftOf(a.level - 1)) != (prefix >> shiftOf(a.level - 1))) continue;
      const int bin = static_cast<int>(key >> shift) & (bins - 1);
      tile::atomicAdd(counts, bin, 1u);
      tile::atomicAdd(lows, bin, static_cast<uint64_t>(key & lowMask));
    }
    if (a.level == 0) {
      least = tile::warpMin(least);
      most = tile::warpMax(most);
      if (tile::laneIndex() == 0 && least <= most) {
        tile::atomicMin(&state.leastKey, orderedKey(least));
        tile::atomicMax(&state.mostKey, orderedKey(most));
      }
      own = tile::blockSum(own, scratch, threads / 32);
      if (thread == 0) x.ownSums[int64_t{group} * tile::gridExtent().x + tile::blockIndex().x] = own;
    }
    tile::barrier();
    for (int bin = thread; bin < bins; bin += threads) {
      const uint32_t count = counts.get(bin);
      if (count == 0) continue;
      tile::atomicAdd(&x.counts[int64_t{group} * kMostBins + bin], count);
      tile::atomicAdd(&x.lows[int64_t{group} * kMostBins + bin], lows.get(bin));
    }
  }
};

// Finds the bin in which the budget is met and descends into it.
struct Descend {
  static constexpr const char* name = "selection descent";
  static constexpr int threads = 256, blocksPerSM = 1, perThread = kMostBins / threads;
  static constexpr int sharedBytes = threads * 16;
  struct Arguments {
    Search search;
    int32_t level;
  };

  // All gates in a bin share sign, exponent and leading mantissa bits, so their sum is exact: count·base + ulp·lows.
  static TILE_DEVICE double weightOf(const GroupState& state, uint32_t binKey, uint32_t count, uint64_t lows) {
    if (count == 0) return 0;
    const double base = static_cast<double>(valueOfKey(binKey));
    const double unit = static_cast<double>(valueOfKey(binKey + 1)) - base;
    const double rest = lows ? static_cast<double>(lows) * unit : 0;  // unit may be infinite where nothing lies above the base
    return (static_cast<double>(count) * (base - state.least) + rest) / state.range;
  }

  static TILE_DEVICE void start(const Search& x, GroupState& state, int group, const double* candidates) {
    const int rows = x.rows.rows();
    const int64_t tokens = x.plan.tokens;
    if (x.rule.mode == SelectionMode::TopK) {
      const int64_t k = x.rule.k < x.plan.blocks ? x.rule.k : x.plan.blocks;
      int64_t own = 0;
      for (int row = 0; row < rows; ++row) {
        const int block = x.rows.block(group, row);
        own += x.plan.start[block + 1] - x.plan.start[block];
      }
      state.byCount = 1;
      state.budget = k * (int64_t{rows} * tokens) / x.plan.blocks - own;
      if (state.budget <= 0) finish(state, 0xffffffffu, -1);
      return;
    }
    int64_t owned = 0, valid = 0;
    for (int row = 0; row < rows; ++row) {
      const int block = x.rows.block(group, row);
      owned += x.plan.start[block + 1] - x.plan.start[block];
      valid += x.plan.sequenceEnd[block] - x.plan.sequenceFirst[block];
    }
    double own = 0;
    for (int64_t i = 0; i < int64_t{rows} * x.chunks; ++i) own += x.ownSums[group * (int64_t{rows} * x.chunks) + i];
    state.least = static_cast<double>(valueOfKey(state.leastKey));
    const double range = static_cast<double>(valueOfKey(state.mostKey)) - state.least;
    state.range = range <= 1e-6 ? 1 : range;
    const double ownWeight = (own - static_cast<double>(owned) * state.least) / state.range;
    const double rest = (*candidates - static_cast<double>(valid - owned) * state.least) / state.range;
    state.total = 1e-6 + ownWeight + rest;
    const double need = static_cast<double>(x.rule.tau) - ownWeight / state.total;
    state.need = need > 0 ? need : 0;
    if (rest / state.total < state.need) {
      const bool two = x.rule.semantics == Semantics::Upstream && x.rule.scope == SelectionScope::Block;
      if (!two) return finish(state, 0, INT64_MAX);  // the share is never reached: everything
      state.byCount = 1;
      state.budget = 2;
    }
  }

  static TILE_DEVICE void finish(GroupState& state, uint32_t key, int64_t limit) {
    state.done = 1;
    state.prefix = key;
    state.limit = limit;
  }

  static TILE_DEVICE void run(const Arguments& a) {
    const Search& x = a.search;
    const int group = tile::blockIndex().x, thread = tile::threadIndex(), shift = shiftOf(a.level), bins = binsOf(a.level);
    GroupState& state = x.state[group];
    if (a.level > 0 && state.done) return;
    const auto weights = tile::sharedWindow<double>(0, threads);
    const auto entries = tile::sharedWindow<int64_t>(threads * 8, threads);
    const uint32_t* counts = x.counts + int64_t{group} * kMostBins;
    const uint64_t* lows = x.lows + int64_t{group} * kMostBins;
    if (a.level == 0) {
      double sum = 0;
      for (int j = 0; j < perThread; ++j) {
        const int bin = thread * perThread + j;
        if (counts[bin] == 0) continue;
        const double base = static_cast<double>(valueOfKey(static_cast<uint32_t>(bin) << shift));
        const double unit = static_cast<double>(valueOfKey((static_cast<uint32_t>(bin) << shift) + 1)) - base;
        sum += static_cast<double>(counts[bin]) * base + (lows[bin] ? static_cast<double>(lows[bin]) * unit : 0);
      }
      sum = tile::blockSum(sum, weights, threads / 32);
      if (thread == 0) start(x, state, group, &sum);
      tile::barrier();
      if (state.done) return;
    }
    // Thread t sums the bins [t*perThread, (t+1)*perThread) counted from the top.
    const uint32_t prefix = a.level > 0 ? state.prefix : 0;
    const int perLane = bins / threads;
    double weight = 0;
    int64_t count = 0;
    for (int j = 0; j < perLane; ++j) {
      const int bin = bins - 1 - (thread * perLane + j);
      weight += weightOf(state, prefix | (static_cast<uint32_t>(bin) << shift), counts[bin], lows[bin]);
      count += counts[bin];
    }
    weights.set(thread, weight);
    entries.set(thread, count);
    tile::barrier();
    if (thread != 0) return;
    double above = state.above;
    int64_t budget = state.budget;
    const auto reached = [&](double further, int64_t more) {
      return state.byCount ? more >= budget : more > 0 && (above + further) / state.total >= state.need;
    };
    int slot = 0;
    while (slot < threads && !reached(weights.get(slot), entries.get(slot))) {
      above += weights.get(slot);
      budget -= entries.get(slot);
      ++slot;
    }
    int bin = bins - 1 - slot * perLane;
    double inBin = 0;
    bool found = false;
    for (int last = bin - perLane; slot < threads && bin > last; --bin) {
      inBin = weightOf(state, prefix | (static_cast<uint32_t>(bin) << shift), counts[bin], lows[bin]);
      found = reached(inBin, counts[bin]);
      if (found) break;
      above += inBin;
      budget -= counts[bin];
    }
    if (!found && state.byCount) {  // fewer candidates than the budget: everything
      finish(state, 0, INT64_MAX);
      if (x.rule.mode == SelectionMode::TopK) return;
      state.prefix = state.leastKey;  // at most one candidate, and with weight 0 it ranks among the own entries
      state.limit = -1;
      state.zeros = 2;
      return;
    }
    if (!found) {  // rounding left the share a hair short: the crossing entry is the last one
      for (bin = 0; bin < bins && counts[bin] == 0;) ++bin;
      inBin = weightOf(state, prefix | (static_cast<uint32_t>(bin) << shift), counts[bin], lows[bin]);
      above = state.above - inBin;
      for (int i = 0; i < threads; ++i) above += weights.get(i);
    }
    state.above = above;
    state.budget = budget;
    state.prefix = prefix | (static_cast<uint32_t>(bin) << shift);
    if (a.level + 1 < kLevels) return;

    // All bits are known: how many of the entries with this very key?
    state.ties = counts[bin];
    if (state.byCount) {
      state.tiesNeeded = budget;
    } else {
      const double one = inBin / static_cast<double>(counts[bin]);
      int64_t needed = 1;
      if (one > 0) {
        needed = static_cast<int64_t>((state.need * state.total - above) / one);
        needed = needed < 1 ? 1 : needed > state.ties ? state.ties : needed;
        while (needed > 1 && (above + static_cast<double>(needed - 1) * one) / state.total >= state.need) --needed;
        while (needed < state.ties && (above + static_cast<double>(needed) * one) / state.total < state.need) ++needed;
      }
      state.tiesNeeded = needed;
    }
    state.done = 1;
    state.limit = INT64_MAX;
    // Weight 0 (the least gate) ranks among the own entries, which stand in the list with weight 0: the front of those decides.
    const bool ranksOwn = x.rule.mode == SelectionMode::Threshold && state.prefix == state.leastKey;
    if (ranksOwn) {
      state.zeros = static_cast<uint32_t>(state.tiesNeeded);
      state.tiesNeeded = 0;
      state.limit = -1;
    }
  }
};

// Ranks equal entries by flat position where not all of them are taken. One thread block per group: rare.
struct Locate {
  static constexpr const char* name = "selection ties";
  static constexpr int threads = 256, blocksPerSM = 1;
  static constexpr int sharedBytes = threads / 32 * 4;
  using Arguments = Search;
  static TILE_DEVICE void run(const Search& x) {
    const int group = tile::blockIndex().x, thread = tile::threadIndex();
    GroupState& state = x.state[group];
    const bool zeros = state.zeros > 0;
    const int64_t wanted = zeros ? static_cast<int64_t>(state.zeros) : state.tiesNeeded;
    if (!zeros && (wanted >= state.ties || wanted == 0)) return;
    const uint32_t key = state.prefix;
    tile::barrier();
    const auto warpCounts = tile::sharedWindow<int32_t>(0, threads / 32);
    int64_t seen = 0;
    for (int row = 0; row < x.rows.rows(); ++row) {
      const int block = x.rows.block(group, row), head = x.rows.head(group, row);
      const float* gates = x.gate + (int64_t{head} * x.plan.blocks + block) * x.plan.tokens;
      const int ownFirst = x.plan.start[block], ownEnd = x.plan.start[block + 1];
      const int first = x.plan.sequenceFirst[block], end = x.plan.sequenceEnd[block];
      for (int s0 = 0; s0 < x.plan.tokens; s0 += threads) {
        const int s = s0 + thread;
        const bool inside = s < x.plan.tokens, valid = inside && s >= first && s < end, own = valid && s >= ownFirst && s < ownEnd;
        bool listed = valid && !own && orderedKey(gates[s]) == key;
        if (zeros) {
          if (own) listed = x.rule.scope != SelectionScope::Overall;
          if (inside && !valid) listed = x.rule.semantics == Semantics::Upstream;
        }
        const uint32_t votes = tile::ballot(listed);
        if (tile::laneIndex() == 0) warpCounts.set(tile::warpIndex(), tile::populationCount(votes));
        tile::barrier();
        int64_t rank = seen + tile::populationCount(votes & ((1u << tile::laneIndex()) - 1u));
        for (int w = 0; w < threads / 32; ++w) {
          if (w < tile::warpIndex()) rank += warpCounts.get(w);
          seen += warpCounts.get(w);
        }
        tile::barrier();
        const int64_t flat = int64_t{row} * x.plan.tokens + s;
        if (listed && rank < wanted) {
          if (zeros) {
            if (valid && !own && rank < 2) state.extra[rank] = flat;
          } else if (rank == wanted - 1) {
            state.limit = flat;
          }
        }
      }
      if (seen >= wanted) break;
    }
  }
};

// Writes the masks. A thread owns one word of one query.
struct Mark {
  static constexpr const char* name = "selection mark";
  static constexpr int threads = 256, blocksPerSM = 4;
  struct Arguments {
    Search search;
    int32_t everything;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const Search& x = a.search;
    const int s = tile::blockIndex().x * threads + tile::threadIndex(), word = tile::blockIndex().y, head = tile::blockIndex().z;
    if (!tile::within(s, x.plan.tokens)) return;
    uint32_t bits = 0;
    for (int j = 0; j < 32 && tile::within(word * 32 + j, x.plan.blocks); ++j) {
      const int block = word * 32 + j;
      bool taken = s >= x.plan.start[block] && s < x.plan.start[block + 1];
      if (!taken && s >= x.plan.sequenceFirst[block] && s < x.plan.sequenceEnd[block]) {
        if (a.everything) {
          taken = true;
        } else {
          const GroupState& state = x.state[x.rows.groupOf(head, block)];
          const int64_t flat = int64_t{x.rows.rowOf(head, block)} * x.plan.tokens + s;
          const uint32_t key = orderedKey(x.gate[(int64_t{head} * x.plan.blocks + block) * x.plan.tokens + s]);
          taken = key > state.prefix || (key == state.prefix && flat <= state.limit) || flat == state.extra[0] || flat == state.extra[1];
        }
      }
      if (taken) bits = tile::setBit(bits, j);
    }
    x.selection[(int64_t{head} * x.plan.tokens + s) * x.plan.words() + word] = bits;
  }
};

// One thread per query: the budget is met by a search over the bits of the key, most significant first.
struct SelectPerQuery {
  static constexpr const char* name = "selection per query";
  static constexpr int threads = 128, blocksPerSM = 8;
  using Arguments = Search;
  static TILE_DEVICE void run(const Search& x) {
    const int s = tile::blockIndex().x * threads + tile::threadIndex(), head = tile::blockIndex().y;
    if (!tile::within(s, x.plan.tokens)) return;
    const int blocks = x.plan.blocks, ownBlock = x.plan.blockOf[s];
    const float* gates = x.gate + int64_t{head} * blocks * x.plan.tokens + s;
    const auto valid = [&](int c) { return s >= x.plan.sequenceFirst[c] && s < x.plan.sequenceEnd[c]; };
    const auto valueAt = [&](int c) { return gates[int64_t{c} * x.plan.tokens]; };

    bool byCount = x.rule.mode == SelectionMode::TopK, everything = false;
    int budget = (x.rule.k < blocks ? x.rule.k : blocks) - 1, zeros = 0, candidates = 0;
    double least = 0, range = 1, total = 1, need = 0;
    uint32_t leastKey = 0;
    for (int c = 0; c < blocks; ++c) candidates += valid(c) && c != ownBlock;
    if (!byCount) {
      float low = 3.4e38f, high = -3.4e38f;
      for (int c = 0; c < blocks; ++c) {
        if (!valid(c)) continue;
        low = tile::minimum(low, valueAt(c));
        high = tile::maximum(high, valueAt(c));
      }
      leastKey = orderedKey(low);
      least = static_cast<double>(low);
      range = static_cast<double>(high) - least <= 1e-6 ? 1 : static_cast<double>(high) - least;
      double own = 0, rest = 0;
      total = 1e-6;
      for (int c = 0; c < blocks; ++c) {
        if (!valid(c)) continue;
        const double weight = (static_cast<double>(valueAt(c)) - least) / range;
        total += weight;
        (c == ownBlock ? own : rest) += weight;
      }
      need = static_cast<double>(x.rule.tau) - own / total;
      need = need > 0 ? need : 0;
      if (rest / total < need) {
        if (x.rule.semantics == Semantics::Upstream) {
          byCount = true;
          budget = 2;
        } else {
          everything = true;
        }
      }
    }

    // The key of the last entry taken: the largest for which entries at or above it meet the budget.
    uint32_t key = 0;
    int ties = 0;
    if (everything || (byCount && x.rule.mode == SelectionMode::TopK && budget >= candidates)) {
      ties = candidates;
      key = 0;
    } else if (budget <= 0 && byCount) {
      key = 0xffffffffu;
    } else {
      const auto meets = [&](uint32_t bound) {
        int count = 0;
        double weight = 0;
        for (int c = 0; c < blocks; ++c) {
          if (c == ownBlock || !valid(c)) continue;
          const float value = valueAt(c);
          if (orderedKey(value) < bound) continue;
          ++count;
          weight += (static_cast<double>(value) - least) / range;
        }
        return byCount ? count >= budget : count > 0 && weight / total >= need;
      };
      for (int bit = 31; bit >= 0; --bit)
        if (meets(key | (1u << bit))) key |= 1u << bit;
      int above = 0;
      double weightAbove = 0, one = 0;
      for (int c = 0; c < blocks; ++c) {
        if (c == ownBlock || !valid(c)) continue;
        const double weight = (static_cast<double>(valueAt(c)) - least) / range;
        const uint32_t mine = orderedKey(valueAt(c));
        if (mine > key) {
          ++above;
          weightAbove += weight;
        }
        if (mine == key) {
          ++ties;
          one = weight;
        }
      }
      if (byCount) {
        ties = budget - above < ties ? budget - above : ties;
      } else {
        int needed = 1;
        while (needed < ties && (weightAbove + needed * one) / total < need) ++needed;
        ties = needed;
      }
      // Entries of weight 0 stand in one list with the own block and, upstream, those of other sequences.
      const bool ranksOwn = x.rule.mode == SelectionMode::Threshold && (key <= leastKey || (byCount && above + ties < budget));
      if (ranksOwn) {
        int positive = 0;
        for (int c = 0; c < blocks; ++c) positive += valid(c) && c != ownBlock && orderedKey(valueAt(c)) > leastKey;
        zeros = (byCount ? budget : 1) - positive;
        key = leastKey;
        ties = 0;
      }
    }

    uint32_t* words = x.selection + (int64_t{head} * x.plan.tokens + s) * x.plan.words();
    for (int word = 0; word < x.plan.words(); ++word) {
      uint32_t bits = 0;
      for (int j = 0; j < 32 && tile::within(word * 32 + j, blocks); ++j) {
        const int c = word * 32 + j;
        bool taken = c == ownBlock;
        if (zeros > 0 && (c == ownBlock || (!valid(c) && x.rule.semantics == Semantics::Upstream))) --zeros;
        if (c != ownBlock && valid(c)) {
          const uint32_t mine = orderedKey(valueAt(c));
          if (mine > key || (everything && candidates > 0)) {
            taken = true;
          } else if (mine == key && ties > 0) {
            --ties;
            taken = true;
          } else if (mine == key && zeros > 0) {
            --zeros;
            taken = true;
          }
        }
        if (taken) bits = tile::setBit(bits, j);
      }
      words[word] = bits;
    }
  }
};

struct CountSelected {
  static constexpr const char* name = "count selected";
  static constexpr int threads = 256, blocksPerSM = 4;
  struct Arguments {
    PlanView plan;
    const uint32_t* selection;
    uint32_t* selected;
    uint32_t* map;
    int32_t mapHead;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int head = tile::blockIndex().y, s = tile::blockIndex().x * threads + tile::threadIndex();
    const bool inside = tile::within(s, a.plan.tokens), mapped = a.map && (a.mapHead < 0 || a.mapHead == head);
    const int row = inside ? a.plan.blockOf[s] : -1;
    const bool uniform = tile::ballot(row == tile::shuffle(row, 0)) == 0xffffffffu;  // all lanes in one block of rows?
    for (int word = 0; word < a.plan.words(); ++word) {
      const uint32_t bits = inside ? a.selection[(int64_t{head} * a.plan.tokens + s) * a.plan.words() + word] : 0;
      for (int j = 0; j < 32 && word * 32 + j < a.plan.blocks; ++j) {
        const bool taken = tile::bitOf(bits, j);
        const uint32_t votes = tile::ballot(taken);
        const int block = word * 32 + j;
        if (votes == 0) continue;
        if (tile::laneIndex() == 0) tile::atomicAdd(&a.selected[int64_t{head} * a.plan.blocks + block], static_cast<uint32_t>(tile::populationCount(votes)));
        if (!mapped) continue;
        if (uniform) {
          if (tile::laneIndex() == 0) tile::atomicAdd(&a.map[int64_t{row} * a.plan.blocks + block], static_cast<uint32_t>(tile::populationCount(votes)));
        } else if (taken) {
          tile::atomicAdd(&a.map[int64_t{row} * a.plan.blocks + block], 1u);
        }
      }
    }
  }
};

struct FillWords {
  static constexpr const char* name = "fill words";
  static constexpr int threads = 256, blocksPerSM = 4;
  struct Arguments {
    uint32_t* words;
    int64_t count;
    uint32_t value;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (i < a.count) a.words[i] = a.value;
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

struct Sizes {
  int64_t groups, parts;
  size_t state, lows, ownSums, counts, total;
};

Sizes sizesOf(const PlanView& plan, int32_t heads, SelectionScope scope) {
  const Rows rows{scope, heads, plan.blocks};
  Sizes s{};
  s.groups = rows.groups();
  s.parts = int64_t{rows.rows()} * tile::divideUp(plan.tokens, kChunkTokens);
  s.lows = static_cast<size_t>(s.groups) * ((sizeof(GroupState) + 15) / 16 * 16);
  s.ownSums = s.lows + static_cast<size_t>(s.groups) * kMostBins * 8;
  s.counts = s.ownSums + static_cast<size_t>(s.groups * s.parts) * 8;
  s.total = s.counts + static_cast<size_t>(s.groups) * kMostBins * 4;
  return s;
}

}  // namespace

size_t selectionScratchBytes(const PlanView& plan, int32_t heads, const SelectionRule& rule) {
  return rule.scope == SelectionScope::QueryHead ? 16 : sizesOf(plan, heads, rule.scope).total;
}

void select(tile::Stream stream, const SelectionJob& job) {
  Search search{job.plan, {job.rule.scope, job.heads, job.plan.blocks}, job.rule, tile::divideUp(job.plan.tokens, kChunkTokens), job.gate, job.selection, nullptr, nullptr, nullptr, nullptr};
  const bool everything = job.rule.semantics == Semantics::Exact && job.rule.mode == SelectionMode::Threshold && job.rule.tau >= 1;
  const tile::Extent perWord{tile::divideUp(job.plan.tokens, Mark::threads), job.plan.words(), job.heads};
  if (everything) return tile::launch<Mark>(stream, perWord, 0, {search, 1});
  if (job.rule.scope == SelectionScope::QueryHead)
    return tile::launch<SelectPerQuery>(stream, {tile::divideUp(job.plan.tokens, SelectPerQuery::threads), job.heads}, 0, search);
  const Sizes sizes = sizesOf(job.plan, job.heads, job.rule.scope);
  auto* base = static_cast<unsigned char*>(job.scratch);
  search.state = reinterpret_cast<GroupState*>(base);
  search.lows = reinterpret_cast<uint64_t*>(base + sizes.lows);
  search.ownSums = reinterpret_cast<double*>(base + sizes.ownSums);
  search.counts = reinterpret_cast<uint32_t*>(base + sizes.counts);
  const int groups = static_cast<int>(sizes.groups);
  for (int level = 0; level < kLevels; ++level) {
    tile::launch<ClearSearch>(stream, {groups}, 0, {search, level == 0});
    tile::launch<Histogram>(stream, {static_cast<int>(sizes.parts), groups}, Histogram::sharedBytes, {search, level});
    tile::launch<Descend>(stream, {groups}, Descend::sharedBytes, {search, level});
  }
  tile::launch<Locate>(stream, {groups}, Locate::sharedBytes, search);
  tile::launch<Mark>(stream, perWord, 0, {search, 0});
}

void countSelected(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, uint32_t* selected, int32_t mapHead, uint32_t* map) {
  const int64_t counts = int64_t{heads} * plan.blocks, mapped = int64_t{plan.blocks} * plan.blocks;
  tile::launch<FillWords>(stream, {tile::divideUp(counts, FillWords::threads)}, 0, {selected, counts, 0});
  if (map) tile::launch<FillWords>(stream, {tile::divideUp(mapped, FillWords::threads)}, 0, {map, mapped, 0});
  tile::launch<CountSelected>(stream, {tile::divideUp(plan.tokens, CountSelected::threads), heads}, 0, {plan, selection, selected, map, mapHead});
}

void fallBackToDense(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selected, uint32_t* selection) {
  tile::launch<FallBack>(stream, {tile::divideUp(plan.tokens, FallBack::threads), heads}, FallBack::sharedBytes, {plan, selected, selection, heads});
}

}  // namespace vmoba::cuda
