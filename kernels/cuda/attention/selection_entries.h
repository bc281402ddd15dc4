// What the selection kernels share: gates as integers of the same order, and how a scope's groups lie among the gates.
#pragma once
#include "kernels/cuda/attention/selection.h"
#include "kernels/cuda/tile/tile.h"

namespace vmoba::cuda {

// Floats as integers of the same order; both zeros are one value.
TILE_DEVICE uint32_t orderedKey(float value) {
  const uint32_t bits = tile::bitsOfFloat(value + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
TILE_DEVICE float valueOfKey(uint32_t key) { return tile::floatOfBits(key & 0x80000000u ? key & 0x7fffffffu : ~key); }

constexpr uint32_t kNegativeZero = 0x7fffffffu;  ///< where -0 would stand: the key of no value

// Beyond every finite gate.
TILE_DEVICE float infinity() { return tile::floatOfBits(0x7f800000u); }
TILE_DEVICE float notANumber() { return tile::floatOfBits(0x7fc00000u); }

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

// The parts of `select`: each fills job.selection and job.selected.
void selectGroups(tile::Stream stream, const SelectionJob& job);
void selectPerQuery(tile::Stream stream, const SelectionJob& job);  ///< adds to job.selected, which is zero before
size_t groupScratchBytes(const PlanView& plan, int32_t heads, SelectionScope scope);

}  // namespace vmoba::cuda
