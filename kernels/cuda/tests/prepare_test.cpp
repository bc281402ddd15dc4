// Preparation, block means and gates in bf16 against double precision, on shapes that fill 16-byte pieces and that do not.
#include <gtest/gtest.h>

#include "kernels/cuda/tests/attention_support.h"

namespace vmoba {
namespace {

using namespace cudatest;

const Partition kCubes{PartitionKind::SpaceTime3D, 1, 2, 3, 4};

struct PrepareCase {
  int heads, headDim;
  Grid grid{3, 5, 11};
  Partition partition = kCubes;
  bool normed = true, rotated = true;
  int strideExtra = 0, sourceOffset = 0;  ///< elements beyond a row's, and before the first
  emulation::Options options = {};
};

std::ostream& operator<<(std::ostream& out, const PrepareCase& c) {
  return out << c.heads << " heads of " << c.headDim << (c.normed ? ", normed" : "") << (c.rotated ? ", rotated" : "") << ", stride +" << c.strideExtra << ", offset "
             << c.sourceOffset;
}

struct Prepared {
  BlockPlan plan;
  int padded = 0;
  std::vector<Bf16> out, other;  ///< of a part with sums, and of one without norm, rotation and sums
  std::vector<double> sums;      ///< per segment
  std::vector<float> means;
  double worst = 0;              ///< beyond the rounding to bf16, relative to the largest value
  uint32_t notFinite = 0;
  std::vector<float> norms, expectedNorms;  ///< largest squared norm of a row of each head of `out`
  bool operator==(const Prepared& p) const {
    return std::memcmp(out.data(), p.out.data(), out.size() * 2) == 0 && std::memcmp(other.data(), p.other.data(), other.size() * 2) == 0 && sums == p.sums && means == p.means;
  }
};

Prepared prepared(const PrepareCase& c, float planted = 0) {
  Prepared r;
  r.plan = planBlocks(c.grid, c.partition);
  r.padded = cuda::paddedHeadDim(c.headDim);
  const auto tokens = static_cast<size_t>(c.grid.tokens()), dim = static_cast<size_t>(c.heads * c.headDim), half = static_cast<size_t>(c.headDim) / 2;
  const auto heads = static_cast<size_t>(c.heads), padded = static_cast<size_t>(r.padded), stride = dim + static_cast<size_t>(c.strideExtra), offset = static_cast<size_t>(c.sourceOffset);
  std::vector<float> values = randomFloats(tokens * stride + offset + 16, 1, 1.5f);
  if (planted != 0) values[offset + (tokens - 1) * stride + dim - 1] = planted;
  const Stored source(values, DType::BF16);
  const std::vector<float> norm = randomFloats(dim, 2), angles = randomFloats(tokens * half, 3);
  DeviceBytes input(source.bf16.size() * 2), weights(dim * 4), cosine(tokens * half * 4), sine(tokens * half * 4), out(heads * tokens * padded * 2), other(heads * tokens * padded * 2);
  std::memcpy(input.data(), source.bf16.data(), source.bf16.size() * 2);
  std::memcpy(weights.data(), norm.data(), dim * 4);
  for (size_t i = 0; i < angles.size(); ++i) {
    reinterpret_cast<float*>(cosine.data())[i] = std::cos(angles[i]);
    reinterpret_cast<float*>(sine.data())[i] = std::sin(angles[i]);
  }
  const cuda::PlanUpload upload = cuda::layOut(r.plan);
  const cuda::PlanView view = upload.view(upload.data.data());
  const size_t segments = static_cast<size_t>(view.segments), blocks = static_cast<size_t>(view.blocks);
  DeviceBytes sums(segments * heads * padded * 8), means(heads * blocks * padded * 4);

  cuda::PrepareJob<Bf16> job{view, c.heads, c.headDim, r.padded, 1e-6f, {}, 2, &r.notFinite};
  const auto* from = reinterpret_cast<const Bf16*>(input.data()) + offset;
  job.part[0] = {from, static_cast<int64_t>(stride), nullptr, nullptr, nullptr, reinterpret_cast<Bf16*>(other.data()), nullptr};
  job.part[1] = {from, static_cast<int64_t>(stride), c.normed ? reinterpret_cast<const float*>(weights.data()) : nullptr, c.rotated ? reinterpret_cast<const float*>(cosine.data()) : nullptr,
                 c.rotated ? reinterpret_cast<const float*>(sine.data()) : nullptr, reinterpret_cast<Bf16*>(out.data()), reinterpret_cast<double*>(sums.data())};
  r.norms.assign(heads, 0);
  job.part[1].norms = reinterpret_cast<uint32_t*>(r.norms.data());
  const tile::Stream stream{const_cast<emulation::Options*>(&c.options)};
  cuda::prepare(stream, job);
  cuda::blockMeans(stream, view, reinterpret_cast<const double*>(sums.data()), c.heads, r.padded, reinterpret_cast<float*>(means.data()));
  r.out = out.copy<Bf16>(0, heads * tokens * padded);
  r.other = other.copy<Bf16>(0, heads * tokens * padded);
  r.sums = sums.copy<double>(0, segments * heads * padded);
  r.means = means.copy<float>(0, heads * blocks * padded);

  for (size_t h = 0; h < heads; ++h) {
    double most = 0;
    for (size_t p = 0; p < tokens; ++p) {
      double squares = 0;
      for (size_t i = 0; i < padded; ++i) squares += std::pow(static_cast<double>(toFloat(r.out[(h * tokens + p) * padded + i])), 2);
      most = std::max(most, squares);
    }
    r.expectedNorms.push_back(static_cast<float>(most));
  }
  std::vector<double> expected(r.sums.size()), magnitude(r.sums.size()), blockSums(r.means.size()), blockMagnitude(r.means.size());
  for (size_t segment = 0, block = 0; segment < segments; ++segment) {
    while (static_cast<int32_t>(segment) >= view.blockFirstSegment[block + 1]) ++block;
    for (auto p = static_cast<size_t>(view.segmentFirst[segment]); p < static_cast<size_t>(view.segmentFirst[segment + 1]); ++p) {
      const size_t raster = r.plan.permutation.empty() ? p : static_cast<size_t>(r.plan.permutation[p]);
      const float* row = &source.f32[offset + raster * stride];
      double squares = 0;
      for (size_t i = 0; i < dim; ++i) squares += static_cast<double>(row[i]) * row[i];
      const double factor = 1 / std::sqrt(squares / static_cast<double>(dim) + 1e-6);
      for (size_t h = 0; h < heads; ++h)
        for (size_t i = 0; i < padded; ++i) {
          const size_t at = (h * tokens + p) * padded + i, column = h * static_cast<size_t>(c.headDim) + i, even = column - i % 2;
          const bool filled = i < static_cast<size_t>(c.headDim);
          double value = 0;
          if (filled) {
            const auto normalised = [&](size_t channel) { return c.normed ? row[channel] * factor * norm[channel] : static_cast<double>(row[channel]); };
            value = normalised(column);
            if (c.rotated) {
              const double angle = angles[raster * half + i / 2];
              const auto cosineOf = static_cast<double>(std::cos(static_cast<float>(angle))), sineOf = static_cast<double>(std::sin(static_cast<float>(angle)));
              value = i % 2 == 0 ? normalised(even) * cosineOf - normalised(even + 1) * sineOf : normalised(even) * sineOf + normalised(even + 1) * cosineOf;
            }
          }
          const double mine = toFloat(r.out[at]), plain = filled ? row[column] : 0.0f;
          const double error = std::max(std::abs(mine - value) - std::abs(value) / 256, std::abs(toFloat(r.other[at]) - plain));
          r.worst = std::isnan(error) || !(error <= r.worst) ? (std::isnan(error) ? std::numeric_limits<double>::infinity() : error) : r.worst;
          const size_t column2 = segment * heads * padded + h * padded + i, mean = (h * blocks + block) * padded + i;
          expected[column2] += mine;
          magnitude[column2] += std::abs(mine);
          blockSums[mean] += mine;
          blockMagnitude[mean] += std::abs(mine);
        }
    }
  }
  for (size_t i = 0; i < expected.size(); ++i)
    if (!(std::abs(r.sums[i] - expected[i]) <= 2e-6 * magnitude[i])) r.worst = std::numeric_limits<double>::infinity();
  for (size_t h = 0, i = 0; h < heads; ++h)
    for (size_t b = 0; b < blocks; ++b)
      for (size_t j = 0; j < padded; ++j, ++i) {
        const double length = r.plan.length(static_cast<int32_t>(b));
        if (!(std::abs(r.means[i] - blockSums[i] / length) <= 2e-6 * blockMagnitude[i] / length)) r.worst = std::numeric_limits<double>::infinity();
      }
  return r;
}

std::vector<PrepareCase> prepareCases() {
  const Partition runs{PartitionKind::Temporal1D, 1.4, 1, 1, 1};
  return {
      {3, 32},                                     // whole pieces, fewer than threads
      {3, 40},                                     // padded by whole pieces
      {5, 128, {3, 5, 7}},                         // no padding
      {13, 128, {2, 3, 5}},                        // a middle size of thread block
      {25, 128, {2, 3, 4}},                        // the largest
      {41, 128, {1, 3, 4}},                        // rows wider than that
      {2, 20},                                     // heads of no whole pieces
      {1, 2, {3, 5, 7}},
      {3, 72, {5, 4, 8}, runs},                    // segments of 44 rows, and 20 at the end
      {2, 64, {9, 4, 8}, {PartitionKind::Temporal1D, 9, 1, 1, 1}},  // one block of several segments
      {3, 40, {3, 5, 7}, kCubes, false, true},
      {3, 40, {3, 5, 7}, kCubes, true, false},
      {3, 40, {3, 5, 7}, kCubes, false, false},
      {2, 64, {3, 5, 7}, kCubes, true, true, 8, 8},
      {2, 64, {3, 5, 7}, kCubes, true, true, 2, 0},
      {2, 64, {3, 5, 7}, kCubes, true, true, 0, 2},
  };
}

TEST(PrepareBf16, EqualsNormRotationAndMeansInDouble) {
  for (const PrepareCase& c : prepareCases()) {
    const Prepared r = prepared(c);
    EXPECT_LT(r.worst, 4e-6) << c;
    EXPECT_EQ(r.notFinite, 0u) << c;
  }
}

TEST(PrepareBf16, MeasuresTheLargestNormOfEachHead) {
  for (const PrepareCase& c : prepareCases()) {
    const bool wide = c.headDim % 8 == 0 && c.strideExtra % 8 == 0 && c.sourceOffset % 8 == 0 && c.heads <= 40;
    const Prepared r = prepared(c);
    for (size_t h = 0; h < r.norms.size(); ++h) {
      const float expected = wide ? r.expectedNorms[h] : std::numeric_limits<float>::infinity();
      EXPECT_TRUE(r.norms[h] == expected || std::abs(r.norms[h] / expected - 1) < 1e-5f) << c << ", head " << h << ": " << r.norms[h] << " instead of " << expected;
    }
  }
}

TEST(PrepareBf16, GivesTheSameBitsInAnyOrderOfWarps) {
  for (PrepareCase c : {PrepareCase{3, 40}, PrepareCase{13, 128, {2, 3, 5}}}) {
    const Prepared first = prepared(c);
    c.options.scheduleSeed = 99;
    EXPECT_TRUE(prepared(c) == first) << c;
  }
}

TEST(PrepareBf16, ReportsWhatIsNotFinite) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const PrepareCase& c : {PrepareCase{3, 40}, PrepareCase{3, 20}})
    for (const float value : {infinity, -infinity, std::numeric_limits<float>::quiet_NaN()}) EXPECT_NE(prepared(c, value).notFinite, 0u) << c << value;
  EXPECT_EQ(prepared({3, 40}, 3e38f).notFinite, 0u);
}

TEST(PrepareBf16, IsFoundWrongWithADroppedBarrierARaggedTailOrACopyNotWaitedFor) {
  const auto wrong = [](emulation::PlantedFault fault) {
    PrepareCase c{3, 40};
    c.options.fault = fault;
    try {
      return !(prepared(c).worst < 4e-6);
    } catch (const emulation::Violation&) {
      return true;
    }
  };
  EXPECT_FALSE(wrong({}));
  for (const int barrier : {0, 1, 2}) EXPECT_TRUE(wrong({emulation::PlantedFault::DropBarrier, barrier})) << barrier;
  EXPECT_TRUE(wrong({emulation::PlantedFault::RaggedTail}));
  EXPECT_TRUE(wrong({emulation::PlantedFault::SkipCopyWait}));
}

/// The largest error of bf16 gates, relative to the sum of the products' magnitudes; means of magnitudes that bf16 alone would lose.
double gateError(int blocks, int tokens, int heads, int padded, const emulation::Options& options = {}, std::vector<float>* bits = nullptr) {
  cuda::PlanView plan;
  plan.tokens = tokens;
  plan.blocks = blocks;
  const auto count = [](int a, int b, int c) { return static_cast<size_t>(a) * static_cast<size_t>(b) * static_cast<size_t>(c); };
  const Stored q(randomFloats(count(heads, tokens, padded), 1), DType::BF16);
  const std::vector<float> means = randomFloats(count(heads, blocks, padded), 2);
  DeviceBytes queries(q.bf16.size() * 2), blockMeans(means.size() * 4), out((count(heads, blocks, tokens) + 16) * 4);
  std::memcpy(queries.data(), q.bf16.data(), q.bf16.size() * 2);
  std::memcpy(blockMeans.data(), means.data(), means.size() * 4);
  cuda::gate<Bf16>({const_cast<emulation::Options*>(&options)}, plan, reinterpret_cast<const Bf16*>(queries.data()), reinterpret_cast<const float*>(blockMeans.data()), heads, padded,
                   reinterpret_cast<float*>(out.data()));
  const std::vector<float> gates = out.copy<float>(0, count(heads, blocks, tokens) + 16);
  double most = 0;
  for (int h = 0; h < heads; ++h)
    for (int c = 0; c < blocks; ++c)
      for (int s = 0; s < tokens; ++s) {
        double dot = 0, magnitude = 0;
        for (int i = 0; i < padded; ++i) {
          const double product = static_cast<double>(q.f32[count(h * tokens + s, padded, 1) + static_cast<size_t>(i)]) * means[count(h * blocks + c, padded, 1) + static_cast<size_t>(i)];
          dot += product;
          magnitude += std::abs(product);
        }
        const double error = std::abs(gates[count(h * blocks + c, tokens, 1) + static_cast<size_t>(s)] - dot) / magnitude;
        most = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(most, error);
      }
  for (size_t i = gates.size() - 16; i < gates.size(); ++i)
    if (!std::isnan(gates[i])) most = std::numeric_limits<double>::infinity();  // written past the end
  if (bits) *bits = gates;
  return most;
}

TEST(GateBf16, EqualsProductsInDouble) {
  for (const int padded : {32, 64, 128})
    for (const int blocks : {1, 7, 24}) EXPECT_LT(gateError(blocks, 67, 2, padded), 1e-6) << blocks << " blocks of " << padded;
  EXPECT_LT(gateError(72, 40, 1, 128), 1e-6);
  EXPECT_LT(gateError(7, 1100, 1, 32), 1e-6);   // more than two rounds of queries
  EXPECT_LT(gateError(131, 33, 3, 64), 1e-6);   // more blocks than shared memory holds
}

TEST(GateBf16, GivesTheSameBitsInAnyOrderOfWarps) {
  std::vector<float> first, second;
  gateError(24, 67, 1, 64, {}, &first);
  gateError(24, 67, 1, 64, {.fault = {}, .scheduleSeed = 99}, &second);
  EXPECT_EQ(std::memcmp(first.data(), second.data(), first.size() * 4), 0);
}

TEST(GateBf16, IsFoundWrongWithADroppedBarrierASwappedFragmentOrARaggedTail) {
  for (const emulation::PlantedFault fault : {emulation::PlantedFault{emulation::PlantedFault::DropBarrier}, emulation::PlantedFault{emulation::PlantedFault::SwapFragment},
                                              emulation::PlantedFault{emulation::PlantedFault::RaggedTail}}) {
    try {
      EXPECT_GT(gateError(7, 67, 1, 64, {.fault = fault}), 1e-6) << static_cast<int>(fault.kind);
    } catch (const emulation::Violation&) {
      continue;  // seen
    }
  }
}

}  // namespace
}  // namespace vmoba
