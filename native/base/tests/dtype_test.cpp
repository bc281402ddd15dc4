#include "native/base/dtype.h"

#include <gtest/gtest.h>

#include <cmath>

namespace vmoba {
namespace {

TEST(DTypes, EveryHalfPatternSurvivesARoundTrip) {
  for (uint32_t bits = 0; bits < 0x10000; ++bits) {
    const F16 half{static_cast<uint16_t>(bits)};
    const float value = toFloat(half);
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(toFloat(toF16(value))));
    } else {
      ASSERT_EQ(toF16(value).bits, bits);
    }
    const Bf16 brain{static_cast<uint16_t>(bits)};
    if (!std::isnan(toFloat(brain))) {
      ASSERT_EQ(toBf16(toFloat(brain)).bits, bits);
    }
  }
}

TEST(DTypes, RoundsToNearestEven) {
  EXPECT_EQ(toFloat(toF16(1.0f + 0x1p-11f)), 1.0f);
  EXPECT_EQ(toFloat(toF16(1.0f + 3 * 0x1p-11f)), 1.0f + 2 * 0x1p-10f);
  EXPECT_EQ(toFloat(toF16(65520.0f)), INFINITY);
  EXPECT_EQ(toFloat(toF16(0x1p-25f)), 0.0f);
  EXPECT_EQ(toFloat(toF16(0x1.8p-25f)), 0x1p-24f);
  EXPECT_EQ(toFloat(toBf16(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(toFloat(toBf16(1.0f + 3 * 0x1p-8f)), 1.0f + 2 * 0x1p-7f);
}

TEST(DTypes, Fp8E4M3KnownValues) {
  EXPECT_EQ(fp8E4M3ToFloat(0x7e), 448.0f);
  EXPECT_EQ(fp8E4M3ToFloat(0x38), 1.0f);
  EXPECT_EQ(fp8E4M3ToFloat(0x01), 0x1p-9f);
  EXPECT_EQ(fp8E4M3ToFloat(0xb8), -1.0f);
  EXPECT_TRUE(std::isnan(fp8E4M3ToFloat(0x7f)));
}

}  // namespace
}  // namespace vmoba
