// Selection in emulation against kernels/reference: every scope, mode and semantics, exactly.
#include <gtest/gtest.h>

#include "kernels/cuda/tests/attention_support.h"

namespace vmoba {
namespace {

using namespace cudatest;

constexpr SelectionScope kScopes[] = {SelectionScope::QueryHead, SelectionScope::HeadGlobal, SelectionScope::Overall, SelectionScope::Block};

std::vector<SelectionRule> allRules() {
  std::vector<SelectionRule> rules;
  for (const Semantics semantics : {Semantics::Exact, Semantics::Upstream})
    for (const SelectionScope scope : kScopes) {
      for (const float tau : {0.0f, 0.3f, 1.5f}) rules.push_back({SelectionMode::Threshold, scope, tau, 1, semantics});
      if (scope == SelectionScope::Block) continue;  // refused for top-k
      for (const int32_t k : {2, 100}) rules.push_back({SelectionMode::TopK, scope, 0.25f, k, semantics});
    }
  return rules;
}

/// Names the rules whose mask differs from the reference's; `gate` is [C, H, S].
std::string differences(const BlockPlan& plan, int heads, const std::vector<float>& gate, const std::vector<SelectionRule>& rules, const emulation::Options& options = {}) {
  const cuda::PlanUpload upload = cuda::layOut(plan);
  const auto tokens = static_cast<size_t>(plan.tokens()), blocks = static_cast<size_t>(plan.blocks());
  std::vector<float> byHead(gate.size());  // [H, C, S]
  for (size_t c = 0; c < blocks; ++c)
    for (size_t h = 0; h < static_cast<size_t>(heads); ++h)
      std::copy_n(gate.begin() + static_cast<std::ptrdiff_t>((c * static_cast<size_t>(heads) + h) * tokens), tokens, byHead.begin() + static_cast<std::ptrdiff_t>((h * blocks + c) * tokens));
  std::string wrong;
  for (const SelectionRule& rule : rules) {
    cuda::SelectionJob job{upload.view(upload.data.data()), heads, rule, byHead.data(), nullptr, nullptr, nullptr};
    const auto words = static_cast<size_t>(job.plan.words());
    DeviceBytes scratch(cuda::selectionScratchBytes(job.plan, heads, rule)), masks(static_cast<size_t>(heads) * tokens * words * 4), counts(static_cast<size_t>(heads) * blocks * 4);
    job.scratch = scratch.data();
    job.selected = reinterpret_cast<uint32_t*>(counts.data());
    job.selection = reinterpret_cast<uint32_t*>(masks.data());
    cuda::select({const_cast<emulation::Options*>(&options)}, job);
    const std::vector<uint8_t> expected = reference::select(doubles(gate), plan, heads, rule);
    int flips = 0;
    std::vector<uint32_t> selected(static_cast<size_t>(heads) * blocks);
    for (size_t c = 0; c < blocks; ++c)
      for (size_t h = 0; h < static_cast<size_t>(heads); ++h)
        for (size_t s = 0; s < tokens; ++s) {
          const bool mine = job.selection[(h * tokens + s) * words + c / 32] >> (c % 32) & 1u;
          flips += mine != (expected[(c * static_cast<size_t>(heads) + h) * tokens + s] != 0);
          selected[h * blocks + c] += mine;
        }
    if (counts.copy<uint32_t>(0, selected.size()) != selected) wrong += "counts: ";
    if (flips)
      wrong += std::string(rule.semantics == Semantics::Exact ? "exact " : "upstream ") + (rule.mode == SelectionMode::TopK ? "top-k " + std::to_string(rule.k) : "threshold " + std::to_string(rule.tau)) +
               " scope " + std::to_string(static_cast<int>(rule.scope)) + ": " + std::to_string(flips) + " bits; ";
  }
  return wrong;
}

std::vector<float> gatesOf(const BlockPlan& plan, int heads, uint32_t seed) {
  return randomFloats(static_cast<size_t>(plan.blocks() * heads * plan.tokens()), seed, 3);
}

const Partition kCubes{PartitionKind::SpaceTime3D, 1, 2, 2, 3};

TEST(Selection, EqualsTheReferenceOnRaggedBlocks) {
  const BlockPlan plan = planBlocks({3, 3, 5}, kCubes);  // 8 blocks, short on every axis
  EXPECT_EQ(differences(plan, 2, gatesOf(plan, 2, 1), allRules()), "");
}

TEST(Selection, EqualsTheReferenceOnManyTies) {
  const BlockPlan plan = planBlocks({2, 3, 6}, {PartitionKind::Spatial2D, 1, 1, 2, 3});
  std::vector<float> gate = gatesOf(plan, 2, 2);
  for (float& value : gate) value = std::round(value / 3);  // a handful of values, both zeros among them
  EXPECT_EQ(differences(plan, 2, gate, allRules()), "");
}

TEST(Selection, EqualsTheReferenceOnEqualGates) {
  const BlockPlan plan = planBlocks({1, 4, 6}, {PartitionKind::Spatial2D, 1, 1, 2, 3});
  EXPECT_EQ(differences(plan, 2, std::vector<float>(size_t{4} * 2 * 24, 0.75f), allRules()), "");
}

TEST(Selection, EqualsTheReferenceOnFewBlocks) {
  for (const double frames : {2.0, 9.0}) {  // two blocks and one
    const BlockPlan plan = planBlocks({3, 2, 5}, {PartitionKind::Temporal1D, frames, 1, 1, 1});
    EXPECT_EQ(differences(plan, 2, gatesOf(plan, 2, 3), allRules()), "") << frames;
  }
}

TEST(Selection, NeverCrossesPackedSequences) {
  const BlockPlan plan = planPackedSequences({0, 21, 36}, 8);
  EXPECT_EQ(differences(plan, 2, gatesOf(plan, 2, 4), allRules()), "");
}

TEST(Selection, UsesMoreThanOneWordOfBlocks) {
  const BlockPlan plan = planBlocks({3, 5, 7}, {PartitionKind::SpaceTime3D, 1, 1, 2, 2});  // 36 blocks
  EXPECT_EQ(differences(plan, 1, gatesOf(plan, 1, 5), {{SelectionMode::Threshold, SelectionScope::HeadGlobal, 0.25f, 1, Semantics::Exact},
                                                       {SelectionMode::TopK, SelectionScope::QueryHead, 0.25f, 7, Semantics::Exact}}), "");
}

/// Rules of every scope that shares a budget, in both kinds of budget and both semantics.
std::vector<SelectionRule> groupRules(const std::vector<float>& taus) {
  std::vector<SelectionRule> rules;
  for (const SelectionScope scope : {SelectionScope::HeadGlobal, SelectionScope::Overall, SelectionScope::Block}) {
    for (const float tau : taus) rules.push_back({SelectionMode::Threshold, scope, tau, 1, scope == SelectionScope::HeadGlobal ? Semantics::Exact : Semantics::Upstream});
    if (scope != SelectionScope::Block) rules.push_back({SelectionMode::TopK, scope, 0.25f, 3, Semantics::Exact});
  }
  return rules;
}

TEST(Selection, EqualsTheReferenceOnRandomCases) {
  std::mt19937 random(11);
  for (int round = 0; round < 8; ++round) {
    const auto pick = [&](int low, int high) { return low + static_cast<int>(random() % static_cast<uint32_t>(high - low + 1)); };
    const Grid grid{pick(1, 3), pick(2, 7), pick(2, 7)};
    const BlockPlan plan = planBlocks(grid, {PartitionKind::SpaceTime3D, 1, pick(1, 2), pick(1, 4), pick(1, 4)});
    const int heads = pick(1, 3);
    std::vector<float> gate = gatesOf(plan, heads, static_cast<uint32_t>(random()));
    const auto shift = static_cast<float>(pick(-2, 2) * 40), step = static_cast<float>(pick(0, 2)) * 0.75f;
    for (float& value : gate) value = shift + (step > 0 ? std::round(value / step) * step : value);
    std::vector<SelectionRule> rules;
    for (const SelectionScope scope : kScopes) {
      const Semantics semantics = round % 2 ? Semantics::Exact : Semantics::Upstream;
      for (const float tau : {static_cast<float>(pick(1, 99)) / 100, round % 3 ? 0.9999f : 0.0f, 1.0f}) rules.push_back({SelectionMode::Threshold, scope, tau, 1, semantics});
      if (scope != SelectionScope::Block) rules.push_back({SelectionMode::TopK, scope, 0.25f, pick(1, plan.blocks()), semantics});
    }
    EXPECT_EQ(differences(plan, heads, gate, rules), "") << "round " << round << ": " << plan.blocks() << " blocks of " << plan.tokens() << " tokens, " << heads << " heads";
  }
}

TEST(Selection, SharesTheWorkOfLargeGroups) {
  const BlockPlan plan = planBlocks({5, 21, 29}, {PartitionKind::SpaceTime3D, 1, 2, 11, 10});  // 18 blocks of 3045 tokens
  EXPECT_EQ(differences(plan, 2, gatesOf(plan, 2, 6), groupRules({0.25f, 0.999f})), "");
}

TEST(Selection, SurveysAgainWhereAnOutlierSpoilsTheFirstBins) {
  const BlockPlan plan = planBlocks({5, 21, 29}, {PartitionKind::SpaceTime3D, 1, 2, 11, 10});
  std::vector<float> gate = gatesOf(plan, 2, 7);
  for (size_t i = 0; i < gate.size(); i += 97) gate[i] = i % 2 ? 3e6f : -2e6f;
  EXPECT_EQ(differences(plan, 2, gate, groupRules({0.25f, 0.6f})), "");
}

TEST(Selection, SettlesWithoutAListWhereMoreGatesAreEqualThanItTakes) {
  const BlockPlan plan = planBlocks({5, 21, 29}, {PartitionKind::SpaceTime3D, 1, 2, 11, 10});
  EXPECT_EQ(differences(plan, 2, std::vector<float>(static_cast<size_t>(plan.blocks() * 2 * plan.tokens()), -1.5f), groupRules({0.25f})), "");
  std::vector<float> gate = gatesOf(plan, 2, 8);
  for (float& value : gate) value = value > 0 ? 1.0f : value > -3 ? -0.5f : -2.0f;
  EXPECT_EQ(differences(plan, 2, gate, groupRules({0.1f, 0.6f})), "");
}

TEST(Selection, ReadsTheGatesOfAQueryWhereTheyAreIfTheyAreTooManyToStage) {
  const BlockPlan plan = planBlocks({3, 12, 12}, {PartitionKind::SpaceTime3D, 1, 1, 1, 2});  // 216 blocks
  EXPECT_EQ(differences(plan, 1, gatesOf(plan, 1, 9), {{SelectionMode::Threshold, SelectionScope::QueryHead, 0.25f, 1, Semantics::Exact},
                                                       {SelectionMode::Threshold, SelectionScope::QueryHead, 0.999f, 1, Semantics::Upstream},
                                                       {SelectionMode::TopK, SelectionScope::QueryHead, 0.25f, 40, Semantics::Exact}}), "");
}

TEST(Selection, IsFoundWrongWithAWrongBitARaggedTailOrADroppedBarrier) {
  const BlockPlan plan = planBlocks({3, 3, 5}, kCubes);
  const std::vector<float> gate = gatesOf(plan, 2, 1);
  const std::vector<SelectionRule> one{{SelectionMode::Threshold, SelectionScope::HeadGlobal, 0.25f, 1, Semantics::Exact}};
  const auto with = [&](emulation::PlantedFault fault) {
    try {
      return differences(plan, 2, gate, one, {.fault = fault});
    } catch (const emulation::Violation& violation) {
      return std::string(violation.what());
    }
  };
  EXPECT_EQ(with({}), "");
  EXPECT_NE(with({emulation::PlantedFault::SelectionBit}), "");
  EXPECT_NE(with({emulation::PlantedFault::RaggedTail}), "");
  for (const int barrier : {0, 3}) EXPECT_NE(with({emulation::PlantedFault::DropBarrier, barrier}), "") << barrier;
}

}  // namespace
}  // namespace vmoba
