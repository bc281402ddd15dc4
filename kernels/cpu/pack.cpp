#include "kernels/cpu/pack.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu/clones.h"
#include "kernels/cpu/rows/rows.h"

namespace vmoba::cpu {
namespace {

constexpr int kSums = 16;

uint16_t roundedBits(float value) {
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);  // callers have refused NaN
}

VMOBA_CLONES double sumOfSquares(const float* x, int64_t n) {
  double lane[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int64_t j = 0; j < kSums; ++j) lane[j] += static_cast<double>(x[i + j]) * static_cast<double>(x[i + j]);
  for (int64_t j = 0; i < n; ++i, ++j) lane[j] += static_cast<double>(x[i]) * static_cast<double>(x[i]);
  double total = 0;
  for (const double part : lane) total += part;
  return total;
}

/// x - x is 0 for every finite x and NaN otherwise.
VMOBA_CLONES float differences(const float* x, int64_t n) {
  float lane[kSums] = {};
  int64_t i = 0;
  for (; i + kSums <= n; i += kSums)
    for (int64_t j = 0; j < kSums; ++j) lane[j] += x[i + j] - x[i + j];
  for (int64_t j = 0; i < n; ++i, ++j) lane[j] += x[i] - x[i];
  float total = 0;
  for (const float part : lane) total += part;
  return total;
}

VMOBA_CLONES void scaleBy(float* x, float factor, const float* weight, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = x[i] * factor * weight[i];
}

VMOBA_CLONES void rotate(float* x, const float* cosine, const float* sine, int64_t pairs) {
  for (int64_t i = 0; i < pairs; ++i) {
    const float a = x[2 * i], b = x[2 * i + 1];
    x[2 * i] = a * cosine[i] - b * sine[i];
    x[2 * i + 1] = a * sine[i] + b * cosine[i];
  }
}

VMOBA_CLONES void roundRow(const float* x, uint16_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = roundedBits(x[i]);
}

VMOBA_CLONES void roundWide(float* x, int64_t n) {
  for (int64_t i = 0; i < n; ++i) x[i] = std::bit_cast<float>(static_cast<uint32_t>(roundedBits(x[i])) << 16);
}

VMOBA_CLONES void interleave(const float* even, const float* odd, uint32_t* out, int64_t n) {
  for (int64_t i = 0; i < n; ++i) out[i] = static_cast<uint32_t>(roundedBits(even[i])) | static_cast<uint32_t>(roundedBits(odd[i])) << 16;
}

VMOBA_CLONES void addTo(const float* row, double* sums, int64_t n) {
  for (int64_t i = 0; i < n; ++i) sums[i] += static_cast<double>(row[i]);
}

/// out[i][0..lanes) = word i of each row, 8 x 8 at a time so that both sides stay in few cache lines.
VMOBA_CLONES void transposeWords(const uint32_t* rows, int64_t rowWords, int32_t keys, int32_t lanes, int32_t words, uint32_t* out) {
  for (int32_t i = 0; i < words; ++i)
    for (int32_t j = 0; j < keys; ++j) out[int64_t{i} * lanes + j] = rows[j * rowWords + i];
  if (keys == lanes) return;
  for (int32_t i = 0; i < words; ++i)
    for (int32_t j = keys; j < lanes; ++j) out[int64_t{i} * lanes + j] = 0;
}

}  // namespace

bool prepareRow(const RowSource& source, int64_t index, float* out) {
  const int64_t dim = source.dim(), at = index * source.stride;
  if (source.dtype == DType::BF16) {
    convert(static_cast<const Bf16*>(source.base) + at, DType::BF16, out, DType::F32, dim);
  } else {
    std::memcpy(out, static_cast<const float*>(source.base) + at, static_cast<size_t>(dim) * sizeof(float));
  }
  const bool finite = differences(out, dim) == 0;
  if (source.norm != nullptr)
    scaleBy(out, static_cast<float>(1 / std::sqrt(sumOfSquares(out, dim) / static_cast<double>(dim) + static_cast<double>(source.eps))), source.norm, dim);
  if (source.cosine != nullptr)
    for (int32_t h = 0; h < source.heads; ++h) rotate(out + int64_t{h} * source.headDim, source.cosine, source.sine, source.headDim / 2);
  return finite;
}

void roundThrough(DType element, float* values, int64_t count) {
  if (element == DType::BF16) roundWide(values, count);
}

void packRow(DType element, const float* values, int32_t count, int32_t depth, void* out) {
  if (element == DType::BF16) {
    auto* to = static_cast<uint16_t*>(out);
    roundRow(values, to, count);
    std::fill(to + count, to + depth, uint16_t{0});
  } else {
    auto* to = static_cast<float*>(out);
    std::copy(values, values + count, to);
    std::fill(to + count, to + depth, 0.0f);
  }
}

void packKeyGroup(const void* rows, int64_t rowStride, int32_t keys, int32_t lanes, int32_t depthWords, int32_t step, void* out) {
  transposeWords(static_cast<const uint32_t*>(rows), rowStride / step, keys, lanes, depthWords, static_cast<uint32_t*>(out));
}

void packValueGroup(DType element, const float* rows, int64_t rowStride, int32_t keys, int32_t lanes, int32_t width, int32_t valueWidth, void* out) {
  static constexpr float kZeros[4096] = {};
  auto* to = static_cast<uint32_t*>(out);
  const int32_t step = element == DType::BF16 ? 2 : 1;
  for (int32_t j = 0; j < lanes; j += step, to += valueWidth) {
    if (j >= keys) {
      std::fill(to, to + valueWidth, 0u);
      continue;
    }
    const float* row = rows + j * rowStride;
    if (element == DType::BF16) {
      for (int32_t i = 0; i < width; i += 4096) interleave(row + i, j + 1 < keys ? row + rowStride + i : kZeros, to + i, std::min(4096, width - i));
    } else {
      std::memcpy(to, row, static_cast<size_t>(width) * sizeof(float));
    }
    std::fill(to + width, to + valueWidth, 0u);
  }
}

void accumulate(const float* row, double* sums, int64_t count) { addTo(row, sums, count); }

void transposeQueries(DType element, const void* rows, int32_t count, int32_t lanes, int32_t depth, float* out) {
  if (element == DType::F32) {
    transposeWords(static_cast<const uint32_t*>(rows), depth, count, lanes, depth, reinterpret_cast<uint32_t*>(out));
    return;
  }
  const auto* from = static_cast<const uint16_t*>(rows);
  for (int32_t j = 0; j < lanes; ++j)
    for (int32_t i = 0; i < depth; ++i)
      out[int64_t{i} * lanes + j] = j < count ? std::bit_cast<float>(static_cast<uint32_t>(from[int64_t{j} * depth + i]) << 16) : 0.0f;
}

void writeRow(const float* values, int32_t count, DType dtype, void* out, int64_t at, bool add) {
  if (dtype == DType::BF16) {
    auto* to = static_cast<Bf16*>(out) + at;
    if (!add) return convert(values, DType::F32, to, DType::BF16, count);
    for (int32_t i = 0; i < count; ++i) to[i] = toBf16(toFloat(to[i]) + values[i]);
  } else {
    float* to = static_cast<float*>(out) + at;
    for (int32_t i = 0; i < count; ++i) to[i] = add ? to[i] + values[i] : values[i];
  }
}

}  // namespace vmoba::cpu
