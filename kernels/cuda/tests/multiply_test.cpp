#include "kernels/cuda/multiply.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>

namespace vmoba {
namespace {

TEST(Multiply, EqualsTheProductOnARaggedCount) {
  constexpr int count = 1024 + 37;
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  std::vector<float> a(count), b(count), out(count + 8, std::numeric_limits<float>::quiet_NaN());
  for (float& x : a) x = normal(random);
  for (float& x : b) x = normal(random);
  cuda::multiply<float>({}, a.data(), b.data(), out.data(), count);
  for (int i = 0; i < count; ++i) ASSERT_EQ(out[i], a[i] * b[i]) << i;
  for (int i = count; i < count + 8; ++i) ASSERT_TRUE(std::isnan(out[i])) << "wrote past the end";
}

TEST(Multiply, IsWrongWhenTheRaggedEdgeIs) {
  constexpr int count = 37;
  std::vector<float> a(count, 2.0f), b(count, 3.0f), out(count, std::numeric_limits<float>::quiet_NaN());
  const emulation::Options faulty{.fault = {emulation::PlantedFault::RaggedTail}};
  cuda::multiply<float>({const_cast<emulation::Options*>(&faulty)}, a.data(), b.data(), out.data(), count);
  EXPECT_TRUE(std::isnan(out.back()));
}

}  // namespace
}  // namespace vmoba
