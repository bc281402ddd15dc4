// Matrix products and convolutions without any library, float only: what the plain C++ program uses on a machine that has
// nothing but a compiler. Weights are stored transposed, [inputs, outputs], so the inner loop runs over outputs and
// vectorises; slower than oneDNN, same results within rounding.
#include <algorithm>
#include <cstring>
#include <vector>

#include "kernels/cpu/rows/rows.h"
#include "native/backends/cpu/cpu_backend.h"
#include "native/base/error.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {
namespace {

struct PortableLinear final : LinearWeight {
  std::vector<float> transposed, bias;  ///< [inputs, outputs]
};
struct PortableConv final : ConvWeight {
  std::vector<float> taps, bias;  ///< [kt, kh, kw, inputs, outputs]
};

constexpr int64_t kRowTile = 4, kColumnTile = 64;

void activateRow(float* row, int64_t count, Activation activation) {
  if (activation == Activation::GeluTanh) geluTanh(row, count);
  if (activation == Activation::GeluErf) geluErf(row, count);
  if (activation == Activation::Silu) silu(row, count);
}

// sum[r][0..columns) += x[r]·w for kRowTile rows and up to kColumnTile columns.
void accumulateTile(const float* const* x, int64_t rows, const float* w, int64_t inputs, int64_t outputs, int64_t columns, float (*sum)[kColumnTile]) {
  for (int64_t i = 0; i < inputs; ++i) {
    const float* line = w + i * outputs;
    for (int64_t r = 0; r < rows; ++r) {
      const float value = x[r][i];
      for (int64_t c = 0; c < columns; ++c) sum[r][c] += value * line[c];
    }
  }
}

class PortableProducts final : public ProductLibrary {
 public:
  std::shared_ptr<LinearWeight> packLinear(const std::byte* rows, DType, int64_t outputs, int64_t inputs, std::span<const float> bias) override {
    auto weight = std::make_shared<PortableLinear>();
    weight->inputs = inputs;
    weight->outputs = outputs;
    weight->transposed.resize(static_cast<size_t>(inputs * outputs));
    std::vector<float> row(static_cast<size_t>(inputs));
    for (int64_t o = 0; o < outputs; ++o) {
      std::memcpy(row.data(), rows + static_cast<size_t>(o * inputs) * sizeof(float), row.size() * sizeof(float));
      for (int64_t i = 0; i < inputs; ++i) weight->transposed[static_cast<size_t>(i * outputs + o)] = row[static_cast<size_t>(i)];
    }
    weight->bias.assign(bias.begin(), bias.end());
    weight->bytes = weight->transposed.size() * sizeof(float);
    return weight;
  }

  void linear(const std::byte* x, int64_t rows, const LinearWeight& generic, std::byte* out, DType, Activation activation, std::span<std::byte>) override {
    const auto& weight = static_cast<const PortableLinear&>(generic);
    const auto* in = reinterpret_cast<const float*>(x);
    auto* result = reinterpret_cast<float*>(out);
    parallelForRanges((rows + kRowTile - 1) / kRowTile, 1, [&](int64_t begin, int64_t end) {
      for (int64_t tile = begin; tile < end; ++tile) {
        const int64_t first = tile * kRowTile, count = std::min(kRowTile, rows - first);
        const float* lines[kRowTile];
        for (int64_t r = 0; r < count; ++r) lines[r] = in + (first + r) * weight.inputs;
        for (int64_t c0 = 0; c0 < weight.outputs; c0 += kColumnTile) {
          const int64_t columns = std::min(kColumnTile, weight.outputs - c0);
          float sum[kRowTile][kColumnTile] = {};
          accumulateTile(lines, count, weight.transposed.data() + c0, weight.inputs, weight.outputs, columns, sum);
          for (int64_t r = 0; r < count; ++r) {
            float* to = result + (first + r) * weight.outputs + c0;
            for (int64_t c = 0; c < columns; ++c) to[c] = sum[r][c] + (weight.bias.empty() ? 0.0f : weight.bias[static_cast<size_t>(c0 + c)]);
            activateRow(to, columns, activation);
          }
        }
      }
    });
  }

  std::shared_ptr<ConvWeight> packConv(const std::byte* values, DType, int64_t outputs, int64_t inputs, std::array<int64_t, 3> kernel,
                                       std::span<const float> bias) override {
    auto weight = std::make_shared<PortableConv>();
    weight->inputs = inputs;
    weight->outputs = outputs;
    weight->kernel = kernel;
    const int64_t taps = kernel[0] * kernel[1] * kernel[2];
    weight->taps.resize(static_cast<size_t>(taps * inputs * outputs));
    for (int64_t o = 0; o < outputs; ++o)
      for (int64_t i = 0; i < inputs; ++i)
        for (int64_t tap = 0; tap < taps; ++tap)
          std::memcpy(&weight->taps[static_cast<size_t>((tap * inputs + i) * outputs + o)],
                      values + static_cast<size_t>((o * inputs + i) * taps + tap) * sizeof(float), sizeof(float));
    weight->bias.assign(bias.begin(), bias.end());
    weight->bytes = weight->taps.size() * sizeof(float);
    return weight;
  }

  void conv(const std::byte* x, const Shape& in, const ConvWeight& generic, const Backend::Conv& conv, std::byte* out, const Shape& o) override {
    const auto& weight = static_cast<const PortableConv&>(generic);
    const auto* source = reinterpret_cast<const float*>(x);
    auto* result = reinterpret_cast<float*>(out);
    parallelForRanges(o[0] * o[1], 1, [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        const int64_t t = line / o[1], h = line % o[1];
        for (int64_t w = 0; w < o[2]; ++w) pixel(source, in, weight, conv, t, h, w, result + (line * o[2] + w) * o[3]);
      }
    });
  }

 private:
  static void pixel(const float* source, const Shape& in, const PortableConv& weight, const Backend::Conv& conv, int64_t t, int64_t h, int64_t w, float* to) {
    const auto& k = weight.kernel;
    for (int64_t c0 = 0; c0 < weight.outputs; c0 += kColumnTile) {
      const int64_t columns = std::min(kColumnTile, weight.outputs - c0);
      float sum[1][kColumnTile] = {};
      for (int64_t kt = 0; kt < k[0]; ++kt)
        for (int64_t kh = 0; kh < k[1]; ++kh)
          for (int64_t kw = 0; kw < k[2]; ++kw) {
            const int64_t row = h * conv.stride[1] + kh - conv.padTop[0], column = w * conv.stride[2] + kw - conv.padTop[1];
            if (row < 0 || row >= in[1] || column < 0 || column >= in[2]) continue;
            const float* line = source + (((t * conv.stride[0] + kt) * in[1] + row) * in[2] + column) * in[3];
            const int64_t tap = (kt * k[1] + kh) * k[2] + kw;
            accumulateTile(&line, 1, weight.taps.data() + tap * weight.inputs * weight.outputs + c0, weight.inputs, weight.outputs, columns, sum);
          }
      for (int64_t c = 0; c < columns; ++c) to[c0 + c] = sum[0][c] + (weight.bias.empty() ? 0.0f : weight.bias[static_cast<size_t>(c0 + c)]);
    }
  }
};

}  // namespace

std::unique_ptr<ProductLibrary> ProductLibrary::make(DType activationType) {
  if (activationType != DType::F32) throw Error(ErrorCode::Unsupported, "this build has no oneDNN and computes in f32 only", "precision");
  return std::make_unique<PortableProducts>();
}

const char* ProductLibrary::name() { return "portable"; }
bool ProductLibrary::hasFastBf16() { return false; }

}  // namespace vmoba::cpu
