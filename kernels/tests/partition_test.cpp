#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <set>

#include "kernels/partition.h"
#include "native/base/error.h"

namespace vmoba {
namespace {

constexpr PartitionKind kKinds[] = {PartitionKind::Temporal1D, PartitionKind::Spatial2D, PartitionKind::SpaceTime3D};

void expectSound(const BlockPlan& plan, const Grid& grid) {
  ASSERT_EQ(plan.tokens(), grid.tokens());
  ASSERT_TRUE(std::is_sorted(plan.start.begin(), plan.start.end(), std::less_equal<>()) && plan.start.front() == 0);
  EXPECT_EQ(plan.sequenceStart, (std::vector<int32_t>{0, plan.tokens()}));
  if (plan.permutation.empty()) return;
  std::vector<int32_t> sorted = plan.permutation, all(sorted.size());
  std::sort(sorted.begin(), sorted.end());
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sorted, all);
}

TEST(Partition, KeepsThePapersBlocksOnThePapersGrids) {
  struct Row {
    Grid grid;
    std::array<int32_t, 3> blocks;
  };
  for (const Row& row : {Row{{21, 30, 52}, {7, 24, 72}}, Row{{21, 45, 80}, {7, 40, 36}}, Row{{24, 36, 64}, {8, 48, 72}}, Row{{36, 30, 52}, {12, 24, 36}}})
    for (size_t i = 0; i < 3; ++i) {
      const BlockPlan plan = planBlocks(row.grid, choosePartition(row.grid, kKinds[i]));
      expectSound(plan, row.grid);
      EXPECT_EQ(plan.blocks(), row.blocks[i]);
      EXPECT_EQ(plan.length(0), plan.length(plan.blocks() - 1));
    }
}

// Sizes in pixels of what people render, 16 pixels to a token; 17 to 141 frames are 5 to 36 latent frames.
TEST(Partition, PlansEveryCommonSizeNearThePapersProportions) {
  constexpr int32_t sizes[][2] = {{832, 480}, {848, 480}, {480, 832}, {480, 272}, {1024, 576}, {576, 1024}, {1280, 720}, {720, 1280}, {512, 512}, {768, 768}, {960, 960}, {640, 480}, {720, 480}};
  for (const auto& size : sizes)
    for (int32_t frames = 5; frames <= 36; frames += frames < 12 ? 1 : 4) {
      const Grid grid{frames, size[1] / 16, size[0] / 16};
      SCOPED_TRACE(testing::Message() << size[0] << "x" << size[1] << ", " << frames << " latent frames");
      for (const PartitionKind kind : kKinds) {
        const Partition partition = choosePartition(grid, kind);
        const BlockPlan plan = planBlocks(grid, partition);
        expectSound(plan, grid);
        const auto [least, most] = kind == PartitionKind::Temporal1D ? std::pair{5, 12} : kind == PartitionKind::Spatial2D ? std::pair{20, 48} : std::pair{36, 144};
        EXPECT_GE(plan.blocks(), least);
        EXPECT_LE(plan.blocks(), most);
        // A short last block wastes a slot of the selection; it must stay the exception along each axis.
        int32_t longest = 0;
        for (int32_t c = 0; c < plan.blocks(); ++c) longest = std::max(longest, plan.length(c));
        EXPECT_LE(static_cast<double>(longest) * plan.blocks(), 1.75 * plan.tokens());
      }
    }
}

TEST(Partition, LaysShortLastBlocksOnEveryAxis) {
  Partition cube{PartitionKind::SpaceTime3D, 1, 2, 3, 4};
  const Grid grid{3, 5, 7};
  const BlockPlan plan = planBlocks(grid, cube);
  expectSound(plan, grid);
  std::multiset<int32_t> lengths;
  for (int32_t c = 0; c < plan.blocks(); ++c) lengths.insert(plan.length(c));
  EXPECT_EQ(lengths, (std::multiset<int32_t>{24, 18, 16, 12, 12, 9, 8, 6}));
  EXPECT_EQ(plan.permutation[0], 0);
  EXPECT_EQ(plan.permutation[4], 7);        // second row of the first cube
  EXPECT_EQ(plan.permutation[12], 5 * 7);   // its second frame
}

TEST(Partition, CutsFramesAtFractions) {
  const BlockPlan plan = planBlocks({5, 6, 10}, {PartitionKind::Temporal1D, 1.5, 1, 1, 1});
  EXPECT_EQ(plan.start, (std::vector<int32_t>{0, 90, 180, 270, 300}));
  EXPECT_TRUE(plan.permutation.empty());
}

TEST(Partition, NeverSpansTwoPackedSequences) {
  EXPECT_EQ(planPackedSequences({0, 14, 24}, 6).start, (std::vector<int32_t>{0, 6, 12, 14, 20, 24}));
}

TEST(Partition, RefusesWhatCannotBeLaid) {
  const auto refused = [](const Grid& grid, const Partition& partition) {
    try {
      planBlocks(grid, partition);
    } catch (const Error& error) {
      return error.code() == ErrorCode::BadRequest;
    }
    return false;
  };
  EXPECT_TRUE(refused({0, 3, 3}, {}));
  EXPECT_TRUE(refused({1, 2, 2}, {PartitionKind::Temporal1D, 0.1, 1, 1, 1}));
  EXPECT_TRUE(refused({1, 2, 2}, {PartitionKind::Temporal1D, -1, 1, 1, 1}));
  EXPECT_TRUE(refused({1, 2, 2}, {PartitionKind::Spatial2D, 1, 1, 0, 1}));
  EXPECT_TRUE(refused({100, 100, 100}, {PartitionKind::SpaceTime3D, 1, 1, 1, 1}));
  EXPECT_TRUE(refused({1 << 20, 1 << 20, 1 << 20}, {}));
  EXPECT_THROW(planPackedSequences({0, 5, 3}, 2), Error);
  EXPECT_THROW(planPackedSequences({0, 5}, 0), Error);
}

}  // namespace
}  // namespace vmoba
