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
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);  // callers have refused the NaN of inputs; arithmetic's own stay NaN
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

/// out = in; whether all are finite: no exponent has all its bits set.
VMOBA_CLONES bool copyFinite(const float* in, float* out, int64_t n) {
  uint32_t broken = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = std::bit_cast<uint32_t>(in[i]);
    out[i] = std::bit_cast<float>(bits);
    broken |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return broken == 0;
}
VMOBA_CLONES bool widenFinite(const Bf16* in, float* out, int64_t n) {
  uint32_t broken = 0;
  for (int64_t i = 0; i < n; ++i) {
    const uint32_t bits = static_cast<uint32_t>(in[i].bits) << 16;
    out[i] = std::bit_cast<float>(bits);
    broken |= (bits & 0x7f800000u) == 0x7f800000u ? 1u : 0u;
  }
  return broken == 0;
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

using Words4 [[gnu::vector_size(16), gnu::aligned(4), gnu::may_alias]] = uint32_t;

/// out[i·lanes + j] = word i of row j.
VMOBA_CLONES void transposeFull(const uint32_t* rows, int64_t rowWords, int32_t lanes, int32_t words, uint32_t* out) {
  int32_t i = 0;
  if (lanes % 4 == 0)
    for (; i + 4 <= words; i += 4)
      for (int32_t j = 0; j < lanes; j += 4) {
        const uint32_t* from = rows + j * rowWords + i;
        const auto row = [&](int32_t r) { return *reinterpret_cast<const Words4*>(from + r * rowWords); };
        const Words4 low01 = __builtin_shufflevector(row(0), row(1), 0, 4, 1, 5), high01 = __builtin_shufflevector(row(0), row(1), 2, 6, 3, 7);
        const Words4 low23 = __builtin_shufflevector(row(2), row(3), 0, 4, 1, 5), high23 = __builtin_shufflevector(row(2), row(3), 2, 6, 3, 7);
        const auto store = [&](int32_t r, Words4 x) { *reinterpret_cast<Words4*>(out + int64_t{i + r} * lanes + j) = x; };
        store(0, __builtin_shufflevector(low01, low23, 0, 1, 4, 5));
        store(1, __builtin_shufflevector(low01, low23, 2, 3, 6, 7));
        store(2, __builtin_shufflevector(high01, high23, 0, 1, 4, 5));
        store(3, __builtin_shufflevector(high01, high23, 2, 3, 6, 7));
      }
  for (; i < words; ++i)
    for (int32_t j = 0; j < lanes; ++j) out[int64_t{i} * lanes + j] = rows[j * rowWords + i];
}

/// The same of `keys` rows of `lanes`; the others are zero.
void transposeWords(const uint32_t* rows, int64_t rowWords, int32_t keys, int32_t lanes, int32_t words, uint32_t* out) {
  if (keys == lanes) return transposeFull(rows, rowWords, lanes, words, out);
  for (int32_t i = 0; i < words; ++i)
    for (int32_t j = 0; j < lanes; ++j) out[int64_t{i} * lanes + j] = j < keys ? rows[j * rowWords + i] : 0;
}

/// Words of two bf16, `lanes` per row: the first of each to one row of floats, the second to the next.
VMOBA_CLONES void splitWords(const uint32_t* words, int64_t rows, int64_t lanes, uint32_t* out) {
  for (int64_t i = 0; i < rows; ++i, words += lanes, out += 2 * lanes)
    for (int64_t j = 0; j < lanes; ++j) {
      out[j] = words[j] << 16;
      out[lanes + j] = words[j] & 0xffff0000u;
    }
}

}  // namespace

void prefetchRow(const RowSource& source, int64_t index) {
  constexpr int64_t kLine = 64, kMostLines = 16;  // then the processor's own prefetching has found the stream
  const auto* row = static_cast<const std::byte*>(source.base) + index * source.stride * static_cast<int64_t>(elementBytes(source.dtype));
  const int64_t lines = std::min(kMostLines, (source.dim() * static_cast<int64_t>(elementBytes(source.dtype)) + kLine - 1) / kLine);
  for (int64_t line = 0; line < lines; ++line) __builtin_prefetch(row + line * kLine);
}

bool prepareRow(const RowSource& source, int64_t index, float* out) {
  const int64_t dim = source.dim(), at = index * source.stride;
  const bool finite = source.dtype == DType::BF16 ? widenFinite(static_cast<const Bf16*>(source.base) + at, out, dim)
                                                  : copyFinite(static_cast<const float*>(source.base) + at, out, dim);
  if (source.norm != nullptr)
    scaleBy(out, static_cast<float>(1 / std::sqrt(sumOfSquares(out, dim) / static_cast<double>(dim) + static_cast<double>(source.eps))), source.norm, dim);
  if (source.cosine != nullptr)
    for (int32_t h = 0; h < source.heads; ++h) rotate(out + int64_t{h} * source.headDim, source.cosine, source.sine, source.headDim / 2);
  return finite;
}

bool finiteWeights(const float* norm, int64_t count) {
  return norm == nullptr || std::all_of(norm, norm + count, [](float x) { return std::isfinite(x); });
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
  const auto* from = static_cast<const uint32_t*>(rows);
  auto* to = reinterpret_cast<uint32_t*>(out);
  if (element == DType::F32) return transposeWords(from, depth, count, lanes, depth, to);
  constexpr int32_t kWords = 32, kMostLanes = 16;
  uint32_t words[kWords * kMostLanes];
  for (int32_t i = 0; i < depth / 2; i += kWords) {
    const int32_t n = std::min(kWords, depth / 2 - i);
    transposeWords(from + i, depth / 2, count, lanes, n, words);
    splitWords(words, n, lanes, to + int64_t{2} * i * lanes);
  }
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
