#include "kernels/cpu/selection.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/cpu/clones.h"

namespace vmoba::cpu {
namespace {

constexpr int32_t kBins = 4096;

/// A run of entries of one (head, block): gates of positions [begin, end).
struct Run {
  const float* gate;
  uint64_t* bits;
  int32_t begin, end;
  bool own;
  int32_t count() const { return end - begin; }
};

/// Order-preserving integer of a float: -0 equals +0.
int32_t orderedKey(float value) {
  const auto bits = std::bit_cast<int32_t>(value + 0.0f);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

void setRange(uint64_t* bits, int32_t begin, int32_t end) {
  for (int32_t s = begin; s < end;) {
    const int32_t in = s % 64, n = std::min(64 - in, end - s);
    bits[s / 64] |= (n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1) << in;
    s += n;
  }
}

struct Extent {
  float least = std::numeric_limits<float>::infinity(), most = -std::numeric_limits<float>::infinity();
  double sum = 0;
};

VMOBA_CLONES void measure(const float* gate, int64_t n, Extent* extent) {
  constexpr int lanes = 16;
  float least[lanes], most[lanes];
  double sum[lanes] = {};
  for (int j = 0; j < lanes; ++j) least[j] = extent->least, most[j] = extent->most;
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int j = 0; j < lanes; ++j) {
      const float g = gate[i + j];
      least[j] = g < least[j] ? g : least[j];
      most[j] = g > most[j] ? g : most[j];
      sum[j] += static_cast<double>(g);
    }
  for (int j = 0; i < n; ++i, ++j) {
    least[j] = std::min(least[j], gate[i]);
    most[j] = std::max(most[j], gate[i]);
    sum[j] += static_cast<double>(gate[i]);
  }
  for (int j = 0; j < lanes; ++j) {
    extent->least = std::min(extent->least, least[j]);
    extent->most = std::max(extent->most, most[j]);
    extent->sum += sum[j];
  }
}

/// Bits of the 64 gates at `gate` that are greater than `cut`.
VMOBA_CLONES uint64_t greaterBits(const float* gate, float cut) {
  uint8_t greater[64];
  for (int j = 0; j < 64; ++j) greater[j] = gate[j] > cut;
  uint64_t word = 0;
  for (int j = 0; j < 8; ++j) {
    uint64_t eight;
    std::memcpy(&eight, greater + 8 * j, 8);
    word |= (eight * 0x0102040810204080u >> 56) << (8 * j);
  }
  return word;
}

/// Sum of the gates above `cut`.
VMOBA_CLONES double sumAbove(const float* gate, int64_t n, float cut) {
  constexpr int lanes = 16;
  double sum[lanes] = {};
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    uint32_t kept[lanes];
    for (int j = 0; j < lanes; ++j) kept[j] = std::bit_cast<uint32_t>(gate[i + j]) & (0u - static_cast<uint32_t>(gate[i + j] > cut));
    for (int j = 0; j < lanes; ++j) sum[j] += static_cast<double>(std::bit_cast<float>(kept[j]));
  }
  double total = 0;
  for (; i < n; ++i) total += static_cast<double>(gate[i] > cut ? gate[i] : 0.0f);
  for (const double part : sum) total += part;
  return total;
}

/// The first of [from, end) whose gate is `value`, or `end`.
VMOBA_CLONES int32_t nextEqual(const float* gate, int32_t from, int32_t end, float value) {
  constexpr int32_t kPiece = 256;
  for (; from + kPiece <= end; from += kPiece) {
    int32_t equal = 0;
    for (int32_t j = 0; j < kPiece; ++j) equal += gate[from + j] == value;
    if (equal > 0) break;
  }
  while (from < end && gate[from] != value) ++from;
  return from;
}

void selectAbove(const Run& run, float cut) {
  int32_t s = run.begin;
  const auto single = [&](int32_t until) {
    for (; s < until; ++s)
      if (run.gate[s] > cut) run.bits[s / 64] |= uint64_t{1} << (s % 64);
  };
  single(std::min(run.end, (run.begin + 63) / 64 * 64));
  for (; s + 64 <= run.end; s += 64) run.bits[s / 64] |= greaterBits(run.gate + s, cut);
  single(run.end);
}

/// What a group must reach when its entries are taken from the top: a number of entries, or a share of the weights.
struct Goal {
  bool byCount;
  int64_t count = 0;
  double least = 0, range = 1, total = 1, need = 0;

  double weight(int64_t entries, double gateSum) const { return (gateSum - static_cast<double>(entries) * least) / range; }
  bool reached(int64_t entries, double gateSum) const { return byCount ? entries >= count : weight(entries, gateSum) / total >= need; }
};

/// Histogram over kBins bins of falling value; narrows a group to the bin in which the goal is reached.
class Narrowing {
 public:
  Narrowing() : count_(kBins), sum_(kBins) {}
  void clear() {
    std::fill(count_.begin(), count_.end(), 0);
    std::fill(sum_.begin(), sum_.end(), 0.0);
  }
  void add(int32_t bin, float gate) {
    ++count_[static_cast<size_t>(bin)];
    sum_[static_cast<size_t>(bin)] += static_cast<double>(gate);
  }
  /// The highest bin at whose end the goal is reached; what lies above it is added to the running totals. The goal is known to be
  /// reached here, so that the lowest bin in use answers even where sums in another order fall short by their last bit.
  int32_t find(const Goal& goal, int64_t& above, double& aboveSum) const {
    int32_t bin = kBins - 1, lowest = 0;
    while (count_[static_cast<size_t>(lowest)] == 0) ++lowest;
    for (; bin > lowest; --bin) {
      const auto i = static_cast<size_t>(bin);
      if (count_[i] == 0) continue;
      if (goal.reached(above + count_[i], aboveSum + sum_[i])) break;
      above += count_[i];
      aboveSum += sum_[i];
    }
    return bin;
  }

 private:
  std::vector<int64_t> count_;
  std::vector<double> sum_;
};

struct Cut {
  bool reached = false;
  float value = 0;     ///< everything greater is taken
  int64_t ties = 0;    ///< and this many entries equal to it, in flat order
};

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// Values above `low` and up to `high`.
struct Bracket {
  float low = -kInfinity, high = kInfinity;
};

/// Where the cut lies, most likely, by what the goal would be among evenly spread samples.
Bracket guessBracket(std::span<const Run> runs, int64_t entries, const Goal& goal) {
  constexpr int64_t kSamples = 4096, kMargin = kSamples / 25;  // five standard deviations of a rank
  thread_local std::vector<float> samples;
  samples.clear();
  const int64_t stride = entries / kSamples;
  int64_t next = 0;  // offset of the next sample from the run's begin
  for (const Run& run : runs) {
    if (run.own) continue;
    for (; next < run.count(); next += stride)
      if (const float gate = run.gate[run.begin + next]; gate == gate) samples.push_back(gate);
    next -= run.count();
  }
  std::sort(samples.begin(), samples.end(), std::greater<>());
  int64_t at = 0;
  for (double sum = 0; at < std::ssize(samples); ++at) {
    sum += static_cast<double>(samples[static_cast<size_t>(at)]);
    if (goal.reached((at + 1) * stride, sum * static_cast<double>(stride))) break;
  }
  Bracket bracket;
  if (at - kMargin >= 0) bracket.high = samples[static_cast<size_t>(at - kMargin)];
  if (at + kMargin < std::ssize(samples)) bracket.low = samples[static_cast<size_t>(at + kMargin)];
  return bracket;
}

/// Entries above a bracket, and those within it, which `list` receives.
struct Listing {
  int64_t above = 0, listed = 0;
  double aboveSum = 0, listedSum = 0;

  Listing(std::span<const Run> runs, const Bracket& bracket, std::span<float> list) {
    const auto add = [&](float gate) {
      list[static_cast<size_t>(listed++)] = gate;
      listedSum += static_cast<double>(gate);
    };
    constexpr int32_t kPiece = 4096;  // gates that stay in the first-level cache
    for (const Run& run : runs)
      for (int32_t from = run.begin; !run.own && from < run.end; from += kPiece) {
        const int32_t end = std::min(from + kPiece, run.end);
        if (bracket.high < kInfinity) aboveSum += sumAbove(run.gate + from, end - from, bracket.high);
        int32_t s = from;
        for (; s + 64 <= end; s += 64) {
          const uint64_t higher = greaterBits(run.gate + s, bracket.high);
          above += std::popcount(higher);
          for (uint64_t word = greaterBits(run.gate + s, bracket.low) & ~higher; word != 0; word &= word - 1) add(run.gate[s + std::countr_zero(word)]);
        }
        for (; s < end; ++s) {
          if (run.gate[s] > bracket.high) ++above;
          else if (run.gate[s] > bracket.low) add(run.gate[s]);
        }
      }
  }
  bool holds(const Goal& goal) const { return listed > 0 && !(above > 0 && goal.reached(above, aboveSum)) && goal.reached(above + listed, aboveSum + listedSum); }
};

Cut findCut(std::span<const Run> runs, int64_t entries, const Goal& goal, std::span<float> work) {
  constexpr int64_t kFew = 1 << 16;
  thread_local Narrowing histogram;
  Listing listing(runs, entries > kFew ? guessBracket(runs, entries, goal) : Bracket{}, work);
  if (!listing.holds(goal) && listing.listed < entries) listing = Listing(runs, {}, work);
  if (!listing.holds(goal)) return {};
  auto [above, listed, aboveSum, listedSum] = listing;
  // By order-preserving integers, twelve bits at a time.
  while (true) {
    int32_t low = std::numeric_limits<int32_t>::max(), high = std::numeric_limits<int32_t>::min();
    for (int64_t i = 0; i < listed; ++i) {
      low = std::min(low, orderedKey(work[size_t(i)]));
      high = std::max(high, orderedKey(work[size_t(i)]));
    }
    if (low == high) break;
    const uint32_t spread = static_cast<uint32_t>(high) - static_cast<uint32_t>(low);
    const int shift = std::max(0, 32 - std::countl_zero(spread) - 12);
    const auto binOf = [&](float gate) { return static_cast<int32_t>((static_cast<uint32_t>(orderedKey(gate)) - static_cast<uint32_t>(low)) >> shift); };
    histogram.clear();
    for (int64_t i = 0; i < listed; ++i) histogram.add(binOf(work[size_t(i)]), work[size_t(i)]);
    const int32_t bin = histogram.find(goal, above, aboveSum);
    int64_t kept = 0;
    for (int64_t i = 0; i < listed; ++i) {
      const float gate = work[size_t(i)];
      work[size_t(kept)] = gate;
      kept += binOf(gate) == bin;
    }
    listed = kept;
  }
  Cut cut{true, work[0], 0};
  const double value = static_cast<double>(cut.value);
  if (goal.byCount) {
    cut.ties = goal.count - above;
  } else {
    // The smallest number of equal entries that reaches the share; at least one.
    int64_t low = 1, high = listed;
    while (low < high) {
      const int64_t middle = (low + high) / 2;
      if (goal.reached(above + middle, aboveSum + static_cast<double>(middle) * value)) high = middle;
      else low = middle + 1;
    }
    cut.ties = low;
  }
  return cut;
}

void take(std::span<const Run> runs, const Cut& cut) {
  int64_t ties = cut.ties;
  for (const Run& run : runs) {
    if (run.own) continue;
    selectAbove(run, cut.value);
    for (int32_t s = run.begin; ties > 0 && (s = nextEqual(run.gate, s, run.end, cut.value)) < run.end; ++s, --ties) run.bits[s / 64] |= uint64_t{1} << (s % 64);
  }
}

void takeAll(std::span<const Run> runs) {
  for (const Run& run : runs) setRange(run.bits, run.begin, run.end);
}

/// What a cut by count takes; everything where overflown gates leave too few to count.
void takeReached(std::span<const Run> runs, const Cut& cut) { cut.reached ? take(runs, cut) : takeAll(runs); }

/// Entries of weight 0 taken in flat order, own ones among them unless the scope leaves them out.
void takeFirstZeros(std::span<const Run> runs, float least, bool ownListed, int64_t count) {
  for (const Run& run : runs) {
    if (run.own && !ownListed) continue;
    for (int32_t s = run.begin; count > 0 && s < run.end; ++s)
      if (run.own || run.gate[s] == least) run.bits[s / 64] |= uint64_t{1} << (s % 64), --count;
  }
}

void selectShare(std::span<const Run> runs, const SelectionRule& rule, std::span<float> work) {
  Extent all, own, others;
  for (const Run& run : runs) measure(run.gate + run.begin, run.count(), run.own ? &own : &others);
  all.least = std::min(own.least, others.least);
  all.most = std::max(own.most, others.most);
  int64_t ownCount = 0, otherCount = 0;
  for (const Run& run : runs) (run.own ? ownCount : otherCount) += run.count();
  const double spread = static_cast<double>(all.most) - static_cast<double>(all.least);
  Goal goal{false, 0, static_cast<double>(all.least), spread <= 1e-6 ? 1 : spread};
  goal.total = goal.weight(ownCount + otherCount, own.sum + others.sum) + 1e-6;
  goal.need = std::max(0.0, static_cast<double>(rule.tau) - goal.weight(ownCount, own.sum) / goal.total);
  const bool ownListed = rule.scope != SelectionScope::Overall;
  const bool twoOnly = rule.semantics == Semantics::Upstream && (rule.scope == SelectionScope::QueryHead || rule.scope == SelectionScope::Block);
  if (otherCount == 0) return;
  if (others.most == all.least) {  // every candidate weighs nothing: the first one is taken, or the share is never reached
    // Upstream lists the entries of other sequences too, with weight 0: they fill places but are never attended to.
    const int64_t foreign = rule.semantics == Semantics::Upstream ? runs.front().begin : 0;
    if (goal.need <= 0) takeFirstZeros(runs, all.least, ownListed, 1 - foreign);
    else if (twoOnly) takeFirstZeros(runs, all.least, ownListed, 2 - foreign);
    else takeAll(runs);
    return;
  }
  Cut cut = findCut(runs, otherCount, goal, work);
  if (cut.reached) return take(runs, cut);
  if (!twoOnly) return takeAll(runs);
  takeReached(runs, findCut(runs, otherCount, {true, std::min<int64_t>(2, otherCount)}, work));
}

void selectBest(std::span<const Run> runs, int64_t budget, std::span<float> work) {
  int64_t otherCount = 0;
  for (const Run& run : runs) (run.own ? budget : otherCount) += run.own ? -run.count() : run.count();
  if (budget <= 0 || otherCount == 0) return;
  if (budget >= otherCount) return takeAll(runs);
  takeReached(runs, findCut(runs, otherCount, {true, budget}, work));
}

/// Entries of (head, block) in flat order: before, in, and behind the own block, within the sequence.
void appendRuns(std::vector<Run>& runs, const float* gate, uint64_t* bits, const BlockPlan& plan, int32_t block) {
  const Range range = rivalsOf(plan, block);
  const int32_t begin = plan.start[size_t(block)], end = plan.start[size_t(block) + 1];
  for (const Run& run : {Run{gate, bits, range.begin, begin, false}, Run{gate, bits, begin, end, true}, Run{gate, bits, end, range.end, false}})
    if (run.count() > 0) runs.push_back(run);
}

constexpr int kColumns = 16;

/// The `budget` best blocks of 16 neighbouring queries at once: the cut-off's bits are found one by one, for all queries together.
/// keys [blocks][16] hold the least integer where a block is no candidate; taken [blocks][16] receives 0/1.
VMOBA_CLONES void bestOfColumns(const int32_t* keys, int32_t blocks, const int32_t* budget, int32_t* taken) {
  uint32_t cut[kColumns] = {};
  for (int bit = 31; bit >= 0; --bit) {
    int32_t candidate[kColumns], count[kColumns] = {};
    for (int j = 0; j < kColumns; ++j) candidate[j] = static_cast<int32_t>((cut[j] | (1u << bit)) ^ 0x80000000u);
    for (int32_t c = 0; c < blocks; ++c)
      for (int j = 0; j < kColumns; ++j) count[j] += keys[c * kColumns + j] >= candidate[j];
    for (int j = 0; j < kColumns; ++j) cut[j] |= count[j] >= budget[j] ? 1u << bit : 0u;
  }
  int32_t level[kColumns], ties[kColumns];
  for (int j = 0; j < kColumns; ++j) level[j] = static_cast<int32_t>(cut[j] ^ 0x80000000u), ties[j] = budget[j];
  for (int32_t c = 0; c < blocks; ++c)
    for (int j = 0; j < kColumns; ++j) ties[j] -= keys[c * kColumns + j] > level[j];
  for (int32_t c = 0; c < blocks; ++c)
    for (int j = 0; j < kColumns; ++j) {
      const int32_t key = keys[c * kColumns + j], tie = (key == level[j]) & (ties[j] > 0);
      taken[c * kColumns + j] = (key > level[j]) | tie;
      ties[j] -= tie;
    }
}

constexpr int32_t kNoCandidate = std::numeric_limits<int32_t>::min();

void selectColumns(const float* gate, int64_t stride, const BlockPlan& plan, const SelectionRule& rule, int64_t head, const SelectionBits& bits,
                   std::span<float> work) {
  const int32_t blocks = plan.blocks(), tokens = plan.tokens();
  auto* keys = reinterpret_cast<int32_t*>(work.data());
  int32_t* taken = keys + int64_t{blocks} * kColumns;
  int32_t first = 0;  // block of the first column
  for (int32_t s0 = 0; s0 < tokens; s0 += kColumns) {
    const int32_t columns = std::min(kColumns, tokens - s0);
    while (plan.start[size_t(first) + 1] <= s0) ++first;
    int32_t budget[kColumns];
    std::fill_n(budget, kColumns, std::min(rule.k, blocks) - 1);
    for (int32_t c = 0; c < blocks; ++c) {
      const Range range = rivalsOf(plan, c);
      for (int32_t j = 0; j < kColumns; ++j) {
        const int32_t s = s0 + j;
        const bool own = s >= plan.start[size_t(c)] && s < plan.start[size_t(c) + 1];
        const bool candidate = s < tokens && s >= range.begin && s < range.end && !own;
        keys[c * kColumns + j] = candidate ? orderedKey(gate[c * stride + s]) : kNoCandidate;
      }
    }
    if (budget[0] > 0) {
      bestOfColumns(keys, blocks, budget, taken);
    } else {
      std::fill(taken, taken + int64_t{blocks} * kColumns, 0);
    }
    for (int32_t c = 0; c < blocks; ++c) {
      uint64_t word = 0;
      for (int32_t j = 0; j < columns; ++j) word |= static_cast<uint64_t>((taken[c * kColumns + j] != 0) & (keys[c * kColumns + j] != kNoCandidate)) << j;
      bits.row(head, c)[s0 / 64] |= word << (s0 % 64);
    }
  }
}

/// Threshold per query: few blocks each, so the largest is looked for as often as blocks are taken.
void selectShareOfColumns(const float* gate, int64_t stride, const BlockPlan& plan, const SelectionRule& rule, int64_t head, const SelectionBits& bits,
                          std::span<float> work) {
  const int32_t blocks = plan.blocks();
  float* weight = work.data();
  for (int32_t own = 0; own < blocks; ++own) {
    const Range range = rivalsOf(plan, own);
    int32_t low = 0, high = blocks;
    while (plan.start[size_t(low)] < range.begin) ++low;
    while (plan.start[size_t(high)] > range.end) --high;
    for (int32_t s = plan.start[size_t(own)]; s < plan.start[size_t(own) + 1]; ++s) {
      float least = gate[low * stride + s], most = least;
      for (int32_t c = low; c < high; ++c) {
        weight[c] = gate[c * stride + s];
        least = std::min(least, weight[c]);
        most = std::max(most, weight[c]);
      }
      if (!(most - least < kInfinity)) continue;  // an overflown gate: what it comes from overflows in attention, which says so
      const double spread = static_cast<double>(most) - static_cast<double>(least), divisor = spread <= 1e-6 ? 1 : spread;
      double total = 1e-6;
      for (int32_t c = low; c < high; ++c) total += (static_cast<double>(weight[c]) - static_cast<double>(least)) / divisor;
      const double need = std::max(0.0, static_cast<double>(rule.tau) - (static_cast<double>(weight[own]) - static_cast<double>(least)) / divisor / total);
      weight[own] = least;  // own entries stand in the list with weight 0
      double sum = 0;
      bool reached = false;
      int32_t foreign = rule.semantics == Semantics::Upstream ? low : 0;  // blocks of earlier sequences, listed with weight 0
      const auto takeNext = [&] {
        int32_t best = -1;
        for (int32_t c = low; c < high; ++c)
          if (weight[c] >= least && (best < 0 || weight[c] > weight[best])) best = c;
        if (best < 0) return false;
        if (weight[best] == least && foreign > 0) return --foreign, true;
        sum += (static_cast<double>(weight[best]) - static_cast<double>(least)) / divisor;
        bits.row(head, best)[s / 64] |= uint64_t{1} << (s % 64);
        weight[best] = -std::numeric_limits<float>::infinity();
        return true;
      };
      const bool twoOnly = rule.semantics == Semantics::Upstream;
      // With the two-entry fallback nothing may be taken before it is known whether the share can be reached.
      double reachable = 0;
      if (twoOnly)
        for (int32_t c = low; c < high; ++c) reachable += (static_cast<double>(weight[c]) - static_cast<double>(least)) / divisor;
      if (twoOnly && !(reachable / total >= need)) {
        takeNext();
        takeNext();
        continue;
      }
      while (!reached && takeNext()) reached = sum / total >= need;
    }
  }
}

}  // namespace

Range rivalsOf(const BlockPlan& plan, int32_t block) {
  const auto next = std::upper_bound(plan.sequenceStart.begin(), plan.sequenceStart.end(), plan.start[size_t(block)]);
  if (next == plan.sequenceStart.begin() || next == plan.sequenceStart.end()) return {0, plan.tokens()};
  return {*(next - 1), *next};
}

bool selectsEverything(const BlockPlan& plan, const SelectionRule& rule) {
  if (plan.blocks() <= 1) return rule.semantics == Semantics::Exact;
  if (rule.mode == SelectionMode::TopK) return rule.k >= plan.blocks();
  return rule.semantics == Semantics::Exact && rule.tau >= 1;
}

void selectAll(const BlockPlan& plan, const SelectionBits& bits) {
  for (int32_t c = 0; c < plan.blocks(); ++c) {
    const Range range = rivalsOf(plan, c);
    for (int32_t h = 0; h < bits.heads; ++h) setRange(bits.row(h, c), range.begin, range.end);
  }
}

int64_t selectionWorkFloats(const BlockPlan& plan, int32_t heads, const SelectionRule& rule) {
  if (rule.scope == SelectionScope::QueryHead) return int64_t{plan.blocks()} * kColumns * 2;
  const bool headWise = rule.scope == SelectionScope::HeadGlobal;
  return int64_t{plan.blocks()} * plan.tokens() * (headWise ? 1 : heads) + 1;
}

void select(const float* gate, int64_t stride, const BlockPlan& plan, const SelectionRule& rule, int32_t firstHead, int32_t heads, const SelectionBits& bits,
            std::span<float> work) {
  const int32_t blocks = plan.blocks();
  const auto gateOf = [&](int32_t head, int32_t block) { return gate + ((int64_t{head} - firstHead) * blocks + block) * stride; };
  for (int32_t h = firstHead; h < firstHead + heads; ++h)
    for (int32_t c = 0; c < blocks; ++c) setRange(bits.row(h, c), plan.start[size_t(c)], plan.start[size_t(c) + 1]);
  if (rule.scope == SelectionScope::QueryHead) {
    const auto columns = rule.mode == SelectionMode::TopK ? selectColumns : selectShareOfColumns;
    for (int32_t h = firstHead; h < firstHead + heads; ++h) columns(gateOf(h, 0), stride, plan, rule, h, bits, work);
    return;
  }
  thread_local std::vector<Run> runs;
  const int64_t k = std::min(rule.k, blocks);
  const auto selectGroup = [&](int64_t entries) {
    if (rule.mode == SelectionMode::Threshold) selectShare(runs, rule, work);
    else selectBest(runs, k * (entries / blocks), work);
    runs.clear();
  };
  runs.clear();
  if (rule.scope == SelectionScope::HeadGlobal) {
    for (int32_t h = firstHead; h < firstHead + heads; ++h) {
      for (int32_t c = 0; c < blocks; ++c) appendRuns(runs, gateOf(h, c), bits.row(h, c), plan, c);
      selectGroup(int64_t{blocks} * plan.tokens());
    }
    return;
  }
  for (int32_t c = 0; c < blocks; ++c) {
    for (int32_t h = firstHead; h < firstHead + heads; ++h) appendRuns(runs, gateOf(h, c), bits.row(h, c), plan, c);
    if (rule.scope == SelectionScope::Block) selectGroup(int64_t{heads} * plan.tokens());
  }
  if (rule.scope == SelectionScope::Overall) selectGroup(int64_t{blocks} * heads * plan.tokens());
}

bool onlyOwnBlocks(const SelectionBits& bits, int64_t head) {
  int64_t set = 0;
  for (int32_t c = 0; c < bits.blocks; ++c)
    for (int64_t w = 0; w < bits.rowWords(); ++w) set += std::popcount(bits.row(head, c)[w]);
  return set == bits.tokens;
}

}  // namespace vmoba::cpu
