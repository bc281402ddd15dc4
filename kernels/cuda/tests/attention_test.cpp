// Attention in emulation: the whole path from projections to output against double precision, and the planted faults.
#include <gtest/gtest.h>

#include "kernels/cuda/tests/attention_support.h"

namespace vmoba {
namespace {

using namespace cudatest;

const SelectionRule kTrained{SelectionMode::Threshold, SelectionScope::HeadGlobal, 0.25f, 1, Semantics::Exact};
const SelectionRule kTrainingFree{SelectionMode::TopK, SelectionScope::QueryHead, 0.25f, 4, Semantics::Exact};
const Partition kCubes{PartitionKind::SpaceTime3D, 1, 2, 3, 4};

std::vector<SelfAttentionCase> sparseCases(DType type) {
  return {
      {{3, 5, 11}, kCubes, 2, 20, type, kTrained},                                              // 165 tokens, blocks short on every axis
      {{4, 5, 9}, {PartitionKind::Spatial2D, 1, 1, 2, 4}, 1, 40, type, kTrainingFree},
      {{5, 4, 8}, {PartitionKind::Temporal1D, 1.4, 1, 1, 1}, 1, 128, type, kTrainingFree},      // runs of 44 tokens that cross frames
  };
}

TEST(PrepareAndGate, EqualsNormRotationAndMeansInDouble) {
  const SelfAttentionCase c{{3, 5, 7}, kCubes, 2, 20, DType::F32, kTrained};
  const std::vector<float> qkv = randomFloats(105 * 3 * 40, 7, 1.5f);
  const SelfAttentionResult r = run(c, 7, &qkv);
  const std::vector<float> norm = randomFloats(40, 9), angles = randomFloats(105 * 10, 10);  // as run() draws normK and the angles
  double most = 0;
  for (size_t p = 0; p < 105; ++p) {
    const auto raster = static_cast<size_t>(r.plan.permutation[p]);
    const float* row = &qkv[raster * 120 + 40];
    double squares = 0;
    for (int i = 0; i < 40; ++i) squares += static_cast<double>(row[i]) * row[i];
    const double factor = 1 / std::sqrt(squares / 40 + 1e-6);
    for (size_t i = 0; i < 40; i += 2) {
      const double a = row[i] * factor * norm[i], b = row[i + 1] * factor * norm[i + 1], angle = angles[raster * 10 + i % 20 / 2];
      most = std::max(most, std::abs(a * std::cos(angle) - b * std::sin(angle) - r.probe.k[p * 40 + i]));
      most = std::max(most, std::abs(a * std::sin(angle) + b * std::cos(angle) - r.probe.k[p * 40 + i + 1]));
    }
  }
  EXPECT_LT(most, 2e-6);
  EXPECT_LT(worst(r.probe.gate, reference::gate(doubles(r.probe.q), doubles(r.probe.k), r.plan, 2, 20)), 1e-5);
  EXPECT_EQ(r.notFinite, 0u);
}

TEST(SelfAttention, StrictModeErrsAtMostTwiceAsMuchAsPlainF32) {
  for (const SelfAttentionCase& c : sparseCases(DType::F32)) {
    const SelfAttentionResult r = run(c);
    const Errors errors = errorsOf(c, r);
    EXPECT_LE(errors.kernel, std::max(errors.allowed, 2e-6)) << c.headDim;
    EXPECT_EQ(r.probe.selection, reference::select(doubles(r.probe.gate), r.plan, c.heads, c.rule));
  }
}

TEST(SelfAttention, Bf16ErrsAtMostTwiceAsMuchAsPlainBf16) {
  for (const SelfAttentionCase& c : sparseCases(DType::BF16)) {
    const SelfAttentionResult r = run(c);
    const Errors errors = errorsOf(c, r);
    EXPECT_LE(errors.kernel, errors.allowed) << c.headDim;
    EXPECT_EQ(r.probe.selection, reference::select(doubles(r.probe.gate), r.plan, c.heads, c.rule));
  }
}

TEST(SelfAttention, DenseAttendsToEverything) {
  for (const DType type : {DType::F32, DType::BF16}) {
    SelfAttentionCase c{{3, 5, 11}, {}, 1, 72, type, {}};
    c.sparse = false;
    const Errors errors = errorsOf(c, run(c));
    EXPECT_LE(errors.kernel, std::max(errors.allowed, 2e-6));
  }
}

TEST(SelfAttention, SmallTilesOfConsumerCardsGiveTheSameAnswer) {
  SelfAttentionCase c{{3, 5, 11}, kCubes, 1, 128, DType::BF16, kTrained};
  c.options.sharedBytesPerMultiprocessor = 100 * 1024;
  const Errors errors = errorsOf(c, run(c));
  EXPECT_LE(errors.kernel, errors.allowed);
}

TEST(SelfAttention, GivesTheSameBitsInAnyOrderOfWarps) {
  SelfAttentionCase c{{3, 5, 11}, kCubes, 2, 20, DType::BF16, kTrained};
  const std::vector<float> first = run(c).out;
  c.options.scheduleSeed = 99;
  EXPECT_EQ(run(c).out, first);
}

TEST(SelfAttention, TakesHeadsOneByOneWhereThereIsLittleRoom) {
  for (const bool hopper : {false, true})
    for (const DType type : {DType::F32, DType::BF16}) {
      SelfAttentionCase c{{4, 6, 10}, {PartitionKind::SpaceTime3D, 1, 2, 2, 3}, 3, 48, type, kTrained};  // 24 blocks, four chunks
      c.hopper = hopper;
      const std::vector<float> together = run(c).out;
      c.partialBytes = 1;
      EXPECT_EQ(run(c).out, together);
    }
}

TEST(SelfAttention, TakesHeadsInEqualPartsIntoTheRoomThereIs) {
  const Grid video{21, 30, 52};
  const cuda::PlanUpload upload = cuda::layOut(planBlocks(video, choosePartition(video, PartitionKind::SpaceTime3D)));  // 12 chunks
  cuda::SelfAttentionJob job;
  job.dtype = DType::BF16;
  job.plan = upload.view(upload.data.data());
  job.sparse = true;
  job.heads = 12;
  job.headDim = 128;
  EXPECT_EQ(cuda::layOutScratch(job).partialHeads, 4);  // five would fit
  job.partialBytes = partialResultBytes(size_t{140} << 30);
  EXPECT_EQ(cuda::layOutScratch(job).partialHeads, 12);
  job.partialBytes = 1;
  EXPECT_EQ(cuda::layOutScratch(job).partialHeads, 1);
}

TEST(SelfAttention, ManyPartialResultsKeepTheErrorSmall) {
  const SelfAttentionCase c{{5, 5, 13}, {PartitionKind::SpaceTime3D, 1, 1, 1, 4}, 2, 64, DType::BF16, {SelectionMode::TopK, SelectionScope::QueryHead, 0.25f, 40, Semantics::Exact}};
  const SelfAttentionResult r = run(c);  // 100 blocks: a row has a result from each of 17 chunks, all rounded to bf16
  const auto meanSquare = [&](const std::vector<float>& actual, const std::vector<double>& exact) {
    double sum = 0;
    for (size_t i = 0; i < exact.size(); ++i) sum += (static_cast<double>(actual[i]) - exact[i]) * (static_cast<double>(actual[i]) - exact[i]);
    return sum;
  };
  const auto exact = reference::maskedAttention(doubles(r.probe.q), doubles(r.probe.k), doubles(r.probe.v), r.probe.selection, r.plan, c.heads, c.headDim);
  const std::vector<int32_t> blockOf = reference::blockOfPosition(r.plan);
  const auto plain = straightforward(r.probe.q, r.probe.k, r.probe.v, 325, 325, c.heads, c.headDim, c.type, [&](int h, int s, int key) {
    return r.probe.selection[static_cast<size_t>((blockOf[static_cast<size_t>(key)] * c.heads + h) * 325 + s)] != 0;
  });
  EXPECT_LT(meanSquare(r.out, exact), 2.25 * meanSquare(plain, exact));  // root mean square 1.5 times plain's
}

TEST(SelfAttention, CountsWhatItSelected) {
  const SelfAttentionCase c{{3, 5, 11}, kCubes, 2, 20, DType::F32, kTrained};
  const SelfAttentionResult r = run(c);
  EXPECT_NEAR(r.statistics.density, reference::density(r.probe.selection, r.plan, c.heads), 1e-12);
  const std::vector<int32_t> blockOf = reference::blockOfPosition(r.plan);
  const size_t blocks = static_cast<size_t>(r.plan.blocks());
  std::vector<double> map(blocks * blocks);
  for (size_t b = 0; b < blocks; ++b)
    for (size_t h = 0; h < 2; ++h)
      for (size_t s = 0; s < 165; ++s)
        if (r.probe.selection[(b * 2 + h) * 165 + s]) map[static_cast<size_t>(blockOf[s]) * blocks + b] += 0.5 / r.plan.length(blockOf[s]);
  EXPECT_LT(worst(r.statistics.selectionMap, map), 1e-6);
  EXPECT_GE(r.statistics.meanTileUnionBlocks, r.statistics.meanSelectedBlocks);
}

TEST(SelfAttention, ReportsNaNInItsInputs) {
  std::vector<float> qkv = randomFloats(105 * 3 * 40, 7);
  qkv[5000] = std::numeric_limits<float>::quiet_NaN();
  const SelfAttentionCase c{{3, 5, 7}, kCubes, 2, 20, DType::F32, kTrained};
  EXPECT_NE(run(c, 7, &qkv).notFinite, 0u);
}

/// Whether a planted fault shows in the attention kernel alone, as a broken rule of the programming model or as too large an
/// error: 70 queries and keys of one head, dense.
bool shows(DType type, emulation::PlantedFault fault) {
  constexpr int tokens = 70, dim = 32;
  const Stored q(randomFloats(tokens * dim, 1), type), k(randomFloats(tokens * dim, 2), type), v(randomFloats(tokens * dim, 3), type);
  DeviceBytes out(tokens * dim * elementBytes(type));
  const emulation::Options options{.fault = fault};
  const tile::Stream stream{const_cast<emulation::Options*>(&options)};
  const auto attend = [&]<class T>(T) {
    cuda::AttendJob<T> job;
    job.heads = 1;
    job.queries = job.keys = tokens;
    job.headDim = job.paddedDim = dim;
    job.q = static_cast<const T*>(q.data());
    job.k = static_cast<const T*>(k.data());
    job.v = static_cast<const T*>(v.data());
    job.out = reinterpret_cast<T*>(out.data());
    job.outStride = dim;
    if constexpr (std::is_same_v<T, Bf16>) cuda::attendFlash(stream, job);
    else cuda::attendPlain<T>(stream, job);
  };
  try {
    type == DType::BF16 ? attend(Bf16{}) : attend(0.0f);
  } catch (const emulation::Violation&) {
    return true;
  }
  const auto exact = reference::maskedAttention(doubles(q.f32), doubles(k.f32), doubles(v.f32), std::vector<uint8_t>(tokens, 1), reference::wholeSequence(tokens), 1, dim);
  const auto plain = straightforward(q.f32, k.f32, v.f32, tokens, tokens, 1, dim, type, [](int, int, int) { return true; });
  return worst(loadOutput(out, tokens * dim, type), exact) > std::max(2 * worst(plain, exact), 2e-6);
}

TEST(PlantedFault, NoneLeavesAttentionGreen) {
  EXPECT_FALSE(shows(DType::F32, {}));
  EXPECT_FALSE(shows(DType::BF16, {}));
}
TEST(PlantedFault, ADroppedBarrierTurnsAttentionRed) {
  for (const int barrier : {1, 2}) EXPECT_TRUE(shows(DType::F32, {emulation::PlantedFault::DropBarrier, barrier})) << barrier;
  for (const int barrier : {0, 1, 2}) EXPECT_TRUE(shows(DType::BF16, {emulation::PlantedFault::DropBarrier, barrier})) << barrier;
}
TEST(PlantedFault, ASwappedFragmentTurnsAttentionRed) { EXPECT_TRUE(shows(DType::BF16, {emulation::PlantedFault::SwapFragment})); }
TEST(PlantedFault, ARaggedTailOffByOneTurnsAttentionRed) {
  EXPECT_TRUE(shows(DType::F32, {emulation::PlantedFault::RaggedTail}));
  EXPECT_TRUE(shows(DType::BF16, {emulation::PlantedFault::RaggedTail}));
}
TEST(PlantedFault, ACopyNotWaitedForTurnsAttentionRed) { EXPECT_TRUE(shows(DType::BF16, {emulation::PlantedFault::SkipCopyWait})); }

TEST(CrossAttention, AddsTheImageBranchAndMapsWords) {
  constexpr int tokens = 50, keys = 37, heads = 2, headDim = 20, dim = heads * headDim, groups = 5;
  for (const DType type : {DType::F32, DType::BF16}) {
    const Stored q(randomFloats(tokens * dim, 1), type), k(randomFloats(keys * dim, 2), type), v(randomFloats(keys * dim, 3), type), before(randomFloats(tokens * dim, 4), type);
    std::vector<int32_t> groupOf;
    for (int key = 0; key < keys; ++key) groupOf.push_back(key % 7 < groups ? key % 7 : -1);
    const cuda::PlanUpload queryPlan = cuda::layOutDense(tokens), keyPlan = cuda::layOutDense(keys);
    DeviceBytes out(tokens * dim * elementBytes(type));
    std::memcpy(out.data(), before.data(), tokens * dim * elementBytes(type));
    std::vector<float> mass(groups * tokens, 0.5f);
    cuda::CrossAttentionJob job;
    job.dtype = type;
    job.queryPlan = queryPlan.view(queryPlan.data.data());
    job.keyPlan = keyPlan.view(keyPlan.data.data());
    job.heads = heads;
    job.headDim = headDim;
    job.q = q.data();
    job.k = k.data();
    job.v = v.data();
    job.qStride = job.kvStride = job.outStride = dim;
    job.out = out.data();
    job.accumulate = true;
    job.keyGroup = groupOf.data();
    job.groups = groups;
    job.groupMass = mass.data();
    DeviceBytes scratch(cuda::crossAttentionScratchBytes(job));
    cuda::crossAttention({}, job, scratch.data());

    std::vector<double> expected(before.f32.begin(), before.f32.end()), expectedMass(groups * tokens, 0.5);
    for (int h = 0; h < heads; ++h)
      for (int s = 0; s < tokens; ++s) {
        std::vector<double> weight(keys);
        double total = 0;
        for (int key = 0; key < keys; ++key) {
          double dot = 0;
          for (int i = h * headDim; i < (h + 1) * headDim; ++i) dot += static_cast<double>(q.f32[size_t(s * dim + i)]) * k.f32[size_t(key * dim + i)];
          total += weight[size_t(key)] = std::exp(dot / std::sqrt(static_cast<double>(headDim)));
        }
        for (int key = 0; key < keys; ++key) {
          const double share = weight[size_t(key)] / total;
          for (int i = h * headDim; i < (h + 1) * headDim; ++i) expected[size_t(s * dim + i)] += share * v.f32[size_t(key * dim + i)];
          if (groupOf[size_t(key)] >= 0) expectedMass[size_t(groupOf[size_t(key)] * tokens + s)] += share / heads;
        }
      }
    EXPECT_LT(worst(loadOutput(out, tokens * dim, type), expected), type == DType::F32 ? 2e-6 : 2e-2);
    EXPECT_LT(worst(mass, expectedMass), 1e-5);
  }
}

// softmax(scale·q·kᵀ + bias)·v over [q | k | v] rows in double.
std::vector<double> rowsInDouble(const std::vector<float>& qkv, int tokens, int heads, int dim, double scale, int64_t rowStride, int64_t headStride,
                                 const std::function<double(int, int, int)>& bias) {
  std::vector<double> out;
  for (int s = 0; s < tokens; ++s)
    for (int h = 0; h < heads; ++h) {
      const auto at = [&](int row, int part, int i) { return static_cast<double>(qkv[size_t(row * rowStride + h * headStride + part * (rowStride / 3) + i)]); };
      std::vector<double> weight(size_t(tokens), 0.0), sum(size_t(dim), 0.0);
      double total = 0;
      for (int key = 0; key < tokens; ++key) {
        double dot = 0;
        for (int i = 0; i < dim; ++i) dot += at(s, 0, i) * at(key, 1, i);
        total += weight[size_t(key)] = std::exp(dot * scale + bias(h, s, key));
      }
      for (int key = 0; key < tokens; ++key)
        for (int i = 0; i < dim; ++i) sum[size_t(i)] += weight[size_t(key)] / total * at(key, 2, i);
      out.insert(out.end(), sum.begin(), sum.end());
    }
  return out;
}

TEST(BiasedAttention, AddsABiasByDistanceAndHidesMaskedKeys) {
  constexpr int tokens = 45, heads = 3, dim = 12, inner = heads * dim, buckets = 6;
  const std::vector<float> qkv = randomFloats(tokens * 3 * inner, 1, 0.5f), bias = randomFloats(buckets * heads, 2);
  std::vector<int32_t> bucketOf;
  for (int d = -(tokens - 1); d < tokens; ++d) bucketOf.push_back((d + 3 * tokens) % buckets);
  std::vector<uint8_t> mask(tokens, 1);
  for (const int hidden : {0, 31, 32, 44}) mask[size_t(hidden)] = 0;
  DeviceBytes out(tokens * inner * 4);
  cuda::RowAttention<float> job;
  job.heads = heads;
  job.tokens = tokens;
  job.dim = dim;
  job.q = qkv.data();
  job.k = job.q + inner;
  job.v = job.q + 2 * inner;
  job.rowStride = 3 * inner;
  job.headStride = dim;
  job.out = reinterpret_cast<float*>(out.data());
  job.outRowStride = inner;
  job.outHeadStride = dim;
  job.bias = bias.data();
  job.bucketOfDistance = bucketOf.data();
  job.keyMask = mask.data();
  cuda::attendRows({}, job);
  const auto expected = rowsInDouble(qkv, tokens, heads, dim, 1, 3 * inner, dim, [&](int h, int s, int key) {
    return mask[size_t(key)] ? static_cast<double>(bias[size_t(bucketOf[size_t(key - s + tokens - 1)] * heads + h)]) : -std::numeric_limits<double>::infinity();
  });
  EXPECT_LT(worst(out.copy<float>(0, tokens * inner), expected), 2e-6);
}

TEST(FrameAttention, TakesWidthsOfMoreThanOneSlice) {
  constexpr int frames = 2, pixels = 35, channels = 150;
  const Stored qkv(randomFloats(frames * pixels * 3 * channels, 3), DType::BF16);
  DeviceBytes out(frames * pixels * channels * 2);
  cuda::RowAttention<Bf16> job;
  job.heads = frames;
  job.tokens = pixels;
  job.dim = channels;
  job.q = qkv.bf16.data();
  job.k = job.q + channels;
  job.v = job.q + 2 * channels;
  job.rowStride = 3 * channels;
  job.headStride = int64_t{pixels} * 3 * channels;
  job.out = reinterpret_cast<Bf16*>(out.data());
  job.outRowStride = channels;
  job.outHeadStride = int64_t{pixels} * channels;
  job.scale = 1 / std::sqrt(static_cast<float>(channels));
  cuda::attendRows({}, job);
  const std::vector<double> expected = rowsInDouble(qkv.f32, pixels, frames, channels, 1 / std::sqrt(150.0), 3 * channels, job.headStride, [](int, int, int) { return 0.0; });
  std::vector<double> byFrame;  // rowsInDouble gives [pixel, frame]
  for (int t = 0; t < frames; ++t)
    for (int s = 0; s < pixels; ++s)
      for (int i = 0; i < channels; ++i) byFrame.push_back(expected[size_t((s * frames + t) * channels + i)]);
  EXPECT_LT(worst(loadOutput(out, frames * pixels * channels, DType::BF16), byFrame), 1e-2);
}

}  // namespace
}  // namespace vmoba
