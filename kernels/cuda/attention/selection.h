// Which blocks each (head, query) attends to, from the gate: kernels/reference/selection.cpp on the device, the same masks.
// Entries are ordered by falling f32 gate, then by lower flat index, exactly as a stable sort would.
#pragma once
#include "kernels/attention.h"
#include "kernels/cuda/attention/plan_view.h"
#include "kernels/cuda/tile/common.h"

namespace vmoba::cuda {

struct SelectionJob {
  PlanView plan;
  int32_t heads = 0;
  SelectionRule rule;
  const float* gate = nullptr;    ///< [heads, blocks, tokens]
  uint32_t* selection = nullptr;  ///< [heads, tokens, words]: bit c%32 of word c/32, own block included
  uint32_t* selected = nullptr;   ///< [heads, blocks] queries of the head that attend to the block
  void* scratch = nullptr;        ///< selectionScratchBytes, 16-byte aligned
};

size_t selectionScratchBytes(const PlanView& plan, int32_t heads, const SelectionRule& rule);

/// Groups are thresholded in two passes over the gates and never sorted (selection_groups.h); QueryHead by one thread per query
/// (selection_per_query.cu). A group holds fewer than 2^32 entries.
void select(tile::Stream stream, const SelectionJob& job);

/// Semantics::Upstream attends densely where nothing but own blocks was selected in the whole call: then sets every valid
/// bit. `selected` = SelectionJob::selected.
void fallBackToDense(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selected, uint32_t* selection);

/// map[r, c] = queries of block r that attend to block c, of head `mapHead` (-1: of all heads).
void mapSelected(tile::Stream stream, const PlanView& plan, int32_t heads, const uint32_t* selection, int32_t mapHead, uint32_t* map);

}  // namespace vmoba::cuda
