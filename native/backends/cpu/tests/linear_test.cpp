// Linear layers of the CPU backend: how often they can be stopped.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "native/backends/backend.h"

namespace vmoba {
namespace {

int beatsOf(Precision precision, int64_t rows, int64_t inputs, int64_t outputs) {
  const auto backend = makeBackend("cpu", {precision, 0, 0});
  const DType type = backend->activationType();
  const std::vector<std::byte> zeros(static_cast<size_t>(outputs * inputs) * elementBytes(type));
  WeightView view;
  view.dtype = type;
  view.shape = {outputs, inputs};
  view.data = zeros.data();
  view.bytes = zeros.size();
  const WeightView* const views[] = {&view};
  const auto weight = backend->makeLinear(views, {});
  const Tensor x = backend->allocate(type, {rows, inputs}), out = backend->allocate(type, {rows, outputs});
  backend->zero(x);
  int beats = 0;
  backend->setHeartbeat([&] { ++beats; });
  backend->linear(x, *weight, out, Activation::None);
  return beats;
}

TEST(LinearOnCpu, BeatsAfterEveryPieceThatTheLibraryMultiplies) {
  // 1,280 rows are the most whose products stay below 5e10 operations, and no kernel of ours takes 4,112 inputs.
  for (const Precision precision : describeDevice("cpu").precisions) {
    constexpr int kPieces = 2, kEnd = 1;
    EXPECT_EQ(beatsOf(precision, 1281, 4112, 4096), kPieces + kEnd) << (precision == Precision::BF16 ? "bf16" : "f32");
  }
}

TEST(LinearOnCpu, ActivatesSumsOfAnySize) {
  const std::vector<float> sums{-150, -1e30f, -3.3e38f, 150, 1e30f, 3.3e38f};
  for (const Precision precision : describeDevice("cpu").precisions)
    for (const int64_t inputs : {16, 32}) {  // by the library, and where there is one by the matrix unit
      const auto backend = makeBackend("cpu", {precision, 0, 0});
      const std::vector<float> zeros(6 * static_cast<size_t>(inputs));
      const auto view = [](const std::vector<float>& values, std::vector<int64_t> shape) {
        return WeightView{"", "", DType::F32, std::move(shape), reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(float), 1};
      };
      const WeightView weight = view(zeros, {6, inputs}), bias = view(sums, {6});
      const WeightView *const weights[] = {&weight}, *const biases[] = {&bias};
      const auto linear = backend->makeLinear(weights, biases);
      const Tensor x = backend->allocate(backend->activationType(), {1, inputs}), out = backend->allocate(DType::F32, {1, 6});
      backend->zero(x);
      for (const Activation activation : {Activation::GeluTanh, Activation::GeluErf, Activation::Silu}) {
        backend->linear(x, *linear, out, activation);
        std::vector<float> values(6);
        backend->download(out, values.data());
        for (size_t i = 0; i < 6; ++i) EXPECT_EQ(values[i], std::max(sums[i], 0.0f)) << sums[i] << ", activation " << static_cast<int>(activation) << ", " << inputs << " inputs, " << backend->instructionSet();
      }
    }
}

}  // namespace
}  // namespace vmoba
