// The cut of a group of gates: entries are taken from the top until a number of them or a share of their weights is reached.
// It is sought between two bounds that samples give (among all, should it not lie there), by histograms of (count, sum) that narrow
// down to one value, never by a sort of all; ties go to the lower flat index.
#pragma once
#include <bit>
#include <cstdint>
#include <span>

namespace vmoba::cpu {

constexpr int kLanes = 16;  ///< partial sums of gates, whatever the instruction set

/// A run of entries of one (head, block): gates of positions [begin, end).
struct Run {
  const float* gate;
  uint64_t* bits;
  int32_t begin, end;
  bool own;
  int32_t count() const { return end - begin; }
};

/// Order-preserving integer of a float: -0 equals +0.
inline int32_t orderedKey(float value) {
  const auto bits = std::bit_cast<int32_t>(value + 0.0f);
  return bits ^ ((bits >> 31) & 0x7fffffff);
}

void setRange(uint64_t* bits, int32_t begin, int32_t end);

/// What a group must reach when its entries are taken from the top: a number of entries, or a share of the weights.
struct Goal {
  bool byCount;
  int64_t count = 0;
  double least = 0, range = 1, total = 1, need = 0;

  double weight(int64_t entries, double gateSum) const { return (gateSum - static_cast<double>(entries) * least) / range; }
  bool reached(int64_t entries, double gateSum) const { return byCount ? entries >= count : weight(entries, gateSum) / total >= need; }
};

/// Takes entries from the top until the goal is reached; false, with nothing taken, where all together do not reach it. Own runs are no
/// candidates. `entries`: of the others; `work`: as many floats.
bool takeUntil(std::span<const Run> runs, int64_t entries, const Goal& goal, std::span<float> work);

}  // namespace vmoba::cpu
