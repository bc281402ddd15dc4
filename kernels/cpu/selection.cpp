#include "kernels/cpu/selection.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/cpu/clones.h"
#include "kernels/cpu/cut.h"
#ifdef VMOBA_X86_VERSIONS
#include <immintrin.h>
#endif

namespace vmoba::cpu {
namespace {

#ifdef VMOBA_X86_VERSIONS
__attribute__((target("arch=x86-64-v4"))) void measureWhole(const float* gate, int64_t n, float* least, float* most, double* sum) {
  __m512 low = _mm512_loadu_ps(least), high = _mm512_loadu_ps(most);
  __m512d sums[2] = {_mm512_loadu_pd(sum), _mm512_loadu_pd(sum + 8)};
  constexpr __mmask8 kAll = 0xff;  // GCC 12 warns of what the plain conversion leaves undefined
  for (int64_t i = 0; i < n; i += kLanes) {
    const __m512 x = _mm512_loadu_ps(gate + i);
    low = _mm512_mask_mov_ps(low, _mm512_cmp_ps_mask(x, low, _CMP_LT_OQ), x);
    high = _mm512_mask_mov_ps(high, _mm512_cmp_ps_mask(x, high, _CMP_GT_OQ), x);
    sums[0] = _mm512_add_pd(sums[0], _mm512_maskz_cvtps_pd(kAll, _mm256_loadu_ps(gate + i)));
    sums[1] = _mm512_add_pd(sums[1], _mm512_maskz_cvtps_pd(kAll, _mm256_loadu_ps(gate + i + 8)));
  }
  _mm512_storeu_ps(least, low);
  _mm512_storeu_ps(most, high);
  _mm512_storeu_pd(sum, sums[0]);
  _mm512_storeu_pd(sum + 8, sums[1]);
}
__attribute__((target("default")))
#endif
void measureWhole(const float* gate, int64_t n, float* least, float* most, double* sum) {
  for (int64_t i = 0; i < n; i += kLanes)
    for (int j = 0; j < kLanes; ++j) {
      const float g = gate[i + j];
      least[j] = g < least[j] ? g : least[j];
      most[j] = g > most[j] ? g : most[j];
      sum[j] += static_cast<double>(g);
    }
}

void measure(const float* gate, int64_t n, GateExtent* extent) {
  float least[kLanes], most[kLanes];
  double sum[kLanes] = {};
  for (int j = 0; j < kLanes; ++j) least[j] = extent->least, most[j] = extent->most;
  const int64_t whole = n / kLanes * kLanes;
  measureWhole(gate, whole, least, most, sum);
  for (int64_t i = whole; i < n; ++i) {
    const auto j = i - whole;
    least[j] = std::min(least[j], gate[i]);
    most[j] = std::max(most[j], gate[i]);
    sum[j] += static_cast<double>(gate[i]);
  }
  for (int j = 0; j < kLanes; ++j) {
    extent->least = std::min(extent->least, least[j]);
    extent->most = std::max(extent->most, most[j]);
    extent->sum += sum[j];
  }
}

void takeAll(std::span<const Run> runs) {
  for (const Run& run : runs) setRange(run.bits, run.begin, run.end);
}

/// Entries of weight 0 taken in flat order, own ones among them unless the scope leaves them out.
void takeFirstZeros(std::span<const Run> runs, float least, bool ownListed, int64_t count) {
  for (const Run& run : runs) {
    if (run.own && !ownListed) continue;
    for (int32_t s = run.begin; count > 0 && s < run.end; ++s)
      if (run.own || run.gate[s] == least) run.bits[s / 64] |= uint64_t{1} << (s % 64), --count;
  }
}

void selectShare(std::span<const Run> runs, const GateExtents& extents, const SelectionRule& rule, std::span<float> work) {
  const GateExtent &own = extents.own, &others = extents.others;
  GateExtent all;
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
  if (takeUntil(runs, otherCount, goal, work)) return;
  // Overflown gates may leave too few to count.
  if (!twoOnly || !takeUntil(runs, otherCount, {true, std::min<int64_t>(2, otherCount)}, work)) takeAll(runs);
}

void selectBest(std::span<const Run> runs, int64_t budget, std::span<float> work) {
  int64_t otherCount = 0;
  for (const Run& run : runs) (run.own ? budget : otherCount) += run.own ? -run.count() : run.count();
  if (budget <= 0 || otherCount == 0) return;
  if (budget >= otherCount) return takeAll(runs);
  if (!takeUntil(runs, otherCount, {true, budget}, work)) takeAll(runs);  // overflown gates may leave too few to count
}

/// Entries of (head, block) in flat order: before, in, and behind the own block, within the sequence.
void appendRuns(std::vector<Run>& runs, const float* gate, uint64_t* bits, const BlockPlan& plan, int32_t block) {
  const Range range = rivalsOf(plan, block);
  const int32_t begin = plan.start[size_t(block)], end = plan.start[size_t(block) + 1];
  for (const Run& run : {Run{gate, bits, range.begin, begin, false}, Run{gate, bits, begin, end, true}, Run{gate, bits, end, range.end, false}})
    if (run.count() > 0) runs.push_back(run);
}

/// Adds what positions [begin, end) of the runs hold.
void measureRuns(std::span<const Run> runs, int32_t begin, int32_t end, GateExtents& extents) {
  for (const Run& run : runs)
    if (const int32_t from = std::max(begin, run.begin), until = std::min(end, run.end); from < until) measure(run.gate + from, until - from, run.own ? &extents.own : &extents.others);
}

constexpr float kInfinity = std::numeric_limits<float>::infinity();
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
            std::span<float> work, const GateExtents* measured) {
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
    GateExtents extents;
    if (rule.mode == SelectionMode::Threshold) {
      if (measured != nullptr) {
        extents = *measured;
      } else {
        for (int32_t at = 0; at < plan.tokens(); at += kMeasuredTokens) measureRuns(runs, at, at + kMeasuredTokens, extents);
      }
      selectShare(runs, extents, rule, work);
    } else {
      selectBest(runs, k * (entries / blocks), work);
    }
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

void measureGates(const float* gate, int64_t stride, const BlockPlan& plan, int32_t begin, int32_t end, GateExtents& extents) {
  thread_local std::vector<Run> runs;
  runs.clear();
  for (int32_t c = 0; c < plan.blocks(); ++c) appendRuns(runs, gate + c * stride, nullptr, plan, c);
  measureRuns(runs, begin, end, extents);
}

bool onlyOwnBlocks(const SelectionBits& bits, int64_t head) {
  int64_t set = 0;
  for (int32_t c = 0; c < bits.blocks; ++c)
    for (int64_t w = 0; w < bits.rowWords(); ++w) set += std::popcount(bits.row(head, c)[w]);
  return set == bits.tokens;
}

}  // namespace vmoba::cpu
