// Element functions of the CPU against double precision, over all floats.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "kernels/cpu/rows/rows.h"

namespace vmoba::cpu {
namespace {

struct Function {
  const char* name;
  void (*apply)(float*, int64_t);
  double (*exact)(double);
};

// By functions that lose nothing where the usual forms subtract numbers that are nearly equal.
constexpr Function kFunctions[] = {{"silu", silu, [](double x) { return x / (1 + std::exp(-x)); }},
                                   {"GELU by tanh", geluTanh, [](double x) { return x / (1 + std::exp(-2 * std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x))); }},
                                   {"GELU by erf", geluErf, [](double x) { return 0.5 * x * std::erfc(-x / std::sqrt(2.0)); }}};

TEST(ElementFunctions, AreRightForNumbersOfAnySize) {
  std::vector<float> numbers{0, std::numeric_limits<float>::max(), std::numeric_limits<float>::min(), 86.9f, 87, 87.1f, 87.9f, 88, 88.1f, 90, 104, 150};
  for (float x = 1e-30f; x < 3e38f; x *= 1.7f) numbers.push_back(x);
  for (size_t i = numbers.size(); i-- > 0;) numbers.push_back(-numbers[i]);
  for (const Function& function : kFunctions) {
    std::vector<float> out = numbers;
    function.apply(out.data(), static_cast<int64_t>(out.size()));
    for (size_t i = 0; i < out.size(); ++i) {
      const double x = static_cast<double>(numbers[i]), expected = function.exact(x);
      // Below -1 errors are of 1 + tanh or 1 + erf, whose own are those of numbers around one.
      EXPECT_NEAR(static_cast<double>(out[i]), expected, 4e-7 * std::max(std::abs(expected), x < -1 && x > -20 ? -x : 0) + 1e-36) << function.name << " of " << x;
      EXPECT_EQ(std::signbit(out[i]), std::signbit(numbers[i])) << function.name << " of " << x;
    }
  }
}

TEST(ElementFunctions, KeepNotANumberVisible) {
  for (const Function& function : kFunctions) {
    std::vector<float> out(33, 1.0f);
    out[5] = std::nanf("");
    function.apply(out.data(), 33);
    for (size_t i = 0; i < out.size(); ++i) EXPECT_EQ(std::isnan(out[i]), i == 5) << function.name;
  }
}

TEST(ElementFunctions, AreNothingAtMinusInfinity) {
  for (const Function& function : {kFunctions[0], kFunctions[1]}) {
    std::vector<float> out(33, -std::numeric_limits<float>::infinity());
    function.apply(out.data(), 33);
    for (const float value : out) EXPECT_EQ(value, 0) << function.name;
  }
}

}  // namespace
}  // namespace vmoba::cpu
