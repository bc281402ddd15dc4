// VAE operations of the CPU backend, channels-last.
#include <algorithm>
#include <cstring>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/rows/rows.h"
#include "native/backends/cpu/cpu_backend.h"
#include "native/base/error.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {

void CpuBackend::conv3d(const Tensor& x, const ConvWeight& weight, const Conv& conv, const Tensor& out, const Tensor& residual) {
  const Timed timed(*this, seconds_.linears);
  const Shape& in = x.shape;
  const int64_t perOutputFrame = out.elements() / out.shape[0] * weight.inputs * weight.kernel[0] * weight.kernel[1] * weight.kernel[2];
  seconds_.linearFlops += 2.0 * static_cast<double>(perOutputFrame) * static_cast<double>(out.shape[0]);
  // Frame by frame when one call would run long: cancel and heartbeat stay prompt, and the result is the same.
  const int64_t frames = std::max<int64_t>(1, static_cast<int64_t>(1e11 / static_cast<double>(2 * perOutputFrame)));
  const size_t size = elementBytes(x.dtype);
  for (int64_t from = 0; from < out.shape[0]; from += frames) {
    throwIfCancelled();
    const int64_t n = std::min(frames, out.shape[0] - from);
    const int64_t first = from * conv.stride[0], inputFrames = (n - 1) * conv.stride[0] + weight.kernel[0];
    products_->conv(x.address + static_cast<size_t>(first * in[1] * in[2] * in[3]) * size, {inputFrames, in[1], in[2], in[3]}, weight, conv,
                    out.address + static_cast<size_t>(from * out.shape[1] * out.shape[2] * out.shape[3]) * size,
                    {n, out.shape[1], out.shape[2], out.shape[3]});
    beat();
  }
  if (residual) {
    parallelForRanges(out.elements(), kGrainElements, [&](int64_t begin, int64_t end) {
      const size_t at = static_cast<size_t>(begin) * size;
      add(out.address + at, residual.address + at, out.address + at, out.dtype, end - begin);
    });
  }
}

void CpuBackend::channelNorm(const Tensor& x, const Tensor& gamma, bool applySilu, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  const int64_t channels = x.shape[x.shape.rank - 1];
  parallelForRanges(x.elements() / channels, rowGrain(channels), [&](int64_t begin, int64_t end) {
    channelNormRows(x.address, x.dtype, reinterpret_cast<const float*>(gamma.address), applySilu, channels, out.address, begin, end);
  });
}

void CpuBackend::upsample2x(const Tensor& x, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  const int64_t h = x.shape[1], w = x.shape[2];
  const size_t pixel = static_cast<size_t>(x.shape[3]) * elementBytes(x.dtype);
  parallelForRanges(x.shape[0] * h, rowGrain(4 * w * x.shape[3]), [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const std::byte* from = x.address + static_cast<size_t>(row * w) * pixel;
      std::byte* to = out.address + static_cast<size_t>(row * 4 * w) * pixel;
      const size_t line = static_cast<size_t>(2 * w) * pixel;
      for (int64_t column = 0; column < w; ++column, from += pixel) {
        std::memcpy(to + static_cast<size_t>(2 * column) * pixel, from, pixel);
        std::memcpy(to + static_cast<size_t>(2 * column + 1) * pixel, from, pixel);
      }
      std::memcpy(to + line, to, line);
    }
  });
}

void CpuBackend::channelsToFrames(const Tensor& x, const Tensor& out) {
  const Timed timed(*this, seconds_.other);
  const int64_t t = x.shape[0], pixels = x.shape[1] * x.shape[2], c = x.shape[3] / 2;
  const size_t half = static_cast<size_t>(c) * elementBytes(x.dtype);
  parallelForRanges(t * pixels, rowGrain(2 * c), [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t frame = i / pixels, pixel = i % pixels;
      const std::byte* from = x.address + static_cast<size_t>(2 * i) * half;
      std::memcpy(out.address + static_cast<size_t>(2 * frame * pixels + pixel) * half, from, half);
      std::memcpy(out.address + static_cast<size_t>((2 * frame + 1) * pixels + pixel) * half, from + half, half);
    }
  });
}

void CpuBackend::frameAttention(const Tensor& qkv, const Tensor& out) {
  const Timed timed(*this, seconds_.attention);
  const int64_t positions = qkv.shape[1] * qkv.shape[2], channels = qkv.shape[3] / 3;
  const size_t size = elementBytes(qkv.dtype);
  SelfAttention job;
  job.tokens = static_cast<int32_t>(positions);
  job.heads = 1;
  job.headDim = static_cast<int32_t>(channels);
  job.dtype = qkv.dtype;
  job.rowStride = 3 * channels;
  job.outStride = channels;
  job.cancel = cancel_;
  const size_t bytes = selfAttentionScratchBytes(job, threads_);
  const Tensor scratch = allocate(DType::U8, {static_cast<int64_t>(bytes)});
  for (int64_t frame = 0; frame < qkv.shape[0]; ++frame) {
    const std::byte* base = qkv.address + static_cast<size_t>(frame * positions * 3 * channels) * size;
    job.q = base;
    job.k = base + static_cast<size_t>(channels) * size;
    job.v = base + static_cast<size_t>(2 * channels) * size;
    job.out = out.address + static_cast<size_t>(frame * positions * channels) * size;
    cpu::selfAttention(job, {scratch.address, bytes});
    beat();
  }
}

}  // namespace vmoba::cpu
