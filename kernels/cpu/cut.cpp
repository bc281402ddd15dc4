#include "kernels/cpu/cut.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#include "kernels/cpu/clones.h"
#ifdef VMOBA_X86_VERSIONS
#include <immintrin.h>
#endif

namespace vmoba::cpu {
namespace {

constexpr int32_t kBins = 4096;

void clearRange(uint64_t* bits, int32_t begin, int32_t end) {
  for (int32_t s = begin; s < end;) {
    const int32_t in = s % 64, n = std::min(64 - in, end - s);
    bits[s / 64] &= ~((n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1) << in);
    s += n;
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

/// The bits of a word that lie in [begin, end), for the word of positions s to s + 63.
uint64_t validBits(int32_t s, int32_t begin, int32_t end) {
  uint64_t valid = ~uint64_t{0};
  if (begin > s) valid &= ~uint64_t{0} << (begin - s);
  if (end < s + 64) valid &= ~uint64_t{0} >> (s + 64 - end);
  return valid;
}

/// Goes through runs word by word (64 positions): entries above a bracket are marked and counted, those within it listed.
struct Sieve {
  float low, high;
  float* values;      ///< of the entries within; a word writes up to 64 beyond those listed
  uint64_t* within;   ///< of each word, which entries are
  int64_t words = 0, above = 0, listed = 0;
  double aboveSum[kLanes] = {};  ///< of the entries above, by position modulo kLanes
};

#ifdef VMOBA_X86_VERSIONS
__attribute__((target("arch=x86-64-v4"))) void siftRun(Sieve& sieve, const float* gate, uint64_t* bits, int32_t begin, int32_t end) {
  const __m512 low = _mm512_set1_ps(sieve.low), high = _mm512_set1_ps(sieve.high);
  __m512d sum[2] = {_mm512_loadu_pd(sieve.aboveSum), _mm512_loadu_pd(sieve.aboveSum + 8)};
  int64_t listed = sieve.listed;
  for (int32_t s = begin / 64 * 64; s < end; s += 64) {
    const uint64_t valid = validBits(s, begin, end);
    uint64_t above = 0, within = 0;
#pragma GCC unroll 4
    for (int32_t i = 0; i < 64; i += kLanes) {
      const auto here = static_cast<__mmask16>(valid >> i);
      const __m512 x = _mm512_maskz_loadu_ps(here, gate + s + i);
      const __mmask16 higher = _mm512_mask_cmp_ps_mask(here, x, high, _CMP_GT_OQ), between = _mm512_mask_cmp_ps_mask(static_cast<__mmask16>(here & ~higher), x, low, _CMP_GT_OQ);
      const auto first = static_cast<__mmask8>(higher), second = static_cast<__mmask8>(higher >> 8);
      sum[0] = _mm512_add_pd(sum[0], _mm512_maskz_cvtps_pd(first, _mm256_maskz_loadu_ps(first, gate + s + i)));
      sum[1] = _mm512_add_pd(sum[1], _mm512_maskz_cvtps_pd(second, _mm256_maskz_loadu_ps(second, gate + s + i + 8)));
      _mm512_storeu_ps(sieve.values + listed, _mm512_maskz_compress_ps(between, x));
      listed += std::popcount(uint32_t{between});
      above |= uint64_t{higher} << i;
      within |= uint64_t{between} << i;
    }
    bits[s / 64] |= above;
    sieve.above += std::popcount(above);
    sieve.within[sieve.words++] = within;
  }
  sieve.listed = listed;
  _mm512_storeu_pd(sieve.aboveSum, sum[0]);
  _mm512_storeu_pd(sieve.aboveSum + 8, sum[1]);
}
__attribute__((target("default")))
#endif
void siftRun(Sieve& sieve, const float* gate, uint64_t* bits, int32_t begin, int32_t end) {
  for (int32_t s = begin / 64 * 64; s < end; s += 64) {
    const uint64_t valid = validBits(s, begin, end);
    uint64_t above = 0, within = 0, word = 0;
    if (valid == ~uint64_t{0}) {
      word = greaterBits(gate + s, sieve.low);
    } else {
      for (uint64_t left = valid; left != 0; left &= left - 1) word |= uint64_t{gate[s + std::countr_zero(left)] > sieve.low} << std::countr_zero(left);
    }
    for (; word != 0; word &= word - 1) {
      const int i = std::countr_zero(word);
      const float g = gate[s + i];
      const bool higher = g > sieve.high;
      (higher ? above : within) |= uint64_t{1} << i;
      if (higher) sieve.aboveSum[i % kLanes] += static_cast<double>(g);
      else sieve.values[sieve.listed++] = g;
    }
    bits[s / 64] |= above;
    sieve.above += std::popcount(above);
    sieve.within[sieve.words++] = within;
  }
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

/// Least and greatest orderedKey.
VMOBA_CLONES void measureKeys(const float* values, int64_t n, int32_t* least, int32_t* most) {
  int32_t low = std::numeric_limits<int32_t>::max(), high = std::numeric_limits<int32_t>::min();
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<int32_t>(values[i] + 0.0f);
    const int32_t key = bits ^ ((bits >> 31) & 0x7fffffff);
    low = key < low ? key : low;
    high = key > high ? key : high;
  }
  *least = low;
  *most = high;
}

/// Where the goal is reached among `listed` entries at `from`, below `above` others; `work` has room for as many and may be the same.
Cut narrow(const float* from, int64_t listed, const Goal& goal, int64_t above, double aboveSum, float* work) {
  thread_local Narrowing histogram;
  // By order-preserving integers, twelve bits at a time.
  while (true) {
    int32_t low, high;
    measureKeys(from, listed, &low, &high);
    if (low == high) break;
    const uint32_t spread = static_cast<uint32_t>(high) - static_cast<uint32_t>(low);
    const int shift = std::max(0, 32 - std::countl_zero(spread) - 12);
    const auto binOf = [&](float gate) { return static_cast<int32_t>((static_cast<uint32_t>(orderedKey(gate)) - static_cast<uint32_t>(low)) >> shift); };
    histogram.clear();
    for (int64_t i = 0; i < listed; ++i) histogram.add(binOf(from[i]), from[i]);
    const int32_t bin = histogram.find(goal, above, aboveSum);
    int64_t kept = 0;
    for (int64_t i = 0; i < listed; ++i) {
      const float gate = from[i];
      work[kept] = gate;
      kept += binOf(gate) == bin;
    }
    listed = kept;
    from = work;
  }
  Cut cut{true, from[0], 0};
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

/// Among all entries.
Cut findCut(std::span<const Run> runs, const Goal& goal, std::span<float> work) {
  int64_t listed = 0;
  double sum = 0;
  for (const Run& run : runs)
    for (int32_t s = run.begin; !run.own && s < run.end; ++s)
      if (const float gate = run.gate[s]; gate > -kInfinity) {
        work[static_cast<size_t>(listed++)] = gate;
        sum += static_cast<double>(gate);
      }
  if (listed == 0 || !goal.reached(listed, sum)) return {};
  return narrow(work.data(), listed, goal, 0, 0, work.data());
}

void take(std::span<const Run> runs, const Cut& cut) {
  int64_t ties = cut.ties;
  for (const Run& run : runs) {
    if (run.own) continue;
    selectAbove(run, cut.value);
    for (int32_t s = run.begin; ties > 0 && (s = nextEqual(run.gate, s, run.end, cut.value)) < run.end; ++s, --ties) run.bits[s / 64] |= uint64_t{1} << (s % 64);
  }
}

/// Marks what is greater than the cut of a run's listed entries, and the first `ties` that equal it.
struct Marks {
  const float* values;
  const uint64_t* within;
  float cut;
  int64_t ties;
};
#ifdef VMOBA_X86_VERSIONS
__attribute__((target("arch=x86-64-v4"))) void markRun(Marks& marks, uint64_t* bits, int32_t begin, int32_t end) {
  const __m512 cut = _mm512_set1_ps(marks.cut);
  for (int32_t w = begin / 64; w * 64 < end; ++w) {
    const uint64_t within = *marks.within++;
    const int count = std::popcount(within);
    uint64_t taken = 0, equal = 0;
    for (int i = 0; i < count; i += kLanes) {
      const auto here = static_cast<__mmask16>(count - i >= kLanes ? 0xffffu : (1u << (count - i)) - 1);
      const __m512 x = _mm512_maskz_loadu_ps(here, marks.values + i);
      taken |= uint64_t{_mm512_mask_cmp_ps_mask(here, x, cut, _CMP_GT_OQ)} << i;
      equal |= uint64_t{_mm512_mask_cmp_ps_mask(here, x, cut, _CMP_EQ_OQ)} << i;
    }
    for (; equal != 0 && marks.ties > 0; equal &= equal - 1, --marks.ties) taken |= equal & -equal;
    bits[w] |= _pdep_u64(taken, within);
    marks.values += count;
  }
}
__attribute__((target("default")))
#endif
void markRun(Marks& marks, uint64_t* bits, int32_t begin, int32_t end) {
  for (int32_t w = begin / 64; w * 64 < end; ++w)
    for (uint64_t within = *marks.within++; within != 0; within &= within - 1) {
      const float value = *marks.values++;
      const bool tie = value == marks.cut && marks.ties > 0;
      marks.ties -= tie;
      if (value > marks.cut || tie) bits[w] |= within & -within;
    }
}

/// The same in one pass over the gates: what lies above a bracket is taken at once, what lies within it when the cut is known.
/// False, with nothing taken, where the cut lies outside.
bool takeSifted(std::span<const Run> runs, int64_t entries, const Goal& goal, std::span<float> work) {
  if (reinterpret_cast<uintptr_t>(work.data()) % sizeof(uint64_t) != 0) work = work.subspan(1);
  const int64_t mostWords = entries / 64 + 2 * std::ssize(runs), room = (std::ssize(work) - 2 * mostWords) / 2;
  if (room < entries / 8) return false;
  const Bracket bracket = guessBracket(runs, entries, goal);
  Sieve sieve{bracket.low, bracket.high, work.data() + 2 * mostWords, reinterpret_cast<uint64_t*>(work.data())};
  constexpr int32_t kPiece = 1 << 14;
  bool fits = true;
  for (const Run& run : runs)
    for (int32_t from = run.begin; !run.own && fits && from < run.end;) {
      const int32_t end = std::min((from / kPiece + 1) * kPiece, run.end);  // on whole words: markRun meets the same
      fits = sieve.listed + (end - from) + 64 <= room;
      if (fits) siftRun(sieve, run.gate, run.bits, from, end);
      from = end;
    }
  double aboveSum = 0, listedSum = 0;
  for (const double part : sieve.aboveSum) aboveSum += part;
  for (int64_t i = 0; i < sieve.listed; ++i) listedSum += static_cast<double>(sieve.values[i]);
  if (!fits || sieve.listed == 0 || (sieve.above > 0 && goal.reached(sieve.above, aboveSum)) || !goal.reached(sieve.above + sieve.listed, aboveSum + listedSum)) {
    for (const Run& run : runs)
      if (!run.own) clearRange(run.bits, run.begin, run.end);
    return false;
  }
  const Cut cut = narrow(sieve.values, sieve.listed, goal, sieve.above, aboveSum, sieve.values + room);
  Marks marks{sieve.values, sieve.within, cut.value, cut.ties};
  for (const Run& run : runs)
    if (!run.own) markRun(marks, run.bits, run.begin, run.end);
  return true;
}

}  // namespace

void setRange(uint64_t* bits, int32_t begin, int32_t end) {
  for (int32_t s = begin; s < end;) {
    const int32_t in = s % 64, n = std::min(64 - in, end - s);
    bits[s / 64] |= (n == 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1) << in;
    s += n;
  }
}

bool takeUntil(std::span<const Run> runs, int64_t entries, const Goal& goal, std::span<float> work) {
  constexpr int64_t kFew = 1 << 16;
  if (entries > kFew && takeSifted(runs, entries, goal, work)) return true;
  const Cut cut = findCut(runs, goal, work);
  if (cut.reached) take(runs, cut);
  return cut.reached;
}

}  // namespace vmoba::cpu
