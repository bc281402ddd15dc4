#include "kernels/tests/attention_fixture.h"

#include <bit>

namespace vmoba::cpu {
namespace {

constexpr SelectionScope kScopes[] = {SelectionScope::QueryHead, SelectionScope::HeadGlobal, SelectionScope::Overall, SelectionScope::Block};

std::vector<SelectionRule> rulesFor(int32_t blocks, std::mt19937& random) {
  std::vector<SelectionRule> rules;
  for (const SelectionScope scope : kScopes)
    for (const Semantics semantics : {Semantics::Exact, Semantics::Upstream}) {
      const float tau = std::uniform_real_distribution<float>(0, 1.2f)(random);
      rules.push_back({SelectionMode::Threshold, scope, tau, 1, semantics});
      if (scope != SelectionScope::Block) rules.push_back({SelectionMode::TopK, scope, 0, std::uniform_int_distribution<int32_t>(1, blocks + 1)(random), semantics});
    }
  return rules;
}

BlockPlan randomPlan(std::mt19937& random) {
  const auto pick = [&](int32_t low, int32_t high) { return std::uniform_int_distribution<int32_t>(low, high)(random); };
  const Grid grid{pick(1, 5), pick(1, 7), pick(1, 11)};
  switch (pick(0, 3)) {
    case 0: return planBlocks(grid, {PartitionKind::Temporal1D, pick(1, 2 * grid.t) / 2.0 + 1e-9 < 1.0 / grid.h / grid.w ? 1.0 : pick(2, 2 * grid.t + 1) / 2.0, 1, 1, 1});
    case 1: return planBlocks(grid, {PartitionKind::Spatial2D, 1, 1, pick(1, grid.h), pick(1, grid.w)});
    case 2: return planBlocks(grid, {PartitionKind::SpaceTime3D, 1, pick(1, grid.t), pick(1, grid.h), pick(1, grid.w)});
    default: {
      const auto tokens = static_cast<int32_t>(grid.tokens());
      return planPackedSequences({0, tokens / 3, tokens / 2, tokens}, pick(std::max(1, tokens / 12), tokens));
    }
  }
}

/// Everything the fused path did against the reference: gate, selection, output, density.
void expectLikeReference(const Problem& problem, const BlockPlan& plan, const SelectionRule& rule, const char* instructionSet) {
  const auto result = problem.run(&plan, rule, [&](SelfAttention& job) { job.instructionSet = instructionSet; });
  const auto &q = result.probe.q, &k = result.probe.k, &v = result.probe.v;
  ASSERT_LT(largestDifference(result.probe.gate, reference::gate(wide(q), wide(k), plan, problem.heads, problem.headDim)), 1e-4);
  const std::vector<uint8_t> selection = reference::select(wide(result.probe.gate), plan, problem.heads, rule);
  ASSERT_EQ(result.probe.selection, selection);
  EXPECT_NEAR(result.statistics.density, reference::density(selection, plan, problem.heads), 1e-12);
  std::vector<uint8_t> attended = selection;
  if (reference::fallsBackToDense(selection, plan, problem.heads, rule)) {
    const std::vector<int32_t> sequence = reference::sequenceOfPosition(plan);
    const int64_t plane = int64_t{problem.heads} * plan.tokens();
    for (int64_t i = 0; i < static_cast<int64_t>(attended.size()); ++i)
      attended[static_cast<size_t>(i)] = sequence[static_cast<size_t>(i % plan.tokens())] == sequence[static_cast<size_t>(plan.start[static_cast<size_t>(i / plane)])];
  }
  const int64_t dim = int64_t{problem.heads} * problem.headDim;
  EXPECT_LT(largestDifference(result.out, toRaster(reference::maskedAttention(wide(q), wide(k), wide(v), attended, plan, problem.heads, problem.headDim), plan, dim)), 2e-5);
}

TEST(FusedAttention, MatchesTheReferenceOnEveryInstructionSetRuleAndPartition) {
  std::mt19937 random(7);
  for (int round = 0; round < 10; ++round) {
    const BlockPlan plan = randomPlan(random);
    const int32_t heads = 1 + static_cast<int32_t>(random() % 3), headDim = std::array{2, 8, 24, 32, 40, 128}[random() % 6];
    const Problem problem(plan.tokens(), heads, headDim, DType::F32, static_cast<uint32_t>(random()));
    for (const TileKernel* kernel : tileKernels(DType::F32))
      for (const SelectionRule& rule : rulesFor(plan.blocks(), random)) {
        SCOPED_TRACE(testing::Message() << kernel->name << " round " << round << " tokens " << plan.tokens() << " blocks " << plan.blocks() << " heads " << heads << " dim "
                                        << headDim << " mode " << static_cast<int>(rule.mode) << " scope " << static_cast<int>(rule.scope) << " tau " << rule.tau << " k "
                                        << rule.k << " semantics " << static_cast<int>(rule.semantics));
        expectLikeReference(problem, plan, rule, kernel->name);
        if (testing::Test::HasFatalFailure()) return;
      }
  }
}

TEST(FusedAttention, BreaksTiesTowardsTheLowerBlockWhenAllGatesAreEqual) {
  Problem problem(60, 2, 16, DType::F32, 3);
  std::fill(problem.q.begin(), problem.q.end(), 0.0f);
  const BlockPlan plan = planBlocks({5, 3, 4}, {PartitionKind::Temporal1D, 1, 1, 1, 1});
  std::mt19937 random(1);
  for (const SelectionRule& rule : rulesFor(plan.blocks(), random)) expectLikeReference(problem, plan, rule, nullptr);
}

TEST(FusedAttention, SelectsExactlyWhenManyGatesRepeat) {
  std::mt19937 random(17);
  Problem problem(240, 3, 8, DType::F32, 4);
  for (std::vector<float>* values : {&problem.q, &problem.k})
    for (float& value : *values) value = static_cast<float>(static_cast<int32_t>(random() % 3) - 1);
  const BlockPlan plan = planBlocks({5, 6, 8}, {PartitionKind::SpaceTime3D, 1, 2, 2, 4});
  for (int round = 0; round < 2; ++round)
    for (const SelectionRule& rule : rulesFor(plan.blocks(), random)) expectLikeReference(problem, plan, rule, nullptr);
}

/// softmax over bf16 q·k in f32, weights rounded to bf16 before the values are added: what a plain bf16 implementation does.
std::vector<float> plainBf16(const AttentionProbe& p, const std::vector<uint8_t>& selection, const BlockPlan& plan, int32_t heads, int32_t d) {
  const int64_t tokens = plan.tokens(), dim = int64_t{heads} * d;
  std::vector<float> out(p.q.size());
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t s = 0; s < tokens; ++s) {
      std::vector<float> logit(static_cast<size_t>(tokens), -INFINITY), sum(static_cast<size_t>(d), 0.0f);
      float most = -INFINITY, total = 0;
      for (int64_t c = 0; c < plan.blocks(); ++c)
        for (int64_t key = plan.start[static_cast<size_t>(c)]; selection[static_cast<size_t>((c * heads + h) * tokens + s)] && key < plan.start[static_cast<size_t>(c) + 1]; ++key) {
          float dot = 0;
          for (int64_t i = h * d; i < (h + 1) * d; ++i) dot += p.q[static_cast<size_t>(s * dim + i)] * p.k[static_cast<size_t>(key * dim + i)];
          logit[static_cast<size_t>(key)] = dot / std::sqrt(static_cast<float>(d));
          most = std::max(most, logit[static_cast<size_t>(key)]);
        }
      for (int64_t key = 0; key < tokens; ++key) {
        const float weight = std::exp(logit[static_cast<size_t>(key)] - most);
        total += weight;
        for (int64_t i = 0; i < d; ++i) sum[static_cast<size_t>(i)] += toFloat(toBf16(weight)) * p.v[static_cast<size_t>(key * dim + h * d + i)];
      }
      for (int64_t i = 0; i < d; ++i) out[static_cast<size_t>(s * dim + h * d + i)] = toFloat(toBf16(sum[static_cast<size_t>(i)] / total));
    }
  return out;
}

TEST(FusedAttention, IsAtMostTwiceAsFarFromDoubleAsPlainBf16) {
  for (const TileKernel* kernel : tileKernels(DType::BF16))
    for (const float scale : {0.5f, 1.0f, 2.0f}) {
      SCOPED_TRACE(testing::Message() << kernel->name << " scale " << scale);
      const Grid grid{3, 9, 13};
      const Problem problem(static_cast<int32_t>(grid.tokens()), 2, 128, DType::BF16, 5, scale);
      const BlockPlan plan = planBlocks(grid, {PartitionKind::SpaceTime3D, 1, 2, 4, 5});
      const SelectionRule rule{SelectionMode::Threshold, SelectionScope::HeadGlobal, 0.4f, 1, Semantics::Exact};
      const auto result = problem.run(&plan, rule, [&](SelfAttention& job) { job.instructionSet = kernel->name; });
      EXPECT_EQ(result.probe.selection, reference::select(wide(result.probe.gate), plan, 2, rule));
      const auto exact = reference::maskedAttention(wide(result.probe.q), wide(result.probe.k), wide(result.probe.v), result.probe.selection, plan, 2, 128);
      // Root mean squares, and the largest differences up to one rounding of the result: where an extreme falls beside a power of two is luck.
      const std::vector<float> plain = plainBf16(result.probe, result.probe.selection, plan, 2, 128);
      const std::vector<double> raster = toRaster(exact, plan, 256);
      const double largest = std::abs(*std::max_element(exact.begin(), exact.end(), [](double a, double b) { return std::abs(a) < std::abs(b); }));
      EXPECT_GT(rootMeanSquare(plain, exact), 0);
      EXPECT_LE(rootMeanSquare(result.out, raster), 1.25 * rootMeanSquare(plain, exact));
      EXPECT_LE(largestDifference(result.out, raster), 2 * largestDifference(plain, exact) + largest / 256);
    }
}

TEST(FusedAttention, GivesTheSameBitsWithAnyNumberOfThreads) {
  const int before = threadCount();
  for (const DType dtype : {DType::F32, DType::BF16}) {
    const Grid grid{5, 11, 16};
    const Problem problem(static_cast<int32_t>(grid.tokens()), 3, 64, dtype, 9);
    const BlockPlan plan = planBlocks(grid, choosePartition(grid, PartitionKind::SpaceTime3D));
    for (const SelectionScope scope : kScopes) {
      const SelectionRule rule{SelectionMode::Threshold, scope, 0.25f, 1, Semantics::Exact};
      setThreadCount(1);
      const auto one = problem.run(&plan, rule);
      for (const int threads : {2, 3}) {
        setThreadCount(threads);
        const auto many = problem.run(&plan, rule);
        EXPECT_EQ(one.out, many.out);
        EXPECT_EQ(one.probe.gate, many.probe.gate);
      }
    }
  }
  setThreadCount(before);
}

TEST(FusedAttention, RoutesTheSameWithAndWithoutAProbe) {
  const Grid grid{5, 9, 10};
  const Problem problem(static_cast<int32_t>(grid.tokens()), 3, 32, DType::F32, 21);
  const BlockPlan plan = planBlocks(grid, {PartitionKind::Spatial2D, 1, 1, 4, 4});
  std::mt19937 random(2);
  for (const SelectionRule& rule : rulesFor(plan.blocks(), random))
    EXPECT_EQ(problem.run(&plan, rule).out, problem.run(&plan, rule, [](SelfAttention& job) { job.probe = nullptr; }).out);
}

TEST(FusedAttention, CommutesWithAPermutationOfHeads) {
  const Grid grid{3, 7, 11};
  Problem problem(static_cast<int32_t>(grid.tokens()), 3, 32, DType::F32, 10);
  const BlockPlan plan = planBlocks(grid, {PartitionKind::Spatial2D, 1, 1, 3, 4});
  const SelectionRule rule{SelectionMode::Threshold, SelectionScope::HeadGlobal, 0.3f, 1, Semantics::Exact};
  const auto straight = problem.run(&plan, rule);
  const auto rotated = [&](const std::vector<float>& values) {
    std::vector<float> out(values.size());
    for (size_t i = 0; i < values.size(); ++i) out[i / 96 * 96 + (i % 96 + 32) % 96] = values[i];
    return out;
  };
  for (std::vector<float>* values : {&problem.q, &problem.k, &problem.v}) *values = rotated(*values);
  EXPECT_EQ(problem.run(&plan, rule).out, rotated(straight.out));
}

TEST(FusedAttention, EqualsDenseWhenEverythingIsSelected) {
  const Grid grid{3, 11, 13};
  const Problem problem(static_cast<int32_t>(grid.tokens()), 2, 32, DType::F32, 12);
  const auto dense = problem.run(nullptr, {});
  for (const PartitionKind kind : {PartitionKind::Temporal1D, PartitionKind::Spatial2D, PartitionKind::SpaceTime3D}) {
    const BlockPlan plan = planBlocks(grid, choosePartition(grid, kind));
    for (const SelectionScope scope : kScopes)
      for (const SelectionRule& rule : {SelectionRule{SelectionMode::Threshold, scope, 1.0f, 1, Semantics::Exact}, SelectionRule{SelectionMode::TopK, scope, 0, plan.blocks(), Semantics::Exact}}) {
        const auto result = problem.run(&plan, rule);
        EXPECT_EQ(result.statistics.density, 1);
        EXPECT_TRUE(result.statistics.dense);
        EXPECT_LT(largestDifference(result.out, wide(dense.out)), 2e-6);
      }
  }
}

TEST(FusedAttention, NormsAndRotatesAsTheModelDoes) {
  const int32_t tokens = 45, heads = 2, d = 32, dim = heads * d;
  const Problem problem(tokens, heads, d, DType::F32, 13);
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform(0.5f, 1.5f);
  std::vector<float> normQ(dim), normK(dim), cosine(static_cast<size_t>(tokens * d / 2)), sine(cosine.size());
  for (float& value : normQ) value = uniform(random);
  for (float& value : normK) value = uniform(random);
  for (size_t i = 0; i < cosine.size(); ++i) cosine[i] = std::cos(static_cast<float>(i)), sine[i] = std::sin(static_cast<float>(i));
  const BlockPlan plan = planBlocks({5, 3, 3}, {PartitionKind::Spatial2D, 1, 1, 2, 2});
  const auto result = problem.run(&plan, {SelectionMode::TopK, SelectionScope::QueryHead, 0, 2, Semantics::Exact}, [&](SelfAttention& job) {
    job.normQ = normQ.data();
    job.normK = normK.data();
    job.ropeCos = cosine.data();
    job.ropeSin = sine.data();
  });
  const auto expected = [&](const std::vector<float>& values, const std::vector<float>& weight) {
    std::vector<double> out;
    for (int32_t p = 0; p < tokens; ++p) {
      const size_t s = static_cast<size_t>(plan.permutation[static_cast<size_t>(p)]);
      double squares = 0;
      for (size_t i = 0; i < dim; ++i) squares += std::pow(values[s * dim + i], 2);
      const double factor = 1 / std::sqrt(squares / dim + 1e-6);
      for (size_t i = 0; i < dim; i += 2) {
        const double a = values[s * dim + i] * factor * weight[i], b = values[s * dim + i + 1] * factor * weight[i + 1];
        const double c = cosine[s * d / 2 + i % d / 2], n = sine[s * d / 2 + i % d / 2];
        out.push_back(a * c - b * n);
        out.push_back(a * n + b * c);
      }
    }
    return out;
  };
  EXPECT_LT(largestDifference(result.probe.q, expected(problem.q, normQ)), 2e-6);
  EXPECT_LT(largestDifference(result.probe.k, expected(problem.k, normK)), 2e-6);
  const auto exact = reference::maskedAttention(wide(result.probe.q), wide(result.probe.k), wide(result.probe.v), result.probe.selection, plan, heads, d);
  EXPECT_LT(largestDifference(result.out, toRaster(exact, plan, dim)), 2e-5);
}

ErrorCode codeOf(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.code();
  }
  return ErrorCode::Internal;
}

TEST(FusedAttention, ReportsNumbersThatAreNone) {
  const BlockPlan plan = planBlocks({3, 5, 7}, {PartitionKind::Spatial2D, 1, 1, 2, 3});
  for (const DType dtype : {DType::F32, DType::BF16})
    for (const float poison : {NAN, INFINITY, -INFINITY})
      for (int part = 0; part < 3; ++part)
        for (const BlockPlan* blocks : {static_cast<const BlockPlan*>(nullptr), &plan}) {
          Problem problem(105, 2, 16, dtype, 14);
          (part == 0 ? problem.q : part == 1 ? problem.k : problem.v)[777] = poison;
          EXPECT_EQ(codeOf([&] { problem.run(blocks, {}); }), ErrorCode::NumericalFault);
        }
  // Finite inputs whose products overflow.
  const Problem huge(105, 2, 16, DType::F32, 15, 1e25f);
  EXPECT_EQ(codeOf([&] { huge.run(nullptr, {}); }), ErrorCode::NumericalFault);
  std::mt19937 random(2);
  for (const SelectionRule& rule : rulesFor(plan.blocks(), random)) EXPECT_EQ(codeOf([&] { huge.run(&plan, rule); }), ErrorCode::NumericalFault);
}

TEST(FusedAttention, RefusesNormWeightsThatAreNone) {
  const BlockPlan plan = planBlocks({3, 5, 7}, {PartitionKind::Spatial2D, 1, 1, 2, 3});
  const Problem problem(105, 2, 16, DType::BF16, 14);
  std::vector<float> weights(32, 1.0f);
  weights[5] = std::bit_cast<float>(0xffffffffu);  // a NaN that rounding to bf16 would turn into 0
  for (const bool query : {true, false}) {
    const auto damage = [&](SelfAttention& job) { (query ? job.normQ : job.normK) = weights.data(); };
    EXPECT_EQ(codeOf([&] { problem.run(&plan, {}, damage); }), ErrorCode::NumericalFault);
  }
}

TEST(FusedAttention, StandsLargeLogitsAndLateMaxima) {
  Problem problem(700, 1, 16, DType::F32, 16, 6);
  for (int64_t s = 0; s < 700; ++s)  // every later key is larger: each panel raises the running maximum
    for (int64_t i = 0; i < 16; ++i) problem.k[static_cast<size_t>(s * 16 + i)] *= static_cast<float>(s) / 100;
  const auto result = problem.run(nullptr, {});
  const BlockPlan whole = reference::wholeSequence(700);
  const auto exact = reference::maskedAttention(wide(problem.q), wide(problem.k), wide(problem.v), std::vector<uint8_t>(700, 1), whole, 1, 16);
  EXPECT_LT(largestDifference(result.out, exact), 2e-3);  // logits reach thousands: f32 knows them to 1e-4
}

TEST(FusedAttention, StopsWhenCancelled) {
  const std::atomic<bool> cancel = true;
  const Problem problem(105, 2, 16, DType::F32, 14);
  EXPECT_EQ(codeOf([&] { problem.run(nullptr, {}, [&](SelfAttention& job) { job.cancel = &cancel; }); }), ErrorCode::Cancelled);
}

TEST(FusedAttention, RefusesTooLittleScratchAndUnknownInstructionSets) {
  const Problem problem(105, 2, 16, DType::F32, 14);
  EXPECT_EQ(codeOf([&] { problem.run(nullptr, {}, [](SelfAttention& job) { job.instructionSet = "mmx"; }); }), ErrorCode::Unsupported);
  std::vector<float> rows(105 * 32 * 4);
  SelfAttention job{.tokens = 105, .heads = 2, .headDim = 16, .q = rows.data(), .k = rows.data(), .v = rows.data(), .rowStride = 32, .rule = {}, .out = rows.data() + 105 * 96, .outStride = 32};
  std::vector<std::byte> scratch(selfAttentionScratchBytes(job, threadCount()) / 2);
  EXPECT_EQ(codeOf([&] { selfAttention(job, scratch); }), ErrorCode::Internal);
}

TEST(FusedAttention, GivesTheSameBitsWhetherOrNotStatisticsAreAskedFor) {
  const Grid grid{5, 9, 10};
  const BlockPlan plan = planBlocks(grid, {PartitionKind::Spatial2D, 1, 1, 4, 4});
  const auto tokens = static_cast<int32_t>(grid.tokens());
  std::vector<float> in(static_cast<size_t>(tokens) * 96);
  std::mt19937 random(4);
  for (float& value : in) value = static_cast<float>(random() % 1000) / 500 - 1;
  const auto output = [&](const StatisticsRequest* request, AttentionStatistics* statistics) {
    std::vector<float> out(static_cast<size_t>(tokens) * 32);
    const SelfAttention job{.tokens = tokens, .heads = 2, .headDim = 16, .q = in.data(), .k = in.data() + 32, .v = in.data() + 64, .rowStride = 96, .blocks = &plan, .rule = {}, .out = out.data(), .outStride = 32};
    std::vector<std::byte> scratch(selfAttentionScratchBytes(job, threadCount()));
    selfAttention(job, scratch, request, statistics);
    return out;
  };
  const StatisticsRequest maps{true, -1};
  AttentionStatistics statistics;
  EXPECT_EQ(output(&maps, &statistics), output(nullptr, nullptr));
  EXPECT_EQ(statistics.selectionMap.size(), static_cast<size_t>(plan.blocks() * plan.blocks()));
}

TEST(FusedAttention, CountsWhatItSelected) {
  const Grid grid{3, 6, 8};
  const Problem problem(static_cast<int32_t>(grid.tokens()), 2, 16, DType::F32, 30);
  const BlockPlan plan = planBlocks(grid, {PartitionKind::Spatial2D, 1, 1, 3, 4});
  const SelectionRule rule{SelectionMode::TopK, SelectionScope::QueryHead, 0, 2, Semantics::Exact};
  std::vector<float> in(144 * 96), out(144 * 32);
  std::mt19937 random(3);
  for (float& value : in) value = static_cast<float>(random() % 1000) / 500 - 1;
  SelfAttention job{.tokens = 144, .heads = 2, .headDim = 16, .q = in.data(), .k = in.data() + 32, .v = in.data() + 64, .rowStride = 96, .blocks = &plan, .rule = rule, .out = out.data(), .outStride = 32};
  AttentionProbe probe;
  job.probe = &probe;
  std::vector<std::byte> scratch(selfAttentionScratchBytes(job, threadCount()));
  AttentionStatistics statistics;
  const StatisticsRequest request{true, 1};
  selfAttention(job, scratch, &request, &statistics);
  EXPECT_EQ(statistics.meanSelectedBlocks, 2);
  EXPECT_DOUBLE_EQ(statistics.density, 0.5);
  EXPECT_EQ(statistics.headDensity, (std::vector<float>{0.5f, 0.5f}));
  std::vector<float> received(4), map(16);
  for (size_t c = 0; c < 4; ++c)
    for (size_t h = 0; h < 2; ++h)
      for (size_t s = 0; s < 144; ++s) {
        if (!probe.selection[(c * 2 + h) * 144 + s]) continue;
        received[c] += 1.0f / 288;
        if (h == 1) map[s / 36 * 4 + c] += 1.0f / 36;
      }
  for (size_t c = 0; c < 4; ++c) EXPECT_NEAR(statistics.blockReceived[c], received[c], 1e-5);
  for (size_t i = 0; i < 16; ++i) EXPECT_NEAR(statistics.selectionMap[i], map[i], 1e-5);
}

}  // namespace
}  // namespace vmoba::cpu
