// Matrix products on the matrix unit, where this processor has one: the values of a sum in double, and bits that depend on the row and
// the weights alone.
#include "kernels/cpu/product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "native/base/large_memory.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {
namespace {

double activated(double x, Activation activation) {
  switch (activation) {
    case Activation::None: return x;
    case Activation::GeluTanh: return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case Activation::GeluErf: return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0)));
    case Activation::Silu: return x / (1 + std::exp(-x));
  }
  return 0;
}

struct Operands {
  int64_t rows, inputs, outputs;
  std::vector<Bf16> x, weights;
  std::vector<float> bias;
  LargeBuffer packed;

  Operands(int64_t r, int64_t i, int64_t o) : rows(r), inputs(i), outputs(o), packed(packedProductBytes(o, i)) {
    std::mt19937 random(5);
    std::normal_distribution<float> normal;
    const auto draw = [&](int64_t count, float scale) {
      std::vector<Bf16> drawn(static_cast<size_t>(count));
      for (Bf16& value : drawn) value = toBf16(scale * normal(random));
      return drawn;
    };
    x = draw(rows * inputs, 1);
    weights = draw(outputs * inputs, 2 / std::sqrt(static_cast<float>(inputs)));
    for (int64_t c = 0; c < outputs; ++c) bias.push_back(normal(random));
    packProductWeights(weights.data(), outputs, inputs, packed.bytes().data());
  }

  /// Rows [first, first + count); elements are out's, of type T.
  template <class T>
  std::vector<T> multiply(int64_t first, int64_t count, Activation activation, bool biased = true) const {
    std::vector<T> out(static_cast<size_t>(count * outputs));
    multiplyInto(out.data(), first, count, activation, biased, sizeof(T) == 2 ? DType::BF16 : DType::F32);
    return out;
  }
  void multiplyInto(void* out, int64_t first, int64_t count, Activation activation, bool biased, DType type) const {
    constexpr size_t kBehind = 1 << 16;
    const size_t bytes = productScratchBytes(outputs, inputs, threadCount());
    const LargeBuffer scratch(bytes + kBehind);
    const std::span<std::byte> behind = scratch.bytes().subspan(bytes);
    std::fill(behind.begin(), behind.end(), std::byte{0xab});
    multiplyMatrices({x.data() + first * inputs, count, inputs, outputs, packed.bytes().data(), biased ? bias.data() : nullptr, out, type, activation}, scratch.bytes().first(bytes));
    EXPECT_TRUE(std::all_of(behind.begin(), behind.end(), [](std::byte b) { return b == std::byte{0xab}; }));
  }
  double sum(int64_t row, int64_t column) const {
    double total = 0;
    for (int64_t i = 0; i < inputs; ++i)
      total += static_cast<double>(toFloat(x[static_cast<size_t>(row * inputs + i)])) * static_cast<double>(toFloat(weights[static_cast<size_t>(column * inputs + i)]));
    return total;
  }
};

std::vector<uint16_t> bitsOf(const std::vector<Bf16>& values) {
  std::vector<uint16_t> bits;
  for (const Bf16 value : values) bits.push_back(value.bits);
  return bits;
}

class ProductKernel : public testing::Test {
  void SetUp() override {
    if (!hasProduct(32)) GTEST_SKIP() << "this processor or build has no matrix unit";
  }
};

TEST_F(ProductKernel, MultipliesAndActivates) {
  struct Case {
    int64_t rows, inputs, outputs;
  };
  // Partial squares, spans and blocks of every kind.
  for (const Case c : {Case{1, 32, 1}, Case{33, 64, 31}, Case{5, 544, 80}, Case{300, 1600, 40}, Case{70, 3200, 33}})
    for (const Activation activation : {Activation::None, Activation::GeluTanh, Activation::GeluErf, Activation::Silu}) {
      SCOPED_TRACE(std::to_string(c.rows) + " x " + std::to_string(c.inputs) + " x " + std::to_string(c.outputs));
      const Operands operands(c.rows, c.inputs, c.outputs);
      const std::vector<float> exact = operands.multiply<float>(0, c.rows, activation);
      const std::vector<Bf16> rounded = operands.multiply<Bf16>(0, c.rows, activation, false);
      for (int64_t row = 0; row < c.rows; row += 7)
        for (int64_t column = 0; column < c.outputs; ++column) {
          const auto at = static_cast<size_t>(row * c.outputs + column);
          const double sum = operands.sum(row, column), biased = activated(sum + static_cast<double>(operands.bias[static_cast<size_t>(column)]), activation), plain = activated(sum, activation);
          ASSERT_NEAR(static_cast<double>(exact[at]), biased, 1e-5 * (1 + std::abs(biased)));
          ASSERT_NEAR(static_cast<double>(toFloat(rounded[at])), plain, 1e-5 + std::abs(plain) / 250);
        }
    }
}

TEST_F(ProductKernel, KeepsTheSumsOfManyOutputsApart) {
  const int threads = threadCount();
  setThreadCount(1);  // or the outputs would be shared out anyway
  const Operands operands(1000, 1568, 4128);
  const std::vector<float> out = operands.multiply<float>(0, 1000, Activation::None, false);
  for (int64_t row = 3; row < 1000; row += 166)
    for (int64_t column = 0; column < 4128; column += 43) ASSERT_NEAR(static_cast<double>(out[static_cast<size_t>(row * 4128 + column)]), operands.sum(row, column), 1e-4);
  setThreadCount(threads);
}

TEST_F(ProductKernel, GivesARowTheSameBitsInAnyCompanyAndOnAnyNumberOfThreads) {
  const Operands operands(290, 1600, 72);
  const std::vector<uint16_t> together = bitsOf(operands.multiply<Bf16>(0, 290, Activation::GeluTanh));
  for (const int64_t row : {0, 31, 257, 289}) {
    const std::vector<uint16_t> alone = bitsOf(operands.multiply<Bf16>(row, 1, Activation::GeluTanh));
    EXPECT_EQ(alone, std::vector(together.begin() + row * 72, together.begin() + (row + 1) * 72));
  }
  const int threads = threadCount();
  for (const int other : {1, 2, 3}) {
    setThreadCount(other);
    EXPECT_EQ(bitsOf(operands.multiply<Bf16>(0, 290, Activation::GeluTanh)), together);
  }
  setThreadCount(threads);
}

TEST_F(ProductKernel, WritesALargeResultPastTheCachesToTheSameBits) {
  const Operands operands(4160, 64, 512);  // 4 MB of bf16
  for (const DType type : {DType::BF16, DType::F32}) {
    const size_t rowBytes = 512 * elementBytes(type);
    const LargeBuffer large(4160 * rowBytes), small(4160 * rowBytes);
    operands.multiplyInto(large.bytes().data(), 0, 4160, Activation::None, true, type);
    for (int64_t row = 0; row < 4160; row += 64) operands.multiplyInto(small.bytes().data() + static_cast<size_t>(row) * rowBytes, row, 64, Activation::None, true, type);
    EXPECT_TRUE(std::equal(large.bytes().begin(), large.bytes().end(), small.bytes().begin()));
  }
}

TEST_F(ProductKernel, ActivatesSumsOfAnySize) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const std::vector<float> sums{-150, -1e30f, -3e38f, -kInfinity, std::nanf(""), 150, 1e30f, 3e38f, kInfinity};
  Operands operands(2, 32, 9);
  std::fill(operands.x.begin(), operands.x.end(), toBf16(0));
  operands.bias = sums;
  for (const Activation activation : {Activation::GeluTanh, Activation::Silu}) {
    const std::vector<float> out = operands.multiply<float>(1, 1, activation);
    for (size_t i = 0; i < 4; ++i) EXPECT_EQ(out[i], 0) << sums[i];
    EXPECT_TRUE(std::isnan(out[4]));
    for (size_t i = 5; i < 9; ++i) EXPECT_EQ(out[i], sums[i]);
  }
}

TEST_F(ProductKernel, DoesNothingForNoRowsOrNoOutputs) {
  for (const auto& [rows, outputs] : {std::pair<int64_t, int64_t>{0, 40}, {5, 0}}) EXPECT_TRUE(Operands(rows, 32, outputs).multiply<float>(0, rows, Activation::None).empty());
  EXPECT_FALSE(hasProduct(0));
  EXPECT_FALSE(hasProduct(48));
}

TEST_F(ProductKernel, KeepsNotANumberVisible) {
  for (const Activation activation : {Activation::None, Activation::GeluTanh, Activation::Silu}) {
    Operands operands(3, 64, 40);
    operands.x[64 + 5] = toBf16(std::nanf(""));
    const std::vector<float> out = operands.multiply<float>(0, 3, activation);
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i / 40 == 1);
  }
}

}  // namespace
}  // namespace vmoba::cpu
