// Linear weights that stay in fp8 on the device: multiplied as they are where the library can, with the activations rounded to fp8 for
// it, and dequantised before each product elsewhere (which costs little beside a video's thousands of rows, and the same bits).
// Off unless VMOBA_FP8=1: the library's fp8 products have never run.
#include <algorithm>

#include "kernels/cuda/dequantise.h"
#include "kernels/cuda/quantise.h"
#include "native/backends/cuda/device_backend.h"

namespace vmoba::cuda {

Tensor DeviceBackend::dequantised(const DeviceLinear& weight) {
  const Tensor values = allocate(activationType(), weight.values.shape);
  for (const DeviceLinear::Part& part : weight.parts) {
    const Tensor from = weight.values.rows(part.first, part.first + part.rows), to = values.rows(part.first, part.first + part.rows);
    run(Kind::Linears, "dequantising weights", 0, 3.0 * static_cast<double>(from.bytes()), [&](tile::Stream stream) {
      dequantiseScaled(from.address, from.dtype, part.scale, to.address, to.dtype, from.elements(), stream);
    });
  }
  return values;
}

bool DeviceBackend::linearInFp8(const Tensor& x, const DeviceLinear& weight, const Tensor& out, Function function, int64_t mostRows) {
  if (!library_->multipliesFp8()) return false;
  const Tensor narrow = allocate(DType::F8E4M3, {x.elements() / weight.inputs, weight.inputs}), scale = allocate(DType::F32, {2});
  const auto* xScale = reinterpret_cast<const float*>(scale.address);
  const auto* weightScales = reinterpret_cast<const float*>(weight.scales.address);
  zero(scale);
  run(Kind::Linears, "quantising activations", 0, 5.0 * static_cast<double>(narrow.bytes()), [&](tile::Stream stream) {
    quantiseE4m3(reinterpret_cast<const Bf16*>(x.address), reinterpret_cast<uint8_t*>(narrow.address), reinterpret_cast<float*>(scale.address), x.elements(), stream);
  });
  for (int64_t from = 0; from < narrow.shape[0]; from += mostRows) {
    const int64_t rows = std::min(mostRows, narrow.shape[0] - from);
    for (size_t i = 0; i < weight.parts.size(); ++i) {
      const DeviceLinear::Part& part = weight.parts[i];
      BlasLinear job{DType::F8E4M3};
      job.x = narrow.rows(from, from + rows).address;
      job.weight = weight.values.rows(part.first, part.first + part.rows).address;
      job.bias = weight.biasInType ? weight.biasInType.rows(part.first, part.first + part.rows).address : nullptr;
      job.out = out.address + static_cast<size_t>(from * weight.outputs + part.first) * elementBytes(out.dtype);
      job.outType = out.dtype;
      job.m = rows;
      job.n = part.rows;
      job.k = weight.inputs;
      job.outStride = weight.outputs;
      job.function = function;
      job.xScale = xScale;
      job.weightScale = weightScales + i;
      bool done = false;
      const double flops = 2.0 * static_cast<double>(rows) * static_cast<double>(part.rows) * static_cast<double>(weight.inputs);
      const double bytes = static_cast<double>(rows * (weight.inputs + 2 * part.rows) + part.rows * weight.inputs);
      run(Kind::Linears, "a matrix product", flops, bytes, [&](tile::Stream stream) { done = library_->linear(job, workspace_.address, stream.handle); });
      if (!done) return false;
    }
  }
  return true;
}

}  // namespace vmoba::cuda
