#include "kernels/partition.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "native/base/error.h"

namespace vmoba {
namespace {

constexpr int64_t kMostBlocks = 65535, kMostTokens = int64_t{1} << 30;

[[noreturn]] void refuse(const std::string& message, const char* field) { throw Error(ErrorCode::BadRequest, message, field); }

int32_t blocksAlong(int32_t tokens, int32_t side) { return (tokens + side - 1) / side; }

void requireFew(int64_t blocks) {
  if (blocks > kMostBlocks) refuse("this partition makes " + std::to_string(blocks) + " blocks; the most is 65535: use larger blocks", "partition");
}

BlockPlan planRuns(const Grid& grid, const Partition& partition) {
  const double wanted = std::trunc(partition.frames * static_cast<double>(int64_t{grid.h} * grid.w));
  if (!(wanted >= 1)) refuse("a 1-D block must hold at least one token", "partition");
  const auto tokens = static_cast<int32_t>(grid.tokens());
  const auto length = static_cast<int32_t>(std::min(wanted, static_cast<double>(tokens)));
  requireFew((int64_t{tokens} + length - 1) / length);
  BlockPlan plan{grid, partition, {}, {}, {0, tokens}};
  for (int64_t at = 0; at < tokens; at += length) plan.start.push_back(static_cast<int32_t>(at));
  plan.start.push_back(tokens);
  return plan;
}

BlockPlan planBoxes(const Grid& grid, const Partition& partition) {
  const int32_t sideT = partition.kind == PartitionKind::Spatial2D ? grid.t : std::min(partition.blockT, grid.t);
  const int32_t sideH = std::min(partition.blockH, grid.h), sideW = std::min(partition.blockW, grid.w);
  if (sideT < 1 || sideH < 1 || sideW < 1) refuse("every side of a block must be at least one token", "partition");
  const auto tokens = static_cast<int32_t>(grid.tokens());
  requireFew(int64_t{blocksAlong(grid.t, sideT)} * blocksAlong(grid.h, sideH) * blocksAlong(grid.w, sideW));
  BlockPlan plan{grid, partition, {}, {0}, {0, tokens}};
  plan.permutation.reserve(static_cast<size_t>(tokens));
  for (int32_t t0 = 0; t0 < grid.t; t0 += sideT)
    for (int32_t h0 = 0; h0 < grid.h; h0 += sideH)
      for (int32_t w0 = 0; w0 < grid.w; w0 += sideW) {
        for (int32_t t = t0; t < std::min(t0 + sideT, grid.t); ++t)
          for (int32_t h = h0; h < std::min(h0 + sideH, grid.h); ++h)
            for (int32_t w = w0; w < std::min(w0 + sideW, grid.w); ++w) plan.permutation.push_back((t * grid.h + h) * grid.w + w);
        plan.start.push_back(static_cast<int32_t>(plan.permutation.size()));
      }
  return plan;
}

/// Side near `wanted` whose blocks leave the smallest waste in a short last block: the same count of blocks, evened out.
int32_t evenSide(int32_t extent, double wanted) {
  const int32_t count = std::clamp(static_cast<int32_t>(std::lround(extent / std::max(wanted, 1.0))), 1, extent);
  return (extent + count - 1) / count;
}

struct PaperBlocks {
  Grid grid;
  double frames;
  std::array<int32_t, 2> tile;
  std::array<int32_t, 3> cube;
};
constexpr PaperBlocks kPaper[] = {
    {{21, 30, 52}, 3, {5, 13}, {7, 5, 13}},
    {{21, 45, 80}, 3, {9, 10}, {7, 15, 20}},
    {{24, 36, 64}, 3, {6, 8}, {8, 12, 8}},
    {{36, 30, 52}, 3, {5, 13}, {12, 10, 13}},
};

}  // namespace

BlockPlan planBlocks(const Grid& grid, const Partition& partition) {
  if (grid.t < 1 || grid.h < 1 || grid.w < 1) refuse("the token grid is empty", "grid");
  if (grid.h > kMostTokens / grid.t || int64_t{grid.t} * grid.h > kMostTokens / grid.w) refuse("the token grid holds more than 2^30 tokens", "grid");
  return partition.kind == PartitionKind::Temporal1D ? planRuns(grid, partition) : planBoxes(grid, partition);
}

BlockPlan planPackedSequences(const std::vector<int32_t>& cumulative, int32_t chunkTokens) {
  if (cumulative.size() < 2 || cumulative.front() != 0 || !std::is_sorted(cumulative.begin(), cumulative.end()) || cumulative.back() < 1)
    refuse("cumulative lengths must rise from 0 to the number of tokens", "cumulative");
  if (chunkTokens < 1) refuse("a chunk must hold at least one token", "chunkTokens");
  BlockPlan plan;
  plan.grid = {1, 1, cumulative.back()};
  plan.partition.frames = static_cast<double>(chunkTokens) / cumulative.back();
  plan.sequenceStart = cumulative;
  for (size_t i = 0; i + 1 < cumulative.size(); ++i)
    for (int64_t at = cumulative[i]; at < cumulative[i + 1]; at += chunkTokens) plan.start.push_back(static_cast<int32_t>(at));
  requireFew(static_cast<int64_t>(plan.start.size()));
  plan.start.push_back(cumulative.back());
  return plan;
}

Partition choosePartition(const Grid& grid, PartitionKind kind) {
  if (grid.t < 1 || grid.h < 1 || grid.w < 1) refuse("the token grid is empty", "grid");
  Partition partition;
  partition.kind = kind;
  for (const PaperBlocks& paper : kPaper)
    if (paper.grid == grid) {
      if (kind == PartitionKind::Temporal1D) partition.frames = paper.frames;
      if (kind == PartitionKind::Spatial2D) partition.blockH = paper.tile[0], partition.blockW = paper.tile[1];
      if (kind == PartitionKind::SpaceTime3D) partition.blockT = paper.cube[0], partition.blockH = paper.cube[1], partition.blockW = paper.cube[2];
      return partition;
    }
  // The paper's proportions: runs of three frames, shorter where that would leave too few of them; tiles of a sixth of the height
  // by a quarter of the width (24); cubes of such a tile by a third of the clip (72). Portrait grids are cut as landscape lying on its side.
  if (kind == PartitionKind::Temporal1D) {
    partition.frames = evenSide(grid.t, grid.t >= 18 ? 3 : grid.t >= 11 ? 2 : 1);
    return partition;
  }
  const bool portrait = grid.h > grid.w;
  partition.blockH = evenSide(grid.h, grid.h / (portrait ? 4.0 : 6.0));
  partition.blockW = evenSide(grid.w, grid.w / (portrait ? 6.0 : 4.0));
  if (kind == PartitionKind::SpaceTime3D) partition.blockT = evenSide(grid.t, grid.t / 3.0);
  return partition;
}

}  // namespace vmoba
