#include <numeric>

#include "kernels/tests/attention_fixture.h"

namespace vmoba::cpu {
namespace {

struct CrossCase {
  int32_t tokens, keys, heads, headDim;
  DType dtype;
};

class CrossAttentionTest : public testing::TestWithParam<CrossCase> {};

/// Softmax weights in double, [H, S, keys].
std::vector<double> softmaxWeights(const std::vector<float>& q, const std::vector<float>& k, const CrossCase& c) {
  std::vector<double> weights;
  const int64_t dim = int64_t{c.heads} * c.headDim;
  for (int64_t h = 0; h < c.heads; ++h)
    for (int64_t s = 0; s < c.tokens; ++s) {
      std::vector<double> row;
      for (int64_t key = 0; key < c.keys; ++key) {
        double dot = 0;
        for (int64_t i = h * c.headDim; i < (h + 1) * c.headDim; ++i) dot += static_cast<double>(q[static_cast<size_t>(s * dim + i)]) * static_cast<double>(k[static_cast<size_t>(key * dim + i)]);
        row.push_back(std::exp(dot / std::sqrt(static_cast<double>(c.headDim))));
      }
      const double total = std::accumulate(row.begin(), row.end(), 0.0);
      for (const double weight : row) weights.push_back(weight / total);
    }
  return weights;
}

TEST_P(CrossAttentionTest, AddsTheValuesAndMapsTheWords) {
  const CrossCase c = GetParam();
  const int64_t dim = int64_t{c.heads} * c.headDim;
  const Problem queries(c.tokens, c.heads, c.headDim, c.dtype, 1), context(c.keys, c.heads, c.headDim, c.dtype, 2);
  const auto bytesOf = [&](const std::vector<float>& values) {
    std::vector<std::byte> bytes(values.size() * elementBytes(c.dtype));
    for (size_t i = 0; i < values.size(); ++i)
      if (c.dtype == DType::BF16) reinterpret_cast<Bf16*>(bytes.data())[i] = toBf16(values[i]);
      else reinterpret_cast<float*>(bytes.data())[i] = values[i];
    return bytes;
  };
  const auto q = bytesOf(queries.q), k = bytesOf(context.k), v = bytesOf(context.v);
  const int32_t groups = 3;
  std::vector<int32_t> keyGroup(static_cast<size_t>(c.keys));
  for (int32_t key = 0; key < c.keys; ++key) keyGroup[static_cast<size_t>(key)] = key % 4 - 1;
  std::vector<float> mass(static_cast<size_t>(groups * c.tokens), 0.5f);  // what is there stays there
  std::vector<std::byte> out(q.size());
  const CrossAttention job{.tokens = c.tokens, .keys = c.keys, .heads = c.heads, .headDim = c.headDim, .dtype = c.dtype, .q = q.data(), .qStride = dim, .k = k.data(), .v = v.data(),
                           .kvStride = dim, .out = out.data(), .outStride = dim, .keyGroup = keyGroup.data(), .groups = groups, .groupMass = mass.data()};
  std::vector<std::byte> scratch(crossAttentionScratchBytes(job, threadCount()), std::byte{0xff});
  crossAttention(job, scratch);
  CrossAttention again = job;  // accumulate: twice the result
  again.accumulate = true;
  again.keyGroup = nullptr;
  const std::vector<std::byte> once = out;
  crossAttention(again, scratch);

  const std::vector<double> weights = softmaxWeights(queries.q, context.k, c);
  std::vector<double> expected(static_cast<size_t>(c.tokens * dim)), expectedMass(mass.size(), 0.5);
  for (int64_t h = 0; h < c.heads; ++h)
    for (int64_t s = 0; s < c.tokens; ++s)
      for (int64_t key = 0; key < c.keys; ++key) {
        const double weight = weights[static_cast<size_t>((h * c.tokens + s) * c.keys + key)];
        for (int64_t i = h * c.headDim; i < (h + 1) * c.headDim; ++i) expected[static_cast<size_t>(s * dim + i)] += weight * static_cast<double>(context.v[static_cast<size_t>(key * dim + i)]);
        if (keyGroup[static_cast<size_t>(key)] >= 0) expectedMass[static_cast<size_t>(keyGroup[static_cast<size_t>(key)] * c.tokens + s)] += weight / c.heads;
      }
  const auto floatsOf = [&](const std::vector<std::byte>& bytes) {
    std::vector<float> values;
    for (size_t i = 0; i < bytes.size() / elementBytes(c.dtype); ++i)
      values.push_back(c.dtype == DType::BF16 ? toFloat(reinterpret_cast<const Bf16*>(bytes.data())[i]) : reinterpret_cast<const float*>(bytes.data())[i]);
    return values;
  };
  const double tolerance = c.dtype == DType::F32 ? 2e-5 : 2e-2;
  EXPECT_LT(largestDifference(floatsOf(once), expected), tolerance);
  EXPECT_LT(largestDifference(mass, expectedMass), c.dtype == DType::F32 ? 1e-5 : 2e-3);
  for (double& value : expected) value *= 2;
  EXPECT_LT(largestDifference(floatsOf(out), expected), 2 * tolerance);
}

TEST(CrossAttentionAlone, RefusesACallWithoutKeys) {
  CrossAttention job;
  job.tokens = job.heads = 1;
  job.headDim = 2;
  std::vector<std::byte> scratch(crossAttentionScratchBytes(job, threadCount()));
  try {
    crossAttention(job, scratch);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadRequest);
  }
}

INSTANTIATE_TEST_SUITE_P(Shapes, CrossAttentionTest,
                         testing::Values(CrossCase{1, 1, 1, 8, DType::F32}, CrossCase{131, 32, 3, 32, DType::F32}, CrossCase{200, 257, 2, 40, DType::F32},
                                         CrossCase{97, 512, 2, 128, DType::F32}, CrossCase{131, 32, 3, 32, DType::BF16}, CrossCase{97, 513, 2, 128, DType::BF16}));

}  // namespace
}  // namespace vmoba::cpu
