// Linear layers and convolutions against double precision, on ragged shapes.
#include "kernels/cuda/conv3d.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/tests/tensors.h"

namespace vmoba::cuda {
namespace {

using namespace test;

double applied(Function function, double x) {
  switch (function) {
    case Function::GeluTanh: return 0.5 * x * (1 + std::tanh(0.7978845608028654 * (x + 0.044715 * x * x * x)));
    case Function::GeluErf: return 0.5 * x * (1 + std::erf(x * 0.7071067811865476));
    case Function::Silu: return x / (1 + std::exp(-x));
    case Function::None: break;
  }
  return x;
}

template <class T, class Out>
double linearError(int m, int n, int k, Function function, bool biased, tile::Stream stream = {}) {
  const Values<T> x(random(static_cast<size_t>(m * k), 1)), w(random(static_cast<size_t>(n * k), 2));
  const Values<float> bias(random(static_cast<size_t>(n), 3));
  auto out = Values<Out>::poisoned(static_cast<size_t>(m * n));
  LinearJob job{typeOf<T>(), typeOf<Out>(), x.data(), w.data(), biased ? bias.data() : nullptr, out.data(), m, n, k, function};
  linear(job, stream);
  EXPECT_TRUE(out.tailUntouched());
  std::vector<double> expected(static_cast<size_t>(m * n));
  for (int i = 0; i < m; ++i)
    for (int j = 0; j < n; ++j) {
      double sum = biased ? bias.exact[static_cast<size_t>(j)] : 0;
      for (int l = 0; l < k; ++l) sum += x.exact[static_cast<size_t>(i * k + l)] * w.exact[static_cast<size_t>(j * k + l)];
      expected[static_cast<size_t>(i * n + j)] = applied(function, sum);
    }
  return relativeError(out, expected);
}

TEST(Linear, StrictF32OnRaggedShapes) {
  for (const auto [m, n, k] : {std::array{65, 70, 37}, std::array{1, 3, 5}, std::array{128, 64, 48}})
    for (const Function function : {Function::None, Function::GeluTanh}) EXPECT_LT((linearError<float, float>(m, n, k, function, true)), 2e-6) << m << "×" << n << "×" << k;
}

TEST(Linear, Bf16OnRaggedShapes) {
  // k in whole copies and not, over one and several stages; n odd, even and a multiple of four.
  for (const auto [m, n, k] : {std::array{130, 132, 200}, std::array{70, 33, 40}, std::array{129, 6, 37}, std::array{3, 130, 8}}) {
    EXPECT_LT((linearError<Bf16, float>(m, n, k, Function::None, true)), 1e-5) << m << "×" << n << "×" << k;
    EXPECT_LT((linearError<Bf16, Bf16>(m, n, k, Function::None, false)), 4e-3) << m << "×" << n << "×" << k;
  }
}

TEST(Linear, EveryElementFunction) {
  for (const Function function : {Function::GeluTanh, Function::GeluErf, Function::Silu}) {
    EXPECT_LT((linearError<Bf16, Bf16>(20, 24, 32, function, true)), 4e-3);
    EXPECT_LT((linearError<float, float>(20, 24, 32, function, true)), 4e-6);
  }
}

TEST(Linear, PlantedFaultsAreNoticed) {
  const auto throwsOrIsWrong = [](Faulty fault) {
    try {
      return !(linearError<Bf16, float>(130, 132, 200, Function::None, true, fault.stream()) < 1e-2);
    } catch (const emulation::Violation&) {
      return true;
    }
  };
  using Kind = emulation::PlantedFault::Kind;
  EXPECT_FALSE(throwsOrIsWrong(Faulty(Kind::None)));
  EXPECT_TRUE(throwsOrIsWrong(Faulty(Kind::SwapFragment)));
  EXPECT_TRUE(throwsOrIsWrong(Faulty(Kind::SkipCopyWait)));
  EXPECT_TRUE(throwsOrIsWrong(Faulty(Kind::RaggedTail)));
  EXPECT_TRUE(throwsOrIsWrong(Faulty(Kind::DropBarrier, 0)));
  EXPECT_TRUE(throwsOrIsWrong(Faulty(Kind::DropBarrier, 2)));
}

struct ConvCase {
  int frames, height, width, channels, outChannels;
  std::array<int, 3> kernel, stride;
  std::array<int, 2> before, after;
  bool residual;
};

template <class T>
double convError(const ConvCase& c) {
  const int taps = c.kernel[0] * c.kernel[1] * c.kernel[2];
  const int outT = (c.frames - c.kernel[0]) / c.stride[0] + 1;
  const int outH = (c.height + c.before[0] + c.after[0] - c.kernel[1]) / c.stride[1] + 1, outW = (c.width + c.before[1] + c.after[1] - c.kernel[2]) / c.stride[2] + 1;
  const auto size = [](int64_t n) { return static_cast<size_t>(n); };
  const Values<T> x(random(size(c.frames * c.height * c.width * c.channels), 1));
  const std::vector<float> stored = random(size(c.outChannels * c.channels * taps), 2);  // [out, in, taps]
  const Values<float> bias(random(size(c.outChannels), 3));
  const Values<T> residual(random(size(outT * outH * outW * c.outChannels), 4));
  auto arranged = Values<T>::poisoned(stored.size());
  arrangeConvWeight(stored.data(), DType::F32, arranged.data(), typeOf<T>(), c.outChannels, c.channels, taps, {});
  auto out = Values<T>::poisoned(residual.count);
  ConvJob job{typeOf<T>(), x.data(), arranged.data(), bias.data(), c.residual ? residual.data() : nullptr, out.data(),
              {c.height, c.width, c.channels, outT, outH, outW, c.kernel[0], c.kernel[1], c.kernel[2], c.stride[0], c.stride[1], c.stride[2], c.before[0], c.before[1]},
              c.outChannels};
  conv3d(job, {});
  EXPECT_TRUE(out.tailUntouched());
  std::vector<double> expected;
  for (int t = 0; t < outT; ++t)
    for (int h = 0; h < outH; ++h)
      for (int w = 0; w < outW; ++w)
        for (int o = 0; o < c.outChannels; ++o) {
          double sum = bias.exact[size(o)] + (c.residual ? residual.exact[expected.size()] : 0);
          for (int kt = 0; kt < c.kernel[0]; ++kt)
            for (int kh = 0; kh < c.kernel[1]; ++kh)
              for (int kw = 0; kw < c.kernel[2]; ++kw) {
                const int row = h * c.stride[1] + kh - c.before[0], column = w * c.stride[2] + kw - c.before[1], tap = (kt * c.kernel[1] + kh) * c.kernel[2] + kw;
                if (row < 0 || row >= c.height || column < 0 || column >= c.width) continue;
                for (int i = 0; i < c.channels; ++i)
                  sum += x.exact[size((((t * c.stride[0] + kt) * c.height + row) * c.width + column) * c.channels + i)] *
                         Values<T>({stored[size((o * c.channels + i) * taps + tap)]}).exact[0];
              }
          expected.push_back(sum);
        }
  return relativeError(out, expected);
}

const ConvCase kConvCases[] = {
    {3, 5, 7, 16, 12, {3, 3, 3}, {1, 1, 1}, {1, 1}, {1, 1}, true},    // causal block, whole copies of channels
    {4, 6, 5, 6, 10, {3, 3, 3}, {1, 1, 1}, {1, 1}, {1, 1}, false},    // channels that fill no copy
    {2, 8, 6, 8, 8, {1, 3, 3}, {1, 2, 2}, {0, 0}, {1, 1}, false},     // spatial downsampling
    {5, 3, 4, 8, 5, {3, 1, 1}, {2, 1, 1}, {0, 0}, {0, 0}, false},     // temporal downsampling, odd width
    {2, 4, 4, 24, 72, {1, 1, 1}, {1, 1, 1}, {0, 0}, {0, 0}, true},    // pointwise
};

TEST(Conv3d, F32AsDefined) {
  for (const ConvCase& c : kConvCases) EXPECT_LT(convError<float>(c), 2e-6) << c.channels << " -> " << c.outChannels;
}
TEST(Conv3d, Bf16AsDefined) {
  for (const ConvCase& c : kConvCases) EXPECT_LT(convError<Bf16>(c), 4e-3) << c.channels << " -> " << c.outChannels;
}

}  // namespace
}  // namespace vmoba::cuda
