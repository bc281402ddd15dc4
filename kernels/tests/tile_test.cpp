// Every tile kernel of this processor: a row's bits depend on the row and its keys alone, and its values are a softmax's.
#include "kernels/cpu/tile.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <random>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/packed.h"

namespace vmoba::cpu {
namespace {

/// Packed random queries, and blocks of keys and values of given lengths.
struct Packed {
  const TileKernel& kernel;
  PackedShape shape;
  int32_t rowCount;
  std::vector<int32_t> lengths;
  std::vector<float> q, k, v;  ///< [rows or keys, width], values the packed type can hold
  std::vector<std::byte> queries, keys, values, scratch;
  std::vector<int64_t> groupStart{0};

  Packed(const TileKernel& chosen, int32_t headDim, int32_t valueDim, int32_t rows, std::vector<int32_t> blocks, float scale)
      : kernel(chosen), shape{1, headDim, valueDim, kernel.lanes, kernel.step, kernel.element}, rowCount(rows), lengths(std::move(blocks)) {
    std::mt19937 random(11);
    std::normal_distribution<float> normal(0, scale);
    const auto draw = [&](int64_t count) {
      std::vector<float> drawn(static_cast<size_t>(count));
      for (float& x : drawn) x = kernel.element == DType::BF16 ? toFloat(toBf16(normal(random))) : normal(random);
      return drawn;
    };
    const int64_t keyCount = std::accumulate(lengths.begin(), lengths.end(), int64_t{0});
    q = draw(int64_t{rows} * headDim);
    k = draw(keyCount * headDim);
    v = draw(keyCount * valueDim);
    for (const int32_t length : lengths) groupStart.push_back(groupStart.back() + (length + shape.lanes - 1) / shape.lanes);
    queries.resize(static_cast<size_t>(shape.queryBytes(rows)));
    keys.resize(static_cast<size_t>(shape.keyBytes(groupStart.back())));
    values.resize(static_cast<size_t>(shape.valueBytes(groupStart.back())));
    for (int32_t r = 0; r < rows; ++r) packRow(shape.element, q.data() + int64_t{r} * headDim, headDim, shape.depth(), queries.data() + shape.queryBytes(r));
    std::vector<std::byte> packed(static_cast<size_t>(shape.queryBytes(shape.lanes)));
    int64_t first = 0;
    for (size_t b = 0; b < lengths.size(); first += lengths[b++])
      for (int32_t at = 0; at < lengths[b]; at += shape.lanes) {
        const int32_t count = std::min(shape.lanes, lengths[b] - at);
        const int64_t group = groupStart[b] + at / shape.lanes;
        for (int32_t j = 0; j < count; ++j) packRow(shape.element, k.data() + (first + at + j) * headDim, headDim, shape.depth(), packed.data() + shape.queryBytes(j));
        packKeyGroup(packed.data(), shape.depth(), count, shape.lanes, shape.depth() / shape.step, shape.step, keys.data() + shape.keyBytes(group));
        packValueGroup(shape.element, v.data() + (first + at) * valueDim, valueDim, count, shape.lanes, valueDim, shape.valueWidth(), values.data() + shape.valueBytes(group));
      }
  }

  TileVisit visitTo(size_t block, std::span<const uint16_t> rows) const {
    return {rows.data(), static_cast<int32_t>(rows.size()), keys.data() + shape.keyBytes(groupStart[block]), values.data() + shape.valueBytes(groupStart[block]), lengths[block]};
  }

  /// [rows, valueWidth] after all blocks, each visited by the groups of rows `cut` gives; `together`: all visits of rows in one call.
  std::vector<float> attend(const std::vector<std::vector<uint16_t>>& cut, bool together) {
    Arena sizes;
    TileBuffers(sizes, kernel, shape, rowCount);
    scratch.assign(sizes.bytes(), std::byte{0xff});
    Arena arena(scratch);
    const TileBuffers buffers(arena, kernel, shape, rowCount);
    buffers.reset(shape, rowCount);
    std::vector<TileVisit> visits;
    for (size_t b = 0; b < lengths.size(); ++b)
      for (const auto& rows : cut) visits.push_back(visitTo(b, rows));
    const TileJob job = buffers.job(shape, queries.data());
    if (together) kernel.visit(job, visits);
    else
      for (const TileVisit& visit : visits) kernel.visit(job, {&visit, 1});
    EXPECT_TRUE(kernel.finish(buffers.state, rowCount, shape.valueWidth()));
    return {buffers.state.sums, buffers.state.sums + int64_t{rowCount} * shape.valueWidth()};
  }

  double softmaxOf(int32_t row, int32_t channel) const {
    const int64_t d = shape.headDim, keyCount = static_cast<int64_t>(k.size()) / d;
    std::vector<double> logit(static_cast<size_t>(keyCount));
    double most = -INFINITY, total = 0, sum = 0;
    for (int64_t j = 0; j < keyCount; ++j) {
      for (int64_t i = 0; i < d; ++i) logit[static_cast<size_t>(j)] += static_cast<double>(q[static_cast<size_t>(row * d + i)]) * static_cast<double>(k[static_cast<size_t>(j * d + i)]);
      most = std::max(most, logit[static_cast<size_t>(j)] /= std::sqrt(static_cast<double>(d)));
    }
    for (int64_t j = 0; j < keyCount; ++j) {
      const double weight = std::exp(logit[static_cast<size_t>(j)] - most);
      total += weight;
      sum += weight * static_cast<double>(v[static_cast<size_t>(j * shape.valueDim + channel)]);
    }
    return sum / total;
  }
};

std::vector<uint16_t> sequence(int32_t from, int32_t to, int32_t step = 1) {
  std::vector<uint16_t> rows;
  for (int32_t r = from; r < to; r += step) rows.push_back(static_cast<uint16_t>(r));
  return rows;
}

struct Shape {
  int32_t headDim, valueDim, rows;
  std::vector<int32_t> blocks;
};

TEST(TileKernel, GivesARowTheSameBitsInAnyCompanyAndTheSoftmaxOfItsKeys) {
  const Shape shapes[] = {{128, 128, 70, {455, 1, 513, 16, 1100}}, {64, 64, 33, {17, 31, 47}}, {32, 48, 49, {129, 640}}, {96, 99, 40, {300, 33}}, {40, 40, 20, {77, 64}}, {32, 16, 1, {5}}};
  for (const DType dtype : {DType::BF16, DType::F32})
    for (const TileKernel* kernel : tileKernels(dtype))
      for (const Shape& shape : shapes)
        for (const float scale : {0.5f, 3.0f}) {  // the second forces maxima to be raised late
          SCOPED_TRACE(testing::Message() << kernel->name << " depth " << shape.headDim << " width " << shape.valueDim << " rows " << shape.rows << " scale " << scale);
          Packed problem(*kernel, shape.headDim, shape.valueDim, shape.rows, shape.blocks, scale);
          const auto all = problem.attend({sequence(0, shape.rows)}, true);
          const int32_t rows = shape.rows;
          EXPECT_EQ(all, problem.attend({sequence(0, rows)}, false));
          if (rows > 1) {
            const auto even = sequence(0, rows, 2), odd = sequence(1, rows, 2);
            EXPECT_EQ(all, problem.attend({even, odd}, true));
            EXPECT_EQ(all, problem.attend({odd, even}, false));
            EXPECT_EQ(all, problem.attend({sequence(rows / 3, rows), sequence(0, rows / 3)}, true));
          }
          double square = 0, error = 0;
          for (int32_t r = 0; r < rows; r += 7)
            for (int32_t c = 0; c < shape.valueDim; c += 3) {
              const double expected = problem.softmaxOf(r, c), got = static_cast<double>(all[static_cast<size_t>(r * problem.shape.valueWidth() + c)]);
              square += expected * expected;
              error += (got - expected) * (got - expected);
            }
          EXPECT_LT(std::sqrt(error / square), kernel->element == DType::BF16 ? 6e-3 : 4e-6);
        }
}

TEST(TileKernel, GatesToTheLastBitsOfF32AndWritesNothingElse) {
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  for (const DType dtype : {DType::BF16, DType::F32})
    for (const TileKernel* kernel : tileKernels(dtype))
      for (const int32_t depth : {32, 40, 128})
        for (const int32_t blocks : {1, 7, 24, 33, 72})
          for (const int32_t rows : {1, 16, 17, 50}) {
            SCOPED_TRACE(testing::Message() << kernel->name << " depth " << depth << " blocks " << blocks << " rows " << rows);
            const int32_t whole = (rows + kernel->lanes - 1) / kernel->lanes * kernel->lanes, stride = whole + kernel->lanes;
            std::vector<float> q(static_cast<size_t>(rows * depth)), means(static_cast<size_t>(blocks * depth)), gate(static_cast<size_t>(blocks * stride), 1234.5f);
            for (float& x : q) x = kernel->element == DType::BF16 ? toFloat(toBf16(normal(random))) : normal(random);
            for (float& x : means) x = normal(random) * 0.1f;
            std::vector<std::byte> packed(q.size() * elementBytes(kernel->element));
            for (int32_t r = 0; r < rows; ++r)
              packRow(kernel->element, q.data() + r * depth, depth, depth, packed.data() + static_cast<size_t>(r * depth) * elementBytes(kernel->element));
            std::vector<std::byte> scratch(static_cast<size_t>(kernel->gateScratchBytes(depth, blocks)) + 128, std::byte{0xff});
            Arena arena(scratch);
            kernel->gate({packed.data(), rows, means.data(), blocks, depth, gate.data(), stride, arena.take<std::byte>(kernel->gateScratchBytes(depth, blocks))});
            for (int32_t c = 0; c < blocks; ++c)
              for (int32_t j = 0; j < stride; ++j) {
                const float got = gate[static_cast<size_t>(c * stride + j)];
                if (j >= rows) {
                  ASSERT_TRUE(j < whole || got == 1234.5f) << c << " " << j;
                  continue;
                }
                double expected = 0, size = 0;
                for (int32_t i = 0; i < depth; ++i) {
                  const double product = static_cast<double>(means[static_cast<size_t>(c * depth + i)]) * static_cast<double>(q[static_cast<size_t>(j * depth + i)]);
                  expected += product;
                  size += std::abs(product);
                }
                ASSERT_NEAR(static_cast<double>(got), expected, size * 5e-7) << c << " " << j;
              }
          }
}

}  // namespace
}  // namespace vmoba::cpu
