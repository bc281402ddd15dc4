// Products, norms and element-wise operations of the transformer, the text encoder and the sampler.
#include <algorithm>

#include "kernels/cuda/elements.h"
#include "kernels/cuda/latent.h"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/multiply.h"
#include "kernels/cuda/rows.h"
#include "native/backends/cuda/device_backend.h"
#include "native/base/error.h"

namespace vmoba::cuda {
namespace {

const float* floats(const Tensor& tensor) { return reinterpret_cast<const float*>(tensor.address); }
float* mutableFloats(const Tensor& tensor) { return reinterpret_cast<float*>(tensor.address); }
int32_t width(const Tensor& tensor) { return static_cast<int32_t>(tensor.shape[tensor.shape.rank - 1]); }
double bytesOf(const Tensor& tensor) { return static_cast<double>(tensor.bytes()); }

Function functionOf(Activation activation) {
  switch (activation) {
    case Activation::GeluTanh: return Function::GeluTanh;
    case Activation::GeluErf: return Function::GeluErf;
    case Activation::Silu: return Function::Silu;
    case Activation::None: break;
  }
  return Function::None;
}

PatchShape patchShape(const Tensor& latent, std::array<int32_t, 3> patch) {
  const auto extent = [&](int axis) { return static_cast<int32_t>(latent.shape[axis]); };
  return {extent(0), extent(1), extent(2), extent(3), patch[0], patch[1], patch[2]};
}

}  // namespace

void DeviceBackend::linear(const Tensor& x, const LinearWeight& generic, const Tensor& out, Activation activation) {
  const auto& weight = static_cast<const DeviceLinear&>(generic);
  loader_->await(*weight.arrival);
  const int64_t rows = x.elements() / weight.inputs;
  const double flopsPerRow = 2.0 * static_cast<double>(weight.inputs) * static_cast<double>(weight.outputs);
  linearFlops_ += flopsPerRow * static_cast<double>(rows);
  const Function function = functionOf(activation);
  const bool byLibrary = library_ && x.dtype == DType::BF16;
  if (byLibrary && !workspace_) workspace_ = allocate(DType::U8, {static_cast<int64_t>(CublasLt::workspaceBytes)});
  const int64_t most = std::max<int64_t>(128, static_cast<int64_t>(mostFlopsPerLaunch() / flopsPerRow) / 128 * 128);
  if (!weight.parts.empty() && byLibrary && linearInFp8(x, weight, out, function, most)) return;
  const Tensor values = weight.parts.empty() ? weight.values : dequantised(weight);
  for (int64_t from = 0; from < rows; from += most) {
    const int64_t n = std::min(most, rows - from);
    const std::byte* source = x.address + static_cast<size_t>(from * weight.inputs) * elementBytes(x.dtype);
    std::byte* destination = out.address + static_cast<size_t>(from * weight.outputs) * elementBytes(out.dtype);
    const double bytes = static_cast<double>(n) * static_cast<double>(weight.inputs * 2 + weight.outputs * 2) + bytesOf(values);
    run(Kind::Linears, "a matrix product", flopsPerRow * static_cast<double>(n), bytes, [&](tile::Stream stream) {
      const Tensor& libraryBias = out.dtype == DType::F32 ? weight.bias : weight.biasInType;
      if (byLibrary && library_->linear({DType::BF16, source, values.address, libraryBias.address, destination, out.dtype, n, weight.outputs, weight.inputs, weight.outputs, function},
                                        workspace_.address, stream.handle))
        return;
      LinearJob job;
      job.type = x.dtype;
      job.outType = out.dtype;
      job.x = source;
      job.weight = values.address;
      job.bias = weight.bias ? floats(weight.bias) : nullptr;
      job.out = destination;
      job.m = n;
      job.n = static_cast<int32_t>(weight.outputs);
      job.k = static_cast<int32_t>(weight.inputs);
      job.function = function;
      cuda::linear(job, stream);
    });
  }
}

void DeviceBackend::layerNorm(const Tensor& x, const Tensor& gain, const Tensor& offset, bool gainPlusOne, float eps, const Tensor& out) {
  LayerNormJob job;
  job.x = floats(x);
  job.gain = gain ? floats(gain) : nullptr;
  job.offset = offset ? floats(offset) : nullptr;
  job.gainPlusOne = gainPlusOne;
  job.eps = eps;
  job.out = out.address;
  job.outType = out.dtype;
  job.width = width(x);
  job.rows = x.elements() / job.width;
  run(Kind::Other, "a layer norm", 0, bytesOf(x) + bytesOf(out), [&](tile::Stream stream) { cuda::layerNorm(job, stream); });
}

void DeviceBackend::rmsNorm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) {
  RmsNormJob job;
  job.x = floats(x);
  job.weight = floats(weight);
  job.eps = eps;
  job.out = out.address;
  job.outType = out.dtype;
  job.width = width(x);
  job.rows = x.elements() / job.width;
  run(Kind::Other, "an RMS norm", 0, bytesOf(x) + bytesOf(out), [&](tile::Stream stream) { cuda::rmsNorm(job, stream); });
}

void DeviceBackend::addGated(const Tensor& x, const Tensor& y, const Tensor& gate) {
  AddGatedJob job;
  job.x = mutableFloats(x);
  job.y = y.address;
  job.yType = y.dtype;
  job.gate = gate ? floats(gate) : nullptr;
  job.width = width(x);
  job.rows = x.elements() / job.width;
  run(Kind::Other, "a gated add", 0, 2 * bytesOf(x) + bytesOf(y), [&](tile::Stream stream) { cuda::addGated(job, stream); });
}

void DeviceBackend::addVectors(const Tensor& a, const Tensor& b, const Tensor& out) {
  run(Kind::Other, "an addition", 0, 2 * bytesOf(a), [&](tile::Stream stream) {
    addRepeated(floats(a), floats(b), mutableFloats(out), a.elements(), b.elements(), stream);
  });
}

void DeviceBackend::activate(const Tensor& x, Activation activation, const Tensor& out) {
  run(Kind::Other, "an activation", 0, bytesOf(x) + bytesOf(out), [&](tile::Stream stream) {
    mapElements(x.address, x.dtype, out.address, out.dtype, functionOf(activation), x.elements(), stream);
  });
}

void DeviceBackend::multiply(const Tensor& a, const Tensor& b, const Tensor& out) {
  run(Kind::Other, "a product of elements", 0, 3 * bytesOf(a), [&](tile::Stream stream) {
    const auto of = [&]<class T>(T*) {
      cuda::multiply<T>(stream, reinterpret_cast<const T*>(a.address), reinterpret_cast<const T*>(b.address), reinterpret_cast<T*>(out.address), a.elements());
    };
    a.dtype == DType::BF16 ? of(static_cast<Bf16*>(nullptr)) : of(static_cast<float*>(nullptr));
  });
}

void DeviceBackend::convert(const Tensor& source, const Tensor& destination) {
  if (source.dtype == destination.dtype) return copy(destination, source);
  run(Kind::Other, "a conversion", 0, bytesOf(source) + bytesOf(destination), [&](tile::Stream stream) {
    mapElements(source.address, source.dtype, destination.address, destination.dtype, Function::None, source.elements(), stream);
  });
}

void DeviceBackend::patchify(const Tensor& latent, std::array<int32_t, 3> patch, const Tensor& rows) {
  run(Kind::Other, "patchify", 0, 2 * bytesOf(latent), [&](tile::Stream stream) {
    cuda::patchify(floats(latent), rows.address, rows.dtype, patchShape(latent, patch), stream);
  });
}

void DeviceBackend::unpatchify(const Tensor& rows, std::array<int32_t, 3> patch, const Tensor& latent) {
  run(Kind::Other, "unpatchify", 0, 2 * bytesOf(latent), [&](tile::Stream stream) {
    cuda::unpatchify(floats(rows), mutableFloats(latent), patchShape(latent, patch), stream);
  });
}

void DeviceBackend::combine(std::span<const Term> terms, const Tensor& out) {
  Combination job;
  if (terms.empty() || terms.size() > job.x.size()) throw Error(ErrorCode::Internal, "combine takes one to four terms");
  for (const Term& term : terms) {
    job.x[static_cast<size_t>(job.terms)] = floats(term.tensor);
    job.coefficient[static_cast<size_t>(job.terms++)] = term.coefficient;
  }
  job.out = mutableFloats(out);
  job.count = out.elements();
  run(Kind::Other, "a combination of latents", 0, static_cast<double>(terms.size() + 1) * bytesOf(out), [&](tile::Stream stream) { cuda::combine(job, stream); });
}

void DeviceBackend::projectChannels(const Tensor& x, const Tensor& factors, const Tensor& offset, const Tensor& out) {
  const auto channels = static_cast<int32_t>(factors.shape[0]);
  run(Kind::Other, "a projection of channels", 0, bytesOf(x) + bytesOf(out), [&](tile::Stream stream) {
    cuda::projectChannels(floats(x), floats(factors), floats(offset), mutableFloats(out), x.elements() / channels, channels, width(factors), stream);
  });
}

bool DeviceBackend::allFinite(const Tensor& x) {
  const Tensor found = allocate(DType::I32, {1});
  zero(found);
  run(Kind::Other, "a search for NaN", 0, bytesOf(x), [&](tile::Stream stream) {
    findNotFinite(floats(x), x.elements(), reinterpret_cast<uint32_t*>(found.address), stream);
  });
  int32_t any = 0;
  download(found, &any);
  return any == 0;
}

}  // namespace vmoba::cuda
