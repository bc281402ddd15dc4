#include "kernels/cpu/rows/rows.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <vector>

// One source, several instruction sets: GCC on Linux emits a clone per target and picks at load time. Sanitizer builds
// stay on the baseline (their runtime is not ready when the picker runs).
#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(VMOBA_SANITIZE)
#define VMOBA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VMOBA_CLONES
#endif

namespace vmoba::cpu {
namespace {

constexpr int64_t kLanes = 16;
constexpr int64_t kBlock = 512;  // floats converted at a time: stays in L1

// exp by range reduction and a degree-6 polynomial; relative error below 2e-7 on [-87, 88], saturating outside.
inline float fastExp(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  const float scaled = x * 1.44269504088896341f;
  const float whole = static_cast<float>(static_cast<int32_t>(scaled + (scaled < 0 ? -0.5f : 0.5f)));
  const float r = (x - whole * 0.693359375f) + whole * 2.12194440e-4f;
  const float p = 1.0f + r * (1.0f + r * (0.5f + r * (0.166666546f + r * (0.0416664854f + r * (0.00833345205f + r * 0.00139304355f)))));
  return p * std::bit_cast<float>((static_cast<int32_t>(whole) + 127) << 23);
}

VMOBA_CLONES void bf16ToFloat(const Bf16* in, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = std::bit_cast<float>(static_cast<uint32_t>(in[i].bits) << 16);
}

VMOBA_CLONES void floatToBf16(const float* in, Bf16* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const auto bits = std::bit_cast<uint32_t>(in[i]);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quietNan = (bits >> 16) | 0x40u;
    out[i].bits = static_cast<uint16_t>((bits & 0x7fffffffu) > 0x7f800000u ? quietNan : rounded);
  }
}

VMOBA_CLONES float sumOf(const float* x, int64_t n) {
  float lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) lane[j] += x[i + j];
  for (int64_t j = 0; i < n; ++i, ++j) lane[j] += x[i];
  float total = 0;
  for (const float part : lane) total += part;
  return total;
}

VMOBA_CLONES float sumOfSquares(const float* x, float shift, int64_t n) {
  float lane[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes)
    for (int64_t j = 0; j < kLanes; ++j) {
      const float d = x[i + j] - shift;
      lane[j] += d * d;
    }
  for (int64_t j = 0; i < n; ++i, ++j) {
    const float d = x[i] - shift;
    lane[j] += d * d;
  }
  float total = 0;
  for (const float part : lane) total += part;
  return total;
}

// out = (x - shift)·factor·(base + gain) + offset
VMOBA_CLONES void scaleShift(const float* x, float shift, float factor, const float* gain, float base, const float* offset, float* out, int64_t n) {
  if (gain != nullptr && offset != nullptr) {
    for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - shift) * factor * (base + gain[i]) + offset[i];
  } else if (gain != nullptr) {
    for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - shift) * factor * (base + gain[i]);
  } else {
    for (int64_t i = 0; i < n; ++i) out[i] = (x[i] - shift) * factor + (offset ? offset[i] : 0.0f);
  }
}

VMOBA_CLONES void addScaled(float* x, const float* y, const float* gate, int64_t n) {
  if (gate != nullptr) {
    for (int64_t i = 0; i < n; ++i) x[i] += y[i] * gate[i];
  } else {
    for (int64_t i = 0; i < n; ++i) x[i] += y[i];
  }
}

// x / (1 + exp(exponent)); a zero of x's sign where fastExp saturates, however large x. Masked, for a choice would become a branch.
inline float gated(float x, float exponent) {
  const uint32_t kept = (static_cast<uint32_t>(exponent > 88.0f) - 1) | 0x80000000u;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(x / (1.0f + fastExp(exponent))) & kept);
}

VMOBA_CLONES void siluBlock(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = gated(x[i], -x[i]);
}

VMOBA_CLONES void geluTanhBlock(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    const float inner = 0.7978845608028654f * (x[i] + 0.044715f * x[i] * x[i] * x[i]);
    // 0.5·(1 + tanh(u)) = 1/(1 + exp(-2u))
    x[i] = gated(x[i], -2.0f * inner);
  }
}

VMOBA_CLONES void mulBlock(const float* a, const float* b, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] * b[i];
}
VMOBA_CLONES void addBlock(const float* a, const float* b, float* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = a[i] + b[i];
}

std::vector<float>& rowScratch(int64_t width) {
  thread_local std::vector<float> scratch;
  if (scratch.size() < static_cast<size_t>(2 * width)) scratch.resize(static_cast<size_t>(2 * width));
  return scratch;
}

void storeRow(const float* row, void* out, DType type, int64_t at, int64_t width) {
  if (type == DType::BF16) {
    floatToBf16(row, static_cast<Bf16*>(out) + at, width);
  } else {
    std::memcpy(static_cast<float*>(out) + at, row, static_cast<size_t>(width) * sizeof(float));
  }
}

const float* loadRow(const void* in, DType type, int64_t at, int64_t width, float* scratch) {
  if (type == DType::F32) return static_cast<const float*>(in) + at;
  bf16ToFloat(static_cast<const Bf16*>(in) + at, scratch, width);
  return scratch;
}

template <class Operation>
void elementwise(const void* a, const void* b, void* out, DType type, int64_t count, const Operation& operation) {
  float left[kBlock], right[kBlock], result[kBlock];
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t n = std::min(kBlock, count - at);
    operation(loadRow(a, type, at, n, left), loadRow(b, type, at, n, right), result, n);
    storeRow(result, out, type, at, n);
  }
}

}  // namespace

void layerNormRows(const float* x, const float* gain, const float* offset, bool gainPlusOne, float eps, int64_t width, void* out,
                   DType outType, int64_t begin, int64_t end) {
  float* result = rowScratch(width).data();
  for (int64_t r = begin; r < end; ++r) {
    const float* row = x + r * width;
    const float mean = sumOf(row, width) / static_cast<float>(width);
    const float variance = sumOfSquares(row, mean, width) / static_cast<float>(width);
    scaleShift(row, mean, 1.0f / std::sqrt(variance + eps), gain, gainPlusOne ? 1.0f : 0.0f, offset, result, width);
    storeRow(result, out, outType, r * width, width);
  }
}

void rmsNormRows(const float* x, const float* weight, float eps, int64_t width, void* out, DType outType, int64_t begin, int64_t end) {
  float* result = rowScratch(width).data();
  for (int64_t r = begin; r < end; ++r) {
    const float* row = x + r * width;
    const float meanSquare = sumOfSquares(row, 0, width) / static_cast<float>(width);
    scaleShift(row, 0, 1.0f / std::sqrt(meanSquare + eps), weight, 0, nullptr, result, width);
    storeRow(result, out, outType, r * width, width);
  }
}

void addGatedRows(float* x, const void* y, DType yType, const float* gate, int64_t width, int64_t begin, int64_t end) {
  float* scratch = rowScratch(width).data();
  for (int64_t r = begin; r < end; ++r) addScaled(x + r * width, loadRow(y, yType, r * width, width, scratch), gate, width);
}

void channelNormRows(const void* x, DType type, const float* gamma, bool applySilu, int64_t channels, void* out, int64_t begin, int64_t end) {
  float* scratch = rowScratch(channels).data();
  float* result = scratch + channels;
  const float scale = std::sqrt(static_cast<float>(channels));
  for (int64_t r = begin; r < end; ++r) {
    const float* row = loadRow(x, type, r * channels, channels, scratch);
    const float length = std::max(std::sqrt(sumOfSquares(row, 0, channels)), 1e-12f);
    scaleShift(row, 0, scale / length, gamma, 0, nullptr, result, channels);
    if (applySilu) siluBlock(result, channels);
    storeRow(result, out, type, r * channels, channels);
  }
}

void geluTanh(float* x, int64_t count) { geluTanhBlock(x, count); }
void silu(float* x, int64_t count) { siluBlock(x, count); }
void geluErf(float* x, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = 0.5f * x[i] * (1.0f + std::erf(x[i] * 0.70710678118654752f));
}
void multiply(const void* a, const void* b, void* out, DType type, int64_t count) { elementwise(a, b, out, type, count, mulBlock); }
void add(const void* a, const void* b, void* out, DType type, int64_t count) { elementwise(a, b, out, type, count, addBlock); }

void convert(const void* source, DType sourceType, void* destination, DType destinationType, int64_t count) {
  if (sourceType == destinationType) {
    std::memcpy(destination, source, static_cast<size_t>(count) * elementBytes(sourceType));
    return;
  }
  float buffer[kBlock];
  for (int64_t at = 0; at < count; at += kBlock) {
    const int64_t n = std::min(kBlock, count - at);
    const float* values = buffer;
    if (sourceType == DType::F16) {
      for (int64_t i = 0; i < n; ++i) buffer[i] = toFloat(static_cast<const F16*>(source)[at + i]);
    } else {
      values = loadRow(source, sourceType, at, n, buffer);
    }
    if (destinationType == DType::F16) {
      for (int64_t i = 0; i < n; ++i) static_cast<F16*>(destination)[at + i] = toF16(values[i]);
    } else {
      storeRow(values, destination, destinationType, at, n);
    }
  }
}

}  // namespace vmoba::cpu
