// Selection over more entries than it lists whole, against the reference's sort.
#include "kernels/cpu/selection.h"

#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "kernels/partition.h"
#include "kernels/reference/reference.h"

namespace vmoba::cpu {
namespace {

constexpr int32_t kHeads = 2;

/// Selects from gate(head, block, position), by the linear method and by sorting.
void expectLikeSorting(const BlockPlan& plan, const SelectionRule& rule, const std::function<float(int32_t, int32_t, int32_t)>& gateOf) {
  const int32_t tokens = plan.tokens(), blocks = plan.blocks();
  std::vector<float> gate(static_cast<size_t>(int64_t{kHeads} * blocks * tokens));
  std::vector<double> flat(gate.size());  // [C, H, S]
  for (int32_t h = 0; h < kHeads; ++h)
    for (int32_t c = 0; c < blocks; ++c)
      for (int32_t s = 0; s < tokens; ++s)
        flat[static_cast<size_t>((int64_t{c} * kHeads + h) * tokens + s)] = static_cast<double>(gate[static_cast<size_t>((int64_t{h} * blocks + c) * tokens + s)] = gateOf(h, c, s));
  SelectionBits bits{nullptr, kHeads, blocks, tokens};
  std::vector<uint64_t> words(static_cast<size_t>(bits.totalWords()));
  bits.words = words.data();
  std::vector<float> work(static_cast<size_t>(selectionWorkFloats(plan, kHeads, rule)));
  select(gate.data(), tokens, plan, rule, 0, kHeads, bits, work);
  const std::vector<uint8_t> expected = reference::select(flat, plan, kHeads, rule);
  int64_t different = 0;
  for (int32_t c = 0; c < blocks; ++c)
    for (int32_t h = 0; h < kHeads; ++h)
      for (int32_t s = 0; s < tokens; ++s) different += bits.at(h, c, s) != (expected[static_cast<size_t>((int64_t{c} * kHeads + h) * tokens + s)] != 0);
  EXPECT_EQ(different, 0);
}

struct Case {
  const char* name;
  std::function<float(int32_t, int32_t, int32_t)> gate;
};

TEST(Selection, TakesAsSortingDoesWhateverTheSamplesSay) {
  const BlockPlan plan = planBlocks({6, 14, 24}, choosePartition({6, 14, 24}, PartitionKind::SpaceTime3D));
  ASSERT_GT(int64_t{plan.blocks()} * plan.tokens(), 1 << 16);
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  const auto noise = [&](int32_t, int32_t, int32_t) { return normal(random); };
  const int64_t stride = int64_t{plan.blocks()} * plan.tokens() / 4096;
  const Case cases[] = {
      {"noise", noise},
      {"few values", [&](int32_t, int32_t, int32_t) { return std::round(normal(random) * 3); }},
      {"one block far ahead", [&](int32_t, int32_t c, int32_t) { return normal(random) + (c == 1 ? 100.0f : 0.0f); }},
      {"every second block at the top", [&](int32_t, int32_t c, int32_t) { return c % 2 ? 1.0f : 0.0f; }},
      {"all alike but one", [&](int32_t h, int32_t c, int32_t s) { return h == 0 && c == 2 && s == 77 ? 1.0f : 0.5f; }},
      // Whoever looks at every stride-th entry alone sees another distribution.
      {"high where samples fall", [&](int32_t, int32_t c, int32_t s) { return normal(random) + ((int64_t{c} * plan.tokens() + s) % stride < 2 ? 5.0f : 0.0f); }},
      {"low where samples fall", [&](int32_t, int32_t c, int32_t s) { return normal(random) - ((int64_t{c} * plan.tokens() + s) % stride < 2 ? 5.0f : 0.0f); }},
      {"rising", [&](int32_t, int32_t c, int32_t s) { return static_cast<float>(c) + static_cast<float>(s) * 1e-3f; }},
  };
  for (const Case& test : cases)
    for (const SelectionScope scope : {SelectionScope::HeadGlobal, SelectionScope::Overall, SelectionScope::Block})
      for (const Semantics semantics : {Semantics::Exact, Semantics::Upstream}) {
        SCOPED_TRACE(testing::Message() << test.name << " scope " << static_cast<int>(scope) << " semantics " << static_cast<int>(semantics));
        for (const float tau : {0.0f, 0.25f, 0.9f}) expectLikeSorting(plan, {SelectionMode::Threshold, scope, tau, 1, semantics}, test.gate);
        if (scope == SelectionScope::Block) continue;
        for (const int32_t k : {2, plan.blocks() / 3}) expectLikeSorting(plan, {SelectionMode::TopK, scope, 0, k, semantics}, test.gate);
      }
}

}  // namespace
}  // namespace vmoba::cpu
