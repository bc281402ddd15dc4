// Transformer and sampler operations of the CPU backend.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/rows/rows.h"
#include "native/backends/cpu/cpu_backend.h"
#include "native/base/error.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {
namespace {

const float* floats(const Tensor& tensor) { return reinterpret_cast<const float*>(tensor.address); }
float* mutableFloats(const Tensor& tensor) { return reinterpret_cast<float*>(tensor.address); }
int64_t width(const Tensor& tensor) { return tensor.shape[tensor.shape.rank - 1]; }

float loadScalar(const Tensor& tensor, int64_t at) {
  return tensor.dtype == DType::BF16 ? toFloat(reinterpret_cast<const Bf16*>(tensor.address)[at]) : floats(tensor)[at];
}
void storeScalar(const Tensor& tensor, int64_t at, float value) {
  if (tensor.dtype == DType::BF16) {
    reinterpret_cast<Bf16*>(tensor.address)[at] = toBf16(value);
  } else {
    mutableFloats(tensor)[at] = value;
  }
}

}  // namespace

void CpuBackend::linear(const Tensor& x, const LinearWeight& weight, const Tensor& out, Activation activation) {
  const Timed timed(*this, seconds_.linears);
  const int64_t rows = x.elements() / weight.inputs;
  seconds_.linearFlops += 2.0 * static_cast<double>(rows) * static_cast<double>(weight.inputs) * static_cast<double>(weight.outputs);
  // In pieces, so that a cancel is seen within a fraction of a second at any size.
  const double flopsPerRow = 2.0 * static_cast<double>(weight.inputs) * static_cast<double>(weight.outputs);
  const int64_t most = std::max<int64_t>(256, static_cast<int64_t>(products_->flopsPerPiece(weight) / flopsPerRow) / 256 * 256);
  const Tensor scratch = allocate(DType::U8, {static_cast<int64_t>(products_->scratchBytes(weight, threads_))});
  for (int64_t from = 0; from < rows; from += most) {
    throwIfCancelled();
    const int64_t n = std::min(most, rows - from);
    products_->linear(x.address + static_cast<size_t>(from * weight.inputs) * elementBytes(x.dtype), n, weight,
                      out.address + static_cast<size_t>(from * weight.outputs) * elementBytes(out.dtype), out.dtype, activation,
                      {scratch.address, scratch.bytes()});
    beat();
  }
}

void CpuBackend::layerNorm(const Tensor& x, const Tensor& gain, const Tensor& offset, bool gainPlusOne, float eps, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  const int64_t d = width(x);
  parallelForRanges(x.elements() / d, rowGrain(d), [&](int64_t begin, int64_t end) {
    layerNormRows(floats(x), gain ? floats(gain) : nullptr, offset ? floats(offset) : nullptr, gainPlusOne, eps, d, out.address, out.dtype, begin, end);
  });
}

void CpuBackend::rmsNorm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  const int64_t d = width(x);
  parallelForRanges(x.elements() / d, rowGrain(d), [&](int64_t begin, int64_t end) {
    rmsNormRows(floats(x), floats(weight), eps, d, out.address, out.dtype, begin, end);
  });
}

void CpuBackend::addGated(const Tensor& x, const Tensor& y, const Tensor& gate) {
  const Timed timed(*this, seconds_.other);
  const int64_t d = width(x);
  parallelForRanges(x.elements() / d, rowGrain(d), [&](int64_t begin, int64_t end) {
    addGatedRows(mutableFloats(x), y.address, y.dtype, gate ? floats(gate) : nullptr, d, begin, end);
  });
}

void CpuBackend::addVectors(const Tensor& a, const Tensor& b, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  const int64_t n = a.elements(), period = b.elements();
  for (int64_t i = 0; i < n; ++i) mutableFloats(out)[i] = floats(a)[i] + floats(b)[i % period];
}

void CpuBackend::activate(const Tensor& x, Activation activation, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  constexpr int64_t block = 512;
  parallelForRanges((x.elements() + block - 1) / block, kGrainElements / block, [&](int64_t begin, int64_t end) {
    float values[block];
    for (int64_t b = begin; b < end; ++b) {
      const int64_t at = b * block, n = std::min(block, x.elements() - at);
      cpu::convert(x.address + static_cast<size_t>(at) * elementBytes(x.dtype), x.dtype, values, DType::F32, n);
      if (activation == Activation::GeluTanh) geluTanh(values, n);
      if (activation == Activation::GeluErf) geluErf(values, n);
      if (activation == Activation::Silu) silu(values, n);
      cpu::convert(values, DType::F32, out.address + static_cast<size_t>(at) * elementBytes(out.dtype), out.dtype, n);
    }
  });
}

void CpuBackend::multiply(const Tensor& a, const Tensor& b, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  const size_t size = elementBytes(a.dtype);
  parallelForRanges(a.elements(), kGrainElements, [&](int64_t begin, int64_t end) {
    const size_t at = static_cast<size_t>(begin) * size;
    cpu::multiply(a.address + at, b.address + at, out.address + at, a.dtype, end - begin);
  });
}

void CpuBackend::convert(const Tensor& source, const Tensor& destination) {
  const Timed timed(*this, seconds_.other);
  parallelForRanges(source.elements(), kGrainElements, [&](int64_t begin, int64_t end) {
    cpu::convert(source.address + static_cast<size_t>(begin) * elementBytes(source.dtype), source.dtype,
                 destination.address + static_cast<size_t>(begin) * elementBytes(destination.dtype), destination.dtype, end - begin);
  });
}

void CpuBackend::selfAttention(const SelfAttentionOp& op) {
  throwIfCancelled();
  const auto started = std::chrono::steady_clock::now();
  const int64_t tokens = op.qkv.shape[0], dim = op.qkv.shape[1] / 3;
  SelfAttention job;
  job.tokens = static_cast<int32_t>(tokens);
  job.heads = op.heads;
  job.headDim = static_cast<int32_t>(dim / op.heads);
  job.dtype = op.qkv.dtype;
  const size_t slice = static_cast<size_t>(dim) * elementBytes(op.qkv.dtype);
  job.q = op.qkv.address;
  job.k = op.qkv.address + slice;
  job.v = op.qkv.address + 2 * slice;
  job.rowStride = 3 * dim;
  job.normQ = op.normQ ? floats(op.normQ) : nullptr;
  job.normK = op.normK ? floats(op.normK) : nullptr;
  job.normEps = op.normEps;
  job.ropeCos = op.ropeCos ? floats(op.ropeCos) : nullptr;
  job.ropeSin = op.ropeSin ? floats(op.ropeSin) : nullptr;
  job.blocks = op.blocks;
  job.rule = op.rule;
  job.out = op.out.address;
  job.outStride = dim;
  job.cancel = cancel_;
  job.probe = op.probe;
  const size_t bytes = selfAttentionScratchBytes(job, threads_);
  const Tensor scratch = allocate(DType::U8, {static_cast<int64_t>(bytes)});
  AttentionStatistics own;
  AttentionStatistics& statistics = op.statistics ? *op.statistics : own;
  cpu::selfAttention(job, {scratch.address, bytes}, op.statistics ? &op.request : nullptr, &statistics);
  const double total = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  seconds_.routing += statistics.routingSeconds;
  seconds_.attention += std::max(0.0, total - statistics.routingSeconds);
  beat();
}

void CpuBackend::crossAttention(const CrossAttentionOp& op) {
  const Timed timed(*this, seconds_.attention);
  const int64_t dim = op.q.shape[1];
  CrossAttention job;
  job.tokens = static_cast<int32_t>(op.q.shape[0]);
  job.keys = static_cast<int32_t>(op.kv.shape[0]);
  job.heads = op.heads;
  job.headDim = static_cast<int32_t>(dim / op.heads);
  job.dtype = op.q.dtype;
  job.q = op.q.address;
  job.qStride = dim;
  job.k = op.kv.address;
  job.v = op.kv.address + static_cast<size_t>(dim) * elementBytes(op.kv.dtype);
  job.kvStride = 2 * dim;
  job.normQ = op.normQ ? floats(op.normQ) : nullptr;
  job.normK = op.normK ? floats(op.normK) : nullptr;
  job.normEps = op.normEps;
  job.out = op.out.address;
  job.outStride = dim;
  job.accumulate = op.accumulate;
  job.keyGroup = op.keyGroup.empty() ? nullptr : op.keyGroup.data();
  job.groups = op.groups;
  job.groupMass = op.groupMass ? mutableFloats(op.groupMass) : nullptr;
  job.cancel = cancel_;
  const size_t bytes = crossAttentionScratchBytes(job, threads_);
  const Tensor scratch = allocate(DType::U8, {static_cast<int64_t>(bytes)});
  cpu::crossAttention(job, {scratch.address, bytes});
}

// The text encoder runs once per prompt on at most a few hundred tokens: plain loops, one (head, query) at a time.
void CpuBackend::biasedAttention(const Tensor& qkv, int32_t heads, const Tensor& bias, std::span<const int32_t> bucketOfDistance,
                                 std::span<const uint8_t> keyMask, const Tensor& out) {
  const Timed timed(*this, seconds_.attention);
  const int64_t length = qkv.shape[0], inner = qkv.shape[1] / 3, d = inner / heads;
  // bucketOfDistance[i] belongs to distance i - (length - 1)
  const Tensor widened = allocate(DType::F32, qkv.shape);
  convert(qkv, widened);
  const float* rows = floats(widened);
  parallelForDynamic(heads, [&](int64_t head) {
    std::vector<float> logits(static_cast<size_t>(length)), sum(static_cast<size_t>(d));
    for (int64_t query = 0; query < length; ++query) {
      const float* q = rows + query * 3 * inner + head * d;
      float largest = -std::numeric_limits<float>::infinity();
      for (int64_t key = 0; key < length; ++key) {
        float& logit = logits[static_cast<size_t>(key)];
        if (!keyMask.empty() && keyMask[static_cast<size_t>(key)] == 0) {
          logit = std::numeric_limits<float>::lowest();
        } else {
          const float* k = rows + key * 3 * inner + inner + head * d;
          float dot = 0;
          for (int64_t i = 0; i < d; ++i) dot += q[i] * k[i];
          const int32_t bucket = bucketOfDistance[static_cast<size_t>(key - query + length - 1)];
          logit = dot + floats(bias)[bucket * heads + head];
        }
        largest = std::max(largest, logit);
      }
      float total = 0;
      std::fill(sum.begin(), sum.end(), 0.0f);
      for (int64_t key = 0; key < length; ++key) {
        const float weight = std::exp(logits[static_cast<size_t>(key)] - largest);
        total += weight;
        const float* v = rows + key * 3 * inner + 2 * inner + head * d;
        for (int64_t i = 0; i < d; ++i) sum[static_cast<size_t>(i)] += weight * v[i];
      }
      for (int64_t i = 0; i < d; ++i) storeScalar(out, query * inner + head * d + i, sum[static_cast<size_t>(i)] / total);
    }
  });
}

void CpuBackend::patchify(const Tensor& latent, std::array<int32_t, 3> patch, const Tensor& rows) {
  const Timed timed(*this, seconds_.other);
  const int64_t c = latent.shape[0], t = latent.shape[1], h = latent.shape[2], w = latent.shape[3];
  const int64_t pt = patch[0], ph = patch[1], pw = patch[2], gh = h / ph, gw = w / pw;
  const int64_t perRow = c * pt * ph * pw;
  for (int64_t token = 0; token < rows.shape[0]; ++token) {
    const int64_t t0 = token / (gh * gw) * pt, h0 = token / gw % gh * ph, w0 = token % gw * pw;
    int64_t at = token * perRow;
    for (int64_t ci = 0; ci < c; ++ci)
      for (int64_t dt = 0; dt < pt; ++dt)
        for (int64_t dh = 0; dh < ph; ++dh)
          for (int64_t dw = 0; dw < pw; ++dw) storeScalar(rows, at++, floats(latent)[((ci * t + t0 + dt) * h + h0 + dh) * w + w0 + dw]);
  }
}

void CpuBackend::unpatchify(const Tensor& rows, std::array<int32_t, 3> patch, const Tensor& latent) {
  const Timed timed(*this, seconds_.other);
  const int64_t c = latent.shape[0], t = latent.shape[1], h = latent.shape[2], w = latent.shape[3];
  const int64_t pt = patch[0], ph = patch[1], pw = patch[2], gh = h / ph, gw = w / pw;
  const int64_t perRow = c * pt * ph * pw;
  for (int64_t token = 0; token < rows.shape[0]; ++token) {
    const int64_t t0 = token / (gh * gw) * pt, h0 = token / gw % gh * ph, w0 = token % gw * pw;
    int64_t at = token * perRow;
    for (int64_t dt = 0; dt < pt; ++dt)
      for (int64_t dh = 0; dh < ph; ++dh)
        for (int64_t dw = 0; dw < pw; ++dw)
          for (int64_t ci = 0; ci < c; ++ci) mutableFloats(latent)[((ci * t + t0 + dt) * h + h0 + dh) * w + w0 + dw] = loadScalar(rows, at++);
  }
}

void CpuBackend::combine(std::span<const Term> terms, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  parallelForRanges(out.elements(), kGrainElements, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      double sum = terms[0].coefficient * static_cast<double>(floats(terms[0].tensor)[i]);
      for (const Term& term : terms.subspan(1)) sum += term.coefficient * static_cast<double>(floats(term.tensor)[i]);
      mutableFloats(out)[i] = static_cast<float>(sum);
    }
  });
}

void CpuBackend::projectChannels(const Tensor& x, const Tensor& factors, const Tensor& offset, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  const int64_t channels = factors.shape[0], columns = factors.shape[1], positions = x.elements() / channels;
  parallelForRanges(positions, rowGrain(channels * columns), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      for (int64_t r = 0; r < columns; ++r) {
        float value = floats(offset)[r];
        for (int64_t c = 0; c < channels; ++c) value += floats(x)[c * positions + i] * floats(factors)[c * columns + r];
        mutableFloats(out)[i * columns + r] = value;
      }
  });
}

bool CpuBackend::allFinite(const Tensor& x) {
  const Timed timed(*this, seconds_.other);
  return std::all_of(floats(x), floats(x) + x.elements(), [](float value) { return std::isfinite(value); });
}

}  // namespace vmoba::cpu
