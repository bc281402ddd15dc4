// Activations to fp8 against a search for the nearest value.
#include "kernels/cuda/quantise.h"

#include "kernels/cuda/tests/tensors.h"

namespace vmoba::cuda {
namespace {

using namespace test;

/// The nearest of all finite E4M3 values, of two the one with the even bits.
uint8_t nearest(double value) {
  uint8_t best = 0;
  double least = std::numeric_limits<double>::infinity();
  for (uint8_t magnitude = 0; magnitude < 0x7f; ++magnitude) {
    const double distance = std::abs(static_cast<double>(fp8E4M3ToFloat(magnitude)) - std::abs(value));
    if (distance < least || (distance == least && magnitude % 2 == 0)) {
      best = magnitude;
      least = distance;
    }
  }
  return static_cast<uint8_t>(best | (std::signbit(value) ? 0x80 : 0));
}

struct Quantised {
  std::vector<uint8_t> bytes;
  float scale[2] = {0, 0};
};
Quantised quantise(const Values<Bf16>& x) {
  Quantised q;
  q.bytes.assign(x.count + 16, 0xa5);
  quantiseE4m3(x.data(), q.bytes.data(), q.scale, static_cast<int64_t>(x.count), {});
  return q;
}

TEST(Quantise, RoundsToTheNearestAndScalesByTheLargest) {
  for (const size_t count : {size_t{1}, size_t{1023}, size_t{4096}}) {
    std::vector<float> values = random(count, 3);
    for (size_t i = 0; i < count; i += 5) values[i] *= 1e-3f;  // subnormal after scaling
    values[count / 2] = -37.5f;                                // the largest
    const Values<Bf16> x(values);
    const Quantised q = quantise(x);
    EXPECT_EQ(q.scale[0], 37.5f / 448.0f);
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(q.bytes[i], nearest(static_cast<double>(static_cast<float>(x.exact[i]) / q.scale[0]))) << i << ": " << x.exact[i];
    for (size_t i = count; i < q.bytes.size(); ++i) ASSERT_EQ(q.bytes[i], 0xa5);
  }
}

TEST(Quantise, EveryValueAndEveryMiddleBetweenTwo) {
  std::vector<float> values;
  for (uint8_t bits = 0; bits < 0x7f; ++bits)
    for (const float sign : {1.0f, -1.0f}) {
      values.push_back(sign * fp8E4M3ToFloat(bits));
      if (bits < 0x7e) values.push_back(sign * (fp8E4M3ToFloat(bits) + fp8E4M3ToFloat(static_cast<uint8_t>(bits + 1))) / 2);
    }
  const Values<Bf16> x(values);  // all of them are bf16
  const Quantised q = quantise(x);
  EXPECT_EQ(q.scale[0], 1.0f);
  for (size_t i = 0; i < values.size(); ++i) ASSERT_EQ(q.bytes[i], nearest(static_cast<double>(values[i]))) << values[i];
}

TEST(Quantise, ZerosStayZerosAndNanStaysNan) {
  EXPECT_EQ(quantise(Values<Bf16>(std::vector<float>(9))).bytes[8], 0);
  std::vector<float> values = random(600, 1);
  values[599] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(quantise(Values<Bf16>(values)).bytes[599] & 0x7f, 0x7f);
}

}  // namespace
}  // namespace vmoba::cuda
