// Activations of rows against double precision.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/cpu/rows/rows.h"

namespace vmoba {
namespace {

std::vector<float> manyNumbers() {
  std::vector<float> numbers{0.0f, -0.0f};
  for (const float magnitude : {1e-30f, 1e-3f, 0.5f, 1.0f, 3.0f, 5.0f, 15.9f, 16.1f, 40.0f, 87.5f, 88.5f, 120.0f, 1e6f, 1e13f, 1e30f, 3.4e38f})
    for (const float sign : {1.0f, -1.0f}) numbers.push_back(sign * magnitude);
  return numbers;
}

TEST(Rows, ActivationsOfNumbersOfAnySize) {
  const std::vector<float> numbers = manyNumbers();
  const auto near = [&](const std::vector<float>& actual, auto exact, const char* what) {
    for (size_t i = 0; i < numbers.size(); ++i) {
      const double expected = exact(static_cast<double>(numbers[i]));
      EXPECT_NEAR(actual[i], expected, 2e-6 * std::abs(expected) + 1e-7) << what << " of " << numbers[i];
    }
  };
  std::vector<float> x = numbers;
  cpu::silu(x.data(), static_cast<int64_t>(x.size()));
  near(x, [](double v) { return v / (1 + std::exp(-v)); }, "silu");
  x = numbers;
  cpu::geluTanh(x.data(), static_cast<int64_t>(x.size()));
  near(x, [](double v) { return v / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) * (v + 0.044715 * v * v * v))); }, "gelu, tanh");
  x = numbers;
  cpu::geluErf(x.data(), static_cast<int64_t>(x.size()));
  near(x, [](double v) { return v * std::erfc(-v / std::sqrt(2.0)) / 2; }, "gelu");
}

}  // namespace
}  // namespace vmoba
