// Inputs, poisoned outputs and plain comparisons for the tests of the attention kernels.
#pragma once
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cuda/attention/self_attention.h"
#include "kernels/emulation/block.h"
#include "kernels/partition.h"
#include "kernels/reference/reference.h"

namespace vmoba::cudatest {

/// Bytes aligned as device memory is, every one poisoned: NaN as floats, nonsense as integers.
class DeviceBytes {
 public:
  explicit DeviceBytes(size_t bytes) : bytes_(bytes + 256) { std::memset(bytes_.data(), 0xff, bytes_.size()); }
  std::byte* data() { return bytes_.data() + (256 - reinterpret_cast<uintptr_t>(bytes_.data()) % 256) % 256; }
  template <class T>
  std::vector<T> copy(size_t offset, size_t count) {
    std::vector<T> out(count);
    std::memcpy(out.data(), data() + offset, count * sizeof(T));
    return out;
  }

 private:
  std::vector<std::byte> bytes_;
};

inline std::vector<float> randomFloats(size_t count, uint32_t seed, float scale = 1) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, scale);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

/// `values` as the device holds them, and what they are after rounding.
struct Stored {
  std::vector<float> f32;
  std::vector<Bf16> bf16;
  Stored(std::vector<float> values, DType type) : f32(std::move(values)) {
    if (type == DType::F32) return;
    for (float& value : f32) {
      bf16.push_back(toBf16(value));
      value = toFloat(bf16.back());
    }
  }
  const void* data() const { return bf16.empty() ? static_cast<const void*>(f32.data()) : bf16.data(); }
};

inline std::vector<float> loadOutput(DeviceBytes& out, size_t count, DType type) {
  if (type == DType::F32) return out.copy<float>(0, count);
  std::vector<float> values;
  for (const Bf16 value : out.copy<Bf16>(0, count)) values.push_back(toFloat(value));
  return values;
}

inline std::vector<double> doubles(const std::vector<float>& values) { return {values.begin(), values.end()}; }

/// Largest absolute difference; infinite where a value is NaN or missing.
inline double worst(const std::vector<float>& actual, const std::vector<double>& expected) {
  if (actual.size() != expected.size()) return std::numeric_limits<double>::infinity();
  double most = 0;
  for (size_t i = 0; i < actual.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual[i]) - expected[i]);
    most = difference <= most ? most : std::isnan(difference) ? std::numeric_limits<double>::infinity() : difference;
  }
  return most;
}

/// Softmax attention written straight down at a precision: f32 sums, and for BF16 weights and result rounded to bf16. The error
/// a kernel is allowed is twice this one's. Tensors [S, H, D]; `attends(head, query, key)`.
template <class Attends>
std::vector<float> straightforward(const std::vector<float>& q, const std::vector<float>& k, const std::vector<float>& v, int queries, int keys, int heads,
                                   int headDim, DType type, const Attends& attends) {
  const float scale = 1 / std::sqrt(static_cast<float>(headDim));
  const auto index = [&](int row, int head) { return (static_cast<size_t>(row) * static_cast<size_t>(heads) + static_cast<size_t>(head)) * static_cast<size_t>(headDim); };
  std::vector<float> out(q.size()), logits(static_cast<size_t>(keys));
  for (int h = 0; h < heads; ++h)
    for (int s = 0; s < queries; ++s) {
      float most = -std::numeric_limits<float>::infinity(), total = 0;
      for (int key = 0; key < keys; ++key) {
        float dot = 0;
        for (int i = 0; i < headDim; ++i) dot += q[index(s, h) + static_cast<size_t>(i)] * k[index(key, h) + static_cast<size_t>(i)];
        logits[static_cast<size_t>(key)] = attends(h, s, key) ? dot * scale : -std::numeric_limits<float>::infinity();
        most = std::max(most, logits[static_cast<size_t>(key)]);
      }
      std::vector<float> sum(static_cast<size_t>(headDim));
      for (int key = 0; key < keys; ++key) {
        float weight = std::exp(logits[static_cast<size_t>(key)] - most);
        total += weight;
        if (type == DType::BF16) weight = toFloat(toBf16(weight));
        for (int i = 0; i < headDim; ++i) sum[static_cast<size_t>(i)] += weight * v[index(key, h) + static_cast<size_t>(i)];
      }
      for (int i = 0; i < headDim; ++i) {
        const float value = sum[static_cast<size_t>(i)] / total;
        out[index(s, h) + static_cast<size_t>(i)] = type == DType::BF16 ? toFloat(toBf16(value)) : value;
      }
    }
  return out;
}

/// One self-attention call over host memory standing in for the device's.
struct SelfAttentionCase {
  Grid grid;
  Partition partition;
  int heads = 2, headDim = 20;
  DType type = DType::F32;
  SelectionRule rule;
  bool sparse = true, normed = true, attending = true, hopper = false, wideTiles = false;
  size_t partialBytes = partialResultBytes(0);
  float normScale = 1;  ///< of the norms' weights
  emulation::Options options = {};
};

struct SelfAttentionResult {
  BlockPlan plan;
  AttentionProbe probe;
  AttentionStatistics statistics;
  std::vector<float> out;  ///< [S, H, D] in permuted order
  uint32_t notFinite = 0;
};

inline SelfAttentionResult run(const SelfAttentionCase& c, uint32_t seed = 7, const std::vector<float>* qkv = nullptr) {
  SelfAttentionResult result;
  const auto tokens = static_cast<size_t>(c.grid.tokens()), dim = static_cast<size_t>(c.heads * c.headDim);
  result.plan = c.sparse ? planBlocks(c.grid, c.partition) : reference::wholeSequence(static_cast<int32_t>(tokens));
  const Stored input(qkv ? *qkv : randomFloats(tokens * 3 * dim, seed, 1.5f), c.type);
  const std::vector<float> normQ = randomFloats(dim, seed + 1, c.normScale), normK = randomFloats(dim, seed + 2, c.normScale);
  std::vector<float> cosine, sine;
  for (const float angle : randomFloats(tokens * static_cast<size_t>(c.headDim) / 2, seed + 3)) {
    cosine.push_back(std::cos(angle));
    sine.push_back(std::sin(angle));
  }
  const cuda::PlanUpload upload = cuda::layOut(result.plan);
  DeviceBytes out(tokens * dim * elementBytes(c.type));

  cuda::SelfAttentionJob job;
  job.dtype = c.type;
  job.plan = upload.view(upload.data.data());
  job.sparse = c.sparse;
  job.rule = c.rule;
  job.heads = c.heads;
  job.headDim = c.headDim;
  const auto* base = static_cast<const std::byte*>(input.data());
  job.q = base;
  job.k = base + dim * elementBytes(c.type);
  job.v = base + 2 * dim * elementBytes(c.type);
  job.rowStride = static_cast<int64_t>(3 * dim);
  if (c.normed) {
    job.normQ = normQ.data();
    job.normK = normK.data();
    job.ropeCos = cosine.data();
    job.ropeSin = sine.data();
  }
  job.out = out.data();
  job.outStride = static_cast<int64_t>(dim);
  job.notFinite = &result.notFinite;
  job.maps = c.sparse;
  job.hopper = c.hopper;
  job.wideTiles = c.wideTiles;
  job.partialBytes = c.partialBytes;
  const cuda::SelfAttentionScratch layout = cuda::layOutScratch(job);
  DeviceBytes scratch(layout.total);
  const tile::Stream stream{const_cast<emulation::Options*>(&c.options)};
  cuda::route(stream, job, scratch.data());
  const auto heads = static_cast<size_t>(c.heads), blocks = static_cast<size_t>(result.plan.blocks());
  const size_t operand = heads * tokens * static_cast<size_t>(cuda::paddedHeadDim(c.headDim)) * elementBytes(c.type);
  std::vector<uint32_t> selected, map;
  uint32_t visitTotal = 0;
  std::vector<float> gate;
  std::vector<uint32_t> selection;
  if (c.sparse) {
    gate = scratch.copy<float>(layout.gate, heads * blocks * tokens);
    selection = scratch.copy<uint32_t>(layout.selection, heads * tokens * static_cast<size_t>(job.plan.words()));
    selected = scratch.copy<uint32_t>(layout.selected, heads * blocks);
    map = scratch.copy<uint32_t>(layout.map, blocks * blocks);
  }
  cuda::collectProbe(job, gate, selection, scratch.copy<std::byte>(layout.q, operand), scratch.copy<std::byte>(layout.k, operand),
                     scratch.copy<std::byte>(layout.v, operand), result.probe);
  if (!c.attending) return result;
  cuda::pack(stream, job, scratch.data());
  cuda::attend(stream, job, scratch.data());
  if (c.sparse) visitTotal = scratch.copy<uint32_t>(layout.visitTotal, 1).front();
  cuda::collect(job, result.plan, selected, map, visitTotal, result.statistics);
  const std::vector<float> raster = loadOutput(out, tokens * dim, c.type);
  for (size_t s = 0; s < tokens; ++s) {
    const size_t from = (result.plan.permutation.empty() ? s : static_cast<size_t>(result.plan.permutation[s])) * dim;
    result.out.insert(result.out.end(), raster.begin() + static_cast<std::ptrdiff_t>(from), raster.begin() + static_cast<std::ptrdiff_t>(from + dim));
  }
  return result;
}

/// The kernel's error and twice that of the straightforward version, both against double precision over the kernel's own operands
/// and selection.
struct Errors {
  double kernel, allowed;
};
inline Errors errorsOf(const SelfAttentionCase& c, const SelfAttentionResult& r) {
  const auto tokens = static_cast<int>(c.grid.tokens());
  std::vector<uint8_t> selection = r.probe.selection;
  if (!c.sparse) selection.assign(static_cast<size_t>(tokens * c.heads), 1);
  const auto exact = reference::maskedAttention(doubles(r.probe.q), doubles(r.probe.k), doubles(r.probe.v), selection, r.plan, c.heads, c.headDim);
  const std::vector<int32_t> blockOf = reference::blockOfPosition(r.plan);
  const auto plain = straightforward(r.probe.q, r.probe.k, r.probe.v, tokens, tokens, c.heads, c.headDim, c.type, [&](int h, int s, int key) {
    return selection[static_cast<size_t>((blockOf[static_cast<size_t>(key)] * c.heads + h) * tokens + s)] != 0;
  });
  return {worst(r.out, exact), 2 * worst(plain, exact)};
}

}  // namespace vmoba::cudatest
