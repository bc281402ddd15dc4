// Lays a partition over a token grid, and chooses block shapes for grids the paper does not list.
#pragma once
#include "kernels/attention.h"

namespace vmoba {

/// Blocks of `partition` over `grid`. Blocks are enumerated (t-block, h-block, w-block), tokens inside a block run over
/// (t, row, column); 1-D: runs of trunc(frames*h*w) tokens in raster order. The last block of any axis may be short.
/// Throws Error{BadRequest} for empty grids, sizes < 1 token, or more than 65,535 blocks.
BlockPlan planBlocks(const Grid& grid, const Partition& partition);

/// Several independent sequences packed one behind the other (identity order, chunks of n tokens, never spanning two
/// sequences; each ends with its own short chunk). `cumulative` = {0, ..., S}.
BlockPlan planPackedSequences(const std::vector<int32_t>& cumulative, int32_t chunkTokens);

/// Partition nearest to the paper's proportions for any grid (arXiv 2506.23858, section 4): for the listed grids exactly the paper's blocks.
Partition choosePartition(const Grid& grid, PartitionKind kind);

}  // namespace vmoba
