// Weights that stay in fp8, without a GPU: dequantised for each product, and handed to a stand-in for the library that multiplies in double.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>

#include "native/backends/cuda/device_backend.h"
#include "native/backends/cuda/emulated_runtime.h"

namespace vmoba::cuda {
namespace {

/// The emulated device's memory is the heap, so the host may read what a library on the device would.
class DoubleProducts final : public CublasLt {
 public:
  explicit DoubleProducts(bool fp8) : fp8_(fp8) {}
  std::string name() const override { return "double products"; }
  bool multipliesFp8() const override { return fp8_; }
  bool linear(const BlasLinear& job, void*, void*) override {
    if (job.type != DType::F8E4M3 || job.function != Function::None) return false;
    ++products;
    const auto *x = static_cast<const uint8_t*>(job.x), *w = static_cast<const uint8_t*>(job.weight);
    const auto* bias = static_cast<const Bf16*>(job.bias);
    for (int64_t m = 0; m < job.m; ++m)
      for (int64_t n = 0; n < job.n; ++n) {
        double sum = 0;
        for (int64_t k = 0; k < job.k; ++k) sum += static_cast<double>(fp8E4M3ToFloat(x[m * job.k + k])) * static_cast<double>(fp8E4M3ToFloat(w[n * job.k + k]));
        const double value = sum * static_cast<double>(*job.xScale) * static_cast<double>(*job.weightScale) + (bias ? static_cast<double>(toFloat(bias[n])) : 0);
        static_cast<float*>(job.out)[m * job.outStride + n] = static_cast<float>(value);
      }
    return true;
  }
  static inline int products = 0;

 private:
  bool fp8_;
};

constexpr int64_t kInputs = 48, kRows = 37;

class Fp8 : public testing::Test {
 protected:
  void SetUp() override {
    std::mt19937 engine(4);
    std::normal_distribution<float> normal;
    for (float& value : x_) value = normal(engine);
    for (float& value : bias_) value = normal(engine);
    for (uint8_t& byte : bytes_) byte = static_cast<uint8_t>(engine() % 0x70 | (engine() & 0x80));  // finite
    DoubleProducts::products = 0;
  }
  void TearDown() override { unsetenv("VMOBA_FP8"); }

  /// Three stacked weights of different scales, as the fused projection of q, k and v.
  std::vector<float> product(std::unique_ptr<CublasLt> library, Activation activation = Activation::None) {
    DeviceBackend backend("emulated", makeEmulatedRuntime(), std::move(library), {Precision::BF16, 0, 0});
    std::vector<WeightView> views(6);
    std::vector<const WeightView*> weights, biases;
    for (size_t i = 0; i < 3; ++i) {
      const int64_t rows = static_cast<int64_t>(i + 1) * 16, first = static_cast<int64_t>(i * (i + 1) / 2) * 16;
      views[i] = {"w", "", DType::F8E4M3, {rows, kInputs}, reinterpret_cast<const std::byte*>(bytes_.data() + first * kInputs), static_cast<size_t>(rows * kInputs), scales_[i]};
      views[3 + i] = {"b", "", DType::F32, {rows}, reinterpret_cast<const std::byte*>(bias_.data() + first), static_cast<size_t>(rows) * 4, 1};
      weights.push_back(&views[i]);
      biases.push_back(&views[3 + i]);
    }
    const auto weight = backend.makeLinear(weights, biases);
    bytesHeld_ = weight->bytes;
    const Tensor wide = backend.makeVector(x_), narrow = backend.allocate(DType::BF16, {kRows, kInputs}), out = backend.allocate(DType::F32, {kRows, weight->outputs});
    backend.convert(wide, narrow);
    backend.linear(narrow, *weight, out, activation);
    std::vector<float> values(static_cast<size_t>(out.elements()));
    backend.download(out, values.data());
    return values;
  }

  const float scales_[3] = {0.01f, 0.002f, 0.03f};
  std::vector<float> x_ = std::vector<float>(kRows * kInputs), bias_ = std::vector<float>(96);
  std::vector<uint8_t> bytes_ = std::vector<uint8_t>(96 * kInputs);
  size_t bytesHeld_ = 0;
};

TEST_F(Fp8, DequantisingForEachProductGivesTheBitsOfDequantisingAtLoadInHalfTheMemory) {
  const std::vector<float> expected = product(nullptr);
  const size_t wide = bytesHeld_;
  setenv("VMOBA_FP8", "1", 1);
  EXPECT_EQ(product(nullptr), expected);
  EXPECT_EQ(wide - bytesHeld_, static_cast<size_t>(96 * kInputs));
  // Nor where the library is there and the device has no fp8, or has no such product.
  EXPECT_EQ(product(std::make_unique<DoubleProducts>(false)), expected);
  EXPECT_EQ(DoubleProducts::products, 0);
  const std::vector<float> activated = product(std::make_unique<DoubleProducts>(true), Activation::Silu);
  EXPECT_EQ(DoubleProducts::products, 0);
  EXPECT_EQ(activated, product(nullptr, Activation::Silu));
}

TEST_F(Fp8, TheLibraryGetsEveryPartWithItsScaleBiasAndPlace) {
  const std::vector<float> expected = product(nullptr);
  EXPECT_EQ(product(std::make_unique<DoubleProducts>(true)), expected) << "fp8 products are off unless asked for";
  setenv("VMOBA_FP8", "1", 1);
  const std::vector<float> actual = product(std::make_unique<DoubleProducts>(true));
  EXPECT_EQ(DoubleProducts::products, 3);
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(actual[i] - expected[i]), 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  EXPECT_LT(std::sqrt(difference / norm), 0.03);  // activations have three bits of mantissa
  EXPECT_GT(difference, 0);
}

}  // namespace
}  // namespace vmoba::cuda
