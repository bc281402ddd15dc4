// Which blocks each (head, query) attends to, from f32 gates: the rules of kernels/reference/reference.h in linear time.
// The cut of a group is found in cut.h.
#pragma once
#include <cstdint>
#include <limits>
#include <span>

#include "kernels/attention.h"

namespace vmoba::cpu {

/// Selection of one call as bits: bit s of row (head, block) = position s attends to the block, own block included.
struct SelectionBits {
  uint64_t* words = nullptr;
  int32_t heads = 0, blocks = 0, tokens = 0;
  int64_t rowWords() const { return (int64_t{tokens} + 63) / 64; }
  int64_t totalWords() const { return int64_t{heads} * blocks * rowWords(); }
  uint64_t* row(int64_t head, int64_t block) const { return words + (head * blocks + block) * rowWords(); }
  bool at(int64_t head, int64_t block, int64_t position) const { return row(head, block)[position / 64] >> (position % 64) & 1; }
};

/// Positions whose queries may attend to a block: those of its packed sequence.
struct Range {
  int32_t begin, end;
};
Range rivalsOf(const BlockPlan& plan, int32_t block);

/// True when every query selects every block of its sequence, whatever the gates are.
bool selectsEverything(const BlockPlan& plan, const SelectionRule& rule);

/// Sets the bits of every block for every query of its sequence.
void selectAll(const BlockPlan& plan, const SelectionBits& bits);

/// Floats of work space select() needs for one call.
int64_t selectionWorkFloats(const BlockPlan& plan, int32_t heads, const SelectionRule& rule);

/// Least, greatest and sum of some gates.
struct GateExtent {
  float least = std::numeric_limits<float>::infinity(), most = -std::numeric_limits<float>::infinity();
  double sum = 0;
};
/// Of one head: of the entries of own blocks and of the others.
struct GateExtents {
  GateExtent own, others;
};
/// Adds the gates [C][stride] of positions [begin, end). For the bits select() itself would arrive at: kMeasuredTokens at a time, in order.
constexpr int32_t kMeasuredTokens = 2048;
void measureGates(const float* gate, int64_t stride, const BlockPlan& plan, int32_t begin, int32_t end, GateExtents& extents);

/// Selects for heads [firstHead, firstHead + heads) whose gates are `gate` [heads][C][stride] (positions permuted). Head-wise
/// scopes may be called head by head and in parallel; Overall and Block need all heads in one call. Bits must be zero before.
/// `measured`: of the one head of a HeadGlobal call by threshold, where the caller had its gates in the cache.
void select(const float* gate, int64_t stride, const BlockPlan& plan, const SelectionRule& rule, int32_t firstHead, int32_t heads, const SelectionBits& bits,
            std::span<float> work, const GateExtents* measured = nullptr);

/// True when nothing but own blocks is selected.
bool onlyOwnBlocks(const SelectionBits& bits, int64_t head);

}  // namespace vmoba::cpu
