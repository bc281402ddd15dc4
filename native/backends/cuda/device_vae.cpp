// Operations of the VAE, channels-last.
#include <algorithm>

#include "kernels/cuda/conv3d.h"
#include "kernels/cuda/elements.h"
#include "kernels/cuda/rows.h"
#include "native/backends/cuda/device_backend.h"

namespace vmoba::cuda {
namespace {
double bytesOf(const Tensor& tensor) { return static_cast<double>(tensor.bytes()); }
int elementSize(const Tensor& tensor) { return static_cast<int>(elementBytes(tensor.dtype)); }
}  // namespace

void DeviceBackend::conv3d(const Tensor& x, const ConvWeight& generic, const Conv& conv, const Tensor& out, const Tensor& residual) {
  const auto& weight = static_cast<const DeviceConv&>(generic);
  loader_->await(*weight.arrival);
  const auto extent = [](int64_t value) { return static_cast<int32_t>(value); };
  ConvJob job;
  job.type = x.dtype;
  job.weight = weight.values.address;
  job.bias = weight.bias ? reinterpret_cast<const float*>(weight.bias.address) : nullptr;
  job.outChannels = extent(weight.outputs);
  job.shape = {extent(x.shape[1]),         extent(x.shape[2]),         extent(x.shape[3]),         0,
               extent(out.shape[1]),       extent(out.shape[2]),       extent(weight.kernel[0]),   extent(weight.kernel[1]),
               extent(weight.kernel[2]),   conv.stride[0],             conv.stride[1],             conv.stride[2],
               conv.padTop[0],             conv.padTop[1]};
  const int64_t outFrame = out.elements() / out.shape[0], inFrame = x.elements() / x.shape[0];
  const double flopsPerFrame = 2.0 * static_cast<double>(outFrame) * static_cast<double>(weight.inputs * weight.kernel[0] * weight.kernel[1] * weight.kernel[2]);
  linearFlops_ += flopsPerFrame * static_cast<double>(out.shape[0]);
  const int64_t most = std::max<int64_t>(1, static_cast<int64_t>(mostFlopsPerLaunch() / flopsPerFrame));
  for (int64_t from = 0; from < out.shape[0]; from += most) {
    const int64_t frames = std::min(most, out.shape[0] - from);
    const auto at = [&](const Tensor& tensor, int64_t frame, int64_t perFrame) { return tensor.address + static_cast<size_t>(frame * perFrame) * elementBytes(tensor.dtype); };
    job.x = at(x, from * conv.stride[0], inFrame);
    job.out = at(out, from, outFrame);
    job.residual = residual ? at(residual, from, outFrame) : nullptr;
    job.shape.outFrames = extent(frames);
    run(Kind::Linears, "a convolution", flopsPerFrame * static_cast<double>(frames), static_cast<double>(frames) * static_cast<double>((inFrame + outFrame) * elementSize(x)),
        [&](tile::Stream stream) { cuda::conv3d(job, stream); });
  }
}

void DeviceBackend::channelNorm(const Tensor& x, const Tensor& gamma, bool silu, const Tensor& out) {
  ChannelNormJob job;
  job.x = x.address;
  job.gamma = reinterpret_cast<const float*>(gamma.address);
  job.silu = silu;
  job.out = out.address;
  job.type = x.dtype;
  job.channels = static_cast<int32_t>(x.shape[x.shape.rank - 1]);
  job.pixels = x.elements() / job.channels;
  run(Kind::Other, "a channel norm", 0, 2 * bytesOf(x), [&](tile::Stream stream) { cuda::channelNorm(job, stream); });
}

void DeviceBackend::upsample2x(const Tensor& x, const Tensor& out) {
  run(Kind::Other, "upsampling", 0, bytesOf(x) + bytesOf(out), [&](tile::Stream stream) {
    cuda::upsample2x(x.address, out.address, elementSize(x), x.shape[0] * x.shape[1], static_cast<int32_t>(x.shape[2]), static_cast<int32_t>(x.shape[3]), stream);
  });
}

void DeviceBackend::channelsToFrames(const Tensor& x, const Tensor& out) {
  run(Kind::Other, "spreading channels over frames", 0, 2 * bytesOf(x), [&](tile::Stream stream) {
    cuda::channelsToFrames(x.address, out.address, elementSize(x), x.shape[0], x.shape[1] * x.shape[2], static_cast<int32_t>(x.shape[3] / 2), stream);
  });
}

}  // namespace vmoba::cuda
