// Element functions, conversions, layout changes and dequantisation: exact where they only move or round values.
#include <cstring>

#include "kernels/cuda/dequantise.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/tests/tensors.h"

namespace vmoba::cuda {
namespace {

using namespace test;

TEST(Elements, ConvertExactlyAsTheHostDoes) {
  for (const size_t count : {size_t{1}, size_t{1027}}) {
    const Values<float> x(random(count, 1));
    auto narrow = Values<Bf16>::poisoned(count);
    mapElements(x.data(), DType::F32, narrow.data(), DType::BF16, Function::None, static_cast<int64_t>(count), {});
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(narrow.stored[i].bits, toBf16(x.stored[i]).bits);
    EXPECT_TRUE(narrow.tailUntouched());
    auto wide = Values<float>::poisoned(count);
    mapElements(narrow.data(), DType::BF16, wide.data(), DType::F32, Function::None, static_cast<int64_t>(count), {});
    for (size_t i = 0; i < count; ++i) ASSERT_EQ(wide[i], narrow[i]);
    EXPECT_TRUE(wide.tailUntouched());
  }
}

TEST(Elements, EveryHalfAndEveryF8Value) {
  std::vector<uint16_t> halves(65536);
  for (size_t i = 0; i < halves.size(); ++i) halves[i] = static_cast<uint16_t>(i);
  auto out = Values<float>::poisoned(halves.size());
  mapElements(halves.data(), DType::F16, out.data(), DType::F32, Function::None, 65536, {});
  for (size_t i = 0; i < halves.size(); ++i) {
    const float expected = toFloat(F16{static_cast<uint16_t>(i)});
    ASSERT_TRUE(std::isnan(expected) ? std::isnan(out[i]) : out[i] == static_cast<double>(expected)) << i;
  }
  std::vector<uint8_t> bytes(256);
  for (size_t i = 0; i < bytes.size(); ++i) bytes[i] = static_cast<uint8_t>(i);
  auto scaled = Values<float>::poisoned(256);
  dequantiseScaled(bytes.data(), DType::F8E4M3, 0.5f, scaled.data(), DType::F32, 256, {});
  for (size_t i = 0; i < 256; ++i) {
    const float expected = fp8E4M3ToFloat(static_cast<uint8_t>(i)) * 0.5f;
    ASSERT_TRUE(std::isnan(expected) ? std::isnan(scaled[i]) : scaled[i] == static_cast<double>(expected)) << i;
  }
  EXPECT_TRUE(scaled.tailUntouched());
}

TEST(Elements, FunctionsToF32Accuracy) {
  const Values<float> x(random(515, 1));
  for (const Function function : {Function::GeluTanh, Function::GeluErf, Function::Silu}) {
    auto out = Values<float>::poisoned(515);
    mapElements(x.data(), DType::F32, out.data(), DType::F32, function, 515, {});
    std::vector<double> expected;
    for (size_t i = 0; i < 515; ++i) {
      const double v = x.exact[i];
      expected.push_back(function == Function::Silu      ? v / (1 + std::exp(-v))
                         : function == Function::GeluErf ? 0.5 * v * (1 + std::erf(v * 0.7071067811865476))
                                                         : 0.5 * v * (1 + std::tanh(0.7978845608028654 * (v + 0.044715 * v * v * v))));
    }
    EXPECT_LT(relativeError(out, expected), 1e-6);
  }
}

TEST(Elements, FunctionsOfNumbersOfAnySize) {
  const Values<float> x({-150, -1e30f, -3.4e38f, 150, 1e30f, 3.4e38f});
  for (const Function function : {Function::GeluTanh, Function::GeluErf, Function::Silu}) {
    auto out = Values<float>::poisoned(6);
    mapElements(x.data(), DType::F32, out.data(), DType::F32, function, 6, {});
    for (size_t i = 0; i < 6; ++i) {
      EXPECT_EQ(out[i], std::max(x.exact[i], 0.0)) << x.exact[i];
      EXPECT_EQ(std::signbit(out[i]), i < 3) << x.exact[i];
    }
  }
}

TEST(Elements, AddRepeated) {
  const Values<float> a(random(6 * 7, 1)), b(random(7, 2));
  auto out = Values<float>::poisoned(6 * 7);
  addRepeated(a.data(), b.data(), out.data(), 6 * 7, 7, {});
  for (size_t i = 0; i < 42; ++i) ASSERT_EQ(out[i], static_cast<double>(a.stored[i] + b.stored[i % 7]));
}

TEST(Elements, PatchesThereAndBack) {
  const PatchShape shape{3, 4, 6, 8, 2, 2, 2};
  const size_t count = 3 * 4 * 6 * 8;
  const Values<float> latent(random(count, 1));
  auto rows = Values<float>::poisoned(count), back = Values<float>::poisoned(count);
  patchify(latent.data(), rows.data(), DType::F32, shape, {});
  // Row of token (t, h, w), channel slowest.
  size_t at = 0;
  std::vector<float> channelFastest(count);
  for (int t = 0; t < 2; ++t)
    for (int h = 0; h < 3; ++h)
      for (int w = 0; w < 4; ++w) {
        const size_t token = at;
        for (int c = 0; c < 3; ++c)
          for (int d = 0; d < 8; ++d, ++at) {
            const int dt = d / 4, dh = d / 2 % 2, dw = d % 2;
            const double expected = latent.exact[static_cast<size_t>(((c * 4 + t * 2 + dt) * 6 + h * 2 + dh) * 8 + w * 2 + dw)];
            ASSERT_EQ(rows[at], expected);
            channelFastest[token + static_cast<size_t>(d * 3 + c)] = static_cast<float>(expected);
          }
      }
  unpatchify(channelFastest.data(), back.data(), shape, {});
  for (size_t i = 0; i < count; ++i) ASSERT_EQ(back[i], latent.exact[i]);
  EXPECT_TRUE(rows.tailUntouched());
  EXPECT_TRUE(back.tailUntouched());
}

template <class T>
void checkResampling(int channels) {
  const int frames = 2, height = 3, width = 5;
  const auto pixels = static_cast<size_t>(frames * height * width);
  const Values<T> x(random(pixels * static_cast<size_t>(channels), 1));
  auto large = Values<T>::poisoned(x.count * 4);
  upsample2x(x.data(), large.data(), sizeof(T), frames * height, width, channels, {});
  for (int line = 0; line < frames * height * 2; ++line)
    for (int column = 0; column < width * 2; ++column)
      for (int c = 0; c < channels; ++c)
        ASSERT_EQ(large[static_cast<size_t>((line * 2 * width + column) * channels + c)], x.exact[static_cast<size_t>((line / 2 * width + column / 2) * channels + c)]);
  EXPECT_TRUE(large.tailUntouched());

  const int half = channels / 2;
  auto spread = Values<T>::poisoned(x.count);
  channelsToFrames(x.data(), spread.data(), sizeof(T), frames, height * width, half, {});
  for (int frame = 0; frame < 2 * frames; ++frame)
    for (int pixel = 0; pixel < height * width; ++pixel)
      for (int c = 0; c < half; ++c)
        ASSERT_EQ(spread[static_cast<size_t>((frame * height * width + pixel) * half + c)],
                  x.exact[static_cast<size_t>((frame / 2 * height * width + pixel) * channels + frame % 2 * half + c)]);
  EXPECT_TRUE(spread.tailUntouched());
}

TEST(Elements, UpsamplingAndChannelsToFrames) {
  for (const int channels : {2, 6, 16}) {
    checkResampling<float>(channels);
    checkResampling<Bf16>(channels);
  }
}

/// Random blocks whose two leading halves are small finite numbers.
std::vector<uint8_t> randomBlocks(Quantisation q, int64_t blocks) {
  std::mt19937 engine(9);
  std::vector<uint8_t> bytes(static_cast<size_t>(blocks * blockBytes(q)));
  for (uint8_t& byte : bytes) byte = static_cast<uint8_t>(engine());
  for (int64_t b = 0; b < blocks; ++b)
    for (int64_t half = 0; half < (q == Quantisation::Q4_K ? 2 : 1); ++half) {
      const uint16_t bits = toF16(0.01f + 0.003f * static_cast<float>(b) + 0.02f * static_cast<float>(half)).bits;
      std::memcpy(bytes.data() + b * blockBytes(q) + 2 * half, &bits, 2);
    }
  return bytes;
}

float halfAt(const uint8_t* at) { return toFloat(F16{static_cast<uint16_t>(at[0] | at[1] << 8)}); }

TEST(Dequantise, EightAndFourBitBlocks) {
  for (const Quantisation q : {Quantisation::Q8_0, Quantisation::Q4_0}) {
    const auto bytes = randomBlocks(q, 9);
    auto out = Values<float>::poisoned(9 * 32);
    dequantiseBlocks(bytes.data(), q, out.data(), DType::F32, 9 * 32, {});
    for (int64_t i = 0; i < 9 * 32; ++i) {
      const uint8_t* block = bytes.data() + i / 32 * blockBytes(q);
      const int64_t j = i % 32;
      const int value = q == Quantisation::Q8_0 ? static_cast<int8_t>(block[2 + j]) : (j < 16 ? block[2 + j] & 15 : block[2 + j - 16] >> 4) - 8;
      ASSERT_EQ(out[static_cast<size_t>(i)], static_cast<double>(halfAt(block) * static_cast<float>(value))) << i;
    }
    EXPECT_TRUE(out.tailUntouched());
  }
}

TEST(Dequantise, FourBitSuperblocks) {
  const auto bytes = randomBlocks(Quantisation::Q4_K, 3);
  auto out = Values<float>::poisoned(3 * 256);
  dequantiseBlocks(bytes.data(), Quantisation::Q4_K, out.data(), DType::F32, 3 * 256, {});
  for (size_t b = 0; b < 3; ++b) {
    const uint8_t* block = bytes.data() + b * 144;
    // Unpack the 12 bytes as eight 6-bit scales, then eight 6-bit minima.
    int scale[8], minimum[8];
    for (int g = 0; g < 4; ++g) {
      scale[g] = block[4 + g] % 64;
      minimum[g] = block[8 + g] % 64;
      scale[g + 4] = block[12 + g] % 16 + 16 * (block[4 + g] / 64);
      minimum[g + 4] = block[12 + g] / 16 + 16 * (block[8 + g] / 64);
    }
    for (int i = 0; i < 256; ++i) {
      const int byte = block[16 + i / 64 * 32 + i % 32], nibble = i / 32 % 2 == 0 ? byte % 16 : byte / 16;
      const double expected = static_cast<double>(halfAt(block)) * scale[i / 32] * nibble - static_cast<double>(halfAt(block + 2)) * minimum[i / 32];
      ASSERT_NEAR(out[b * 256 + static_cast<size_t>(i)], expected, 1e-5 * (1 + std::abs(expected))) << i;
    }
  }
  EXPECT_TRUE(out.tailUntouched());
}

TEST(Dequantise, ATypeWithoutAKernelIsATypedError) {
  float out = 0;
  try {
    dequantiseScaled(&out, DType::I64, 1, &out, DType::F32, 1, {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Unsupported);
    EXPECT_NE(std::string(error.what()).find("I64"), std::string::npos);
  }
}

}  // namespace
}  // namespace vmoba::cuda
