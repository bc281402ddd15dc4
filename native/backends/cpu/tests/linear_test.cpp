// Linear layers of the CPU backend: how often they can be stopped.
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace vmoba
