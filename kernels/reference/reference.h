// Plain double-precision VMoBA: what every kernel is tested against. Nothing here is fast; everything is as the paper
// (arXiv 2506.23858) and the published code define it. All tensors are in the plan's permuted token order.
#pragma once
#include <cstdint>
#include <vector>

#include "kernels/attention.h"

namespace vmoba::reference {

/// gate[c, h, s] = q[s, h]·mean of k[., h] over block c, no 1/sqrt(D). q, k are [S, H, D]; result [C, H, S].
std::vector<double> gate(const std::vector<double>& q, const std::vector<double>& k, const BlockPlan& plan, int32_t heads, int32_t headDim);

/// Which blocks each (head, query) attends to, own block included: [C, H, S] of 0/1. gate is [C, H, S].
///
/// Threshold groups (per query, block, head or over all) take their entries by falling weight, ties by lower flat index,
/// until the share `tau` is reached; own entries weigh in the total, stand in the list with weight 0 (`Overall`: not at
/// all) and are always attended to. A share that is never reached takes the whole group; the published code takes two entries
/// instead for QueryHead and Block (Semantics::Upstream). Exact: tau >= 1 selects everything.
/// Blocks of another packed sequence are never selected.
std::vector<uint8_t> select(const std::vector<double>& gate, const BlockPlan& plan, int32_t heads, const SelectionRule& rule);

/// True when Upstream semantics attend densely because nothing but own blocks was selected.
bool fallsBackToDense(const std::vector<uint8_t>& selection, const BlockPlan& plan, int32_t heads, const SelectionRule& rule);

/// out[s, h] = softmax(q·kᵀ/sqrt(D)) over exactly the keys of the selected blocks, times v. q, k, v, out are [S, H, D].
std::vector<double> maskedAttention(const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& v,
                                    const std::vector<uint8_t>& selection, const BlockPlan& plan, int32_t heads, int32_t headDim);

/// Attended (query, key) pairs / all pairs.
double density(const std::vector<uint8_t>& selection, const BlockPlan& plan, int32_t heads);

/// The block plan of dense attention: one block over `tokens` tokens.
BlockPlan wholeSequence(int32_t tokens);

/// Block of every position, and sequence of every position.
std::vector<int32_t> blockOfPosition(const BlockPlan& plan);
std::vector<int32_t> sequenceOfPosition(const BlockPlan& plan);

}  // namespace vmoba::reference
