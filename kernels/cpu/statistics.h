// What a call did, read off its selection bits.
#pragma once
#include "kernels/cpu/selection.h"

namespace vmoba::cpu {

/// Densities, selected blocks and, on request, the maps.
void describeSelection(const SelectionBits& bits, const BlockPlan& plan, const StatisticsRequest& request, AttentionStatistics& statistics);

}  // namespace vmoba::cpu
