// The wgmma kernel in emulation: the cases of the mma.sync kernel, and faults that must show.
#include <gtest/gtest.h>

#include "kernels/cuda/tests/attention_support.h"

namespace vmoba {
namespace {

using namespace cudatest;

const SelectionRule kTrained{SelectionMode::Threshold, SelectionScope::HeadGlobal, 0.25f, 1, Semantics::Exact};
const SelectionRule kTrainingFree{SelectionMode::TopK, SelectionScope::QueryHead, 0.25f, 4, Semantics::Exact};
const Partition kCubes{PartitionKind::SpaceTime3D, 1, 2, 3, 4};

SelfAttentionCase onHopper(SelfAttentionCase c) {
  c.type = DType::BF16;
  c.hopper = true;
  return c;
}

TEST(Hopper, SparseErrsAtMostTwiceAsMuchAsPlainBf16) {
  for (const SelfAttentionCase& plain : std::vector<SelfAttentionCase>{
           {{3, 5, 11}, kCubes, 2, 40, {}, kTrained},
           {{4, 5, 9}, {PartitionKind::Spatial2D, 1, 1, 2, 4}, 1, 128, {}, kTrainingFree},
           {{5, 4, 8}, {PartitionKind::Temporal1D, 1.4, 1, 1, 1}, 1, 128, {}, kTrainingFree},
           {{7, 9, 11}, {PartitionKind::SpaceTime3D, 1, 4, 5, 6}, 1, 64, {}, kTrainingFree},   // 693 tokens: rings of slots go round
           {{7, 9, 11}, {PartitionKind::Temporal1D, 3, 1, 1, 1}, 1, 72, {}, {SelectionMode::TopK, SelectionScope::QueryHead, 0.25f, 1, Semantics::Exact}},
       }) {
    const SelfAttentionCase c = onHopper(plain);
    const SelfAttentionResult r = run(c);
    const Errors errors = errorsOf(c, r);
    EXPECT_LE(errors.kernel, errors.allowed) << c.grid.tokens() << " tokens, width " << c.headDim;
  }
}

}  // namespace
}  // namespace vmoba
