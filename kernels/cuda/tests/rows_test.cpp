// Norms and gated adds against double precision, on widths that fill vectors and that do not.
#include "kernels/cuda/rows.h"
#include "kernels/cuda/tests/tensors.h"

namespace vmoba::cuda {
namespace {

using namespace test;

constexpr int kWidths[] = {64, 1028, 37};

template <class Out>
void checkLayerNorm(int width, bool plusOne) {
  const int rows = 5;
  const auto count = static_cast<size_t>(rows * width);
  const Values<float> x(random(count, 1)), gain(random(static_cast<size_t>(width), 2)), offset(random(static_cast<size_t>(width), 3));
  auto out = Values<Out>::poisoned(count);
  layerNorm({x.data(), gain.data(), offset.data(), plusOne, 1e-6f, out.data(), typeOf<Out>(), rows, width}, {});
  std::vector<double> expected;
  for (int r = 0; r < rows; ++r) {
    const double* row = x.exact.data() + r * width;
    double mean = 0, variance = 0;
    for (int i = 0; i < width; ++i) mean += row[i] / width;
    for (int i = 0; i < width; ++i) variance += (row[i] - mean) * (row[i] - mean) / width;
    for (int i = 0; i < width; ++i) {
      const auto at = static_cast<size_t>(i);
      expected.push_back((row[i] - mean) / std::sqrt(variance + 1e-6) * (gain.exact[at] + (plusOne ? 1 : 0)) + offset.exact[at]);
    }
  }
  EXPECT_LT(relativeError(out, expected), bound<Out>()) << width;
  EXPECT_TRUE(out.tailUntouched());
}

TEST(Rows, LayerNormWithAffineAndWithModulation) {
  for (const int width : kWidths)
    for (const bool plusOne : {false, true}) {
      checkLayerNorm<float>(width, plusOne);
      checkLayerNorm<Bf16>(width, plusOne);
    }
}

TEST(Rows, LayerNormWithoutAffine) {
  const Values<float> x(random(3 * 40, 1));
  auto out = Values<float>::poisoned(3 * 40);
  layerNorm({x.data(), nullptr, nullptr, false, 0, out.data(), DType::F32, 3, 40}, {});
  for (int r = 0; r < 3; ++r) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < 40; ++i) {
      const double value = out[static_cast<size_t>(r) * 40 + i];
      sum += value;
      squares += value * value;
    }
    EXPECT_NEAR(sum / 40, 0, 1e-6);
    EXPECT_NEAR(squares / 40, 1, 1e-5);
  }
}

template <class Out>
void checkRmsNorm(int width) {
  const auto count = static_cast<size_t>(4 * width);
  const Values<float> x(random(count, 1)), weight(random(static_cast<size_t>(width), 2));
  auto out = Values<Out>::poisoned(count);
  rmsNorm({x.data(), weight.data(), 1e-6f, out.data(), typeOf<Out>(), 4, width}, {});
  std::vector<double> expected;
  for (int r = 0; r < 4; ++r) {
    double square = 0;
    for (int i = 0; i < width; ++i) square += x.exact[static_cast<size_t>(r * width + i)] * x.exact[static_cast<size_t>(r * width + i)] / width;
    for (int i = 0; i < width; ++i) expected.push_back(x.exact[static_cast<size_t>(r * width + i)] / std::sqrt(square + 1e-6) * weight.exact[static_cast<size_t>(i)]);
  }
  EXPECT_LT(relativeError(out, expected), bound<Out>()) << width;
  EXPECT_TRUE(out.tailUntouched());
}

TEST(Rows, RmsNorm) {
  for (const int width : kWidths) {
    checkRmsNorm<float>(width);
    checkRmsNorm<Bf16>(width);
  }
}

template <class T>
void checkChannelNorm(int channels, bool silu) {
  const int pixels = 11;
  const auto count = static_cast<size_t>(pixels * channels);
  std::vector<float> values = random(count, 1);
  std::fill_n(values.begin(), channels, 0.0f);  // a black pixel must stay finite
  const Values<T> x(values);
  const Values<float> gamma(random(static_cast<size_t>(channels), 2));
  auto out = Values<T>::poisoned(count);
  channelNorm({x.data(), gamma.data(), silu, out.data(), typeOf<T>(), pixels, channels}, {});
  std::vector<double> expected;
  for (int p = 0; p < pixels; ++p) {
    double square = 0;
    for (int i = 0; i < channels; ++i) square += x.exact[static_cast<size_t>(p * channels + i)] * x.exact[static_cast<size_t>(p * channels + i)];
    for (int i = 0; i < channels; ++i) {
      const double value = x.exact[static_cast<size_t>(p * channels + i)] / std::max(std::sqrt(square), 1e-12) * std::sqrt(channels) * gamma.exact[static_cast<size_t>(i)];
      expected.push_back(silu ? value / (1 + std::exp(-value)) : value);
    }
  }
  EXPECT_LT(relativeError(out, expected), bound<T>()) << channels;
  EXPECT_TRUE(out.tailUntouched());
}

TEST(Rows, ChannelNorm) {
  for (const int channels : {6, 96, 132})
    for (const bool silu : {false, true}) {
      checkChannelNorm<float>(channels, silu);
      checkChannelNorm<Bf16>(channels, silu);
    }
}

template <class Y>
void checkAddGated(int width, bool gated) {
  const auto count = static_cast<size_t>(7 * width);
  Values<float> x(random(count, 1));
  const Values<Y> y(random(count, 2));
  const Values<float> gate(random(static_cast<size_t>(width), 3));
  std::vector<double> expected;
  for (size_t i = 0; i < count; ++i) expected.push_back(x.exact[i] + y.exact[i] * (gated ? gate.exact[i % static_cast<size_t>(width)] : 1.0));
  addGated({x.data(), y.data(), typeOf<Y>(), gated ? gate.data() : nullptr, 7, width}, {});
  EXPECT_LT(relativeError(x, expected), 1e-6);
  EXPECT_TRUE(x.tailUntouched());
}

TEST(Rows, AddGated) {
  for (const int width : kWidths)
    for (const bool gated : {false, true}) {
      checkAddGated<float>(width, gated);
      checkAddGated<Bf16>(width, gated);
    }
}

TEST(Rows, PlantedFaultsAreNoticed) {
  const Values<float> x(random(5 * 1028, 1)), weight(random(1028, 2));
  const auto normed = [&](tile::Stream stream) {
    auto out = Values<float>::poisoned(5 * 1028);
    rmsNorm({x.data(), weight.data(), 1e-6f, out.data(), DType::F32, 5, 1028}, stream);
    return out;
  };
  using Kind = emulation::PlantedFault::Kind;
  EXPECT_TRUE(normed({}).tailUntouched());
  Faulty tail(Kind::RaggedTail), barrier(Kind::DropBarrier);
  EXPECT_TRUE(std::isnan(normed(tail.stream())[1027]));
  EXPECT_THROW(normed(barrier.stream()), emulation::Violation);
}

}  // namespace
}  // namespace vmoba::cuda
