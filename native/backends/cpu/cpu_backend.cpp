#include "native/backends/cpu/cpu_backend.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <new>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/rows/rows.h"
#include "kernels/cpu/tile.h"
#include "native/base/error.h"
#include "native/base/large_memory.h"
#include "native/base/parallel.h"

#if defined(__linux__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace vmoba::cpu {
namespace {

std::string processorName() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);)
    if (line.rfind("model name", 0) == 0) return line.substr(line.find(':') + 2);
  return "CPU";
}

size_t physicalMemoryBytes() {
#if defined(_SC_PHYS_PAGES)
  return static_cast<size_t>(sysconf(_SC_PHYS_PAGES)) * static_cast<size_t>(sysconf(_SC_PAGE_SIZE));
#else
  return 0;
#endif
}

struct Heap final : MemorySource {
  std::byte* allocate(size_t bytes) override { return allocateLarge(bytes); }
  void free(std::byte* address) noexcept override { freeLarge(address); }
  const char* description() const override { return "the system"; }
};

/// All weights stacked row by row, converted to `type`, in fresh memory.
std::vector<std::byte> stack(std::span<const WeightView* const> views, DType type, int64_t rows, int64_t width) {
  std::vector<std::byte> stacked(static_cast<size_t>(rows * width) * elementBytes(type));
  std::byte* at = stacked.data();
  for (const WeightView* view : views) {
    const int64_t count = view->elements();
    if (view->dtype == type && view->scale == 1.0f) {
      std::memcpy(at, view->data, view->bytes);
    } else {
      std::vector<float> values(static_cast<size_t>(count));
      view->toFloat(values);
      convert(values.data(), DType::F32, at, type, count);
    }
    at += static_cast<size_t>(count) * elementBytes(type);
    view->release();
  }
  return stacked;
}

}  // namespace

bool hasFastBf16() { return ProductLibrary::hasFastBf16() && chooseTileKernel(DType::BF16, nullptr).element == DType::BF16; }

DeviceInfo describeCpu() {
  DeviceInfo info;
  info.id = info.kind = "cpu";
  info.name = processorName() + ", " + std::to_string(threadsFor(0)) + " threads";
  info.memoryBytes = physicalMemoryBytes();
  info.instructionSet = std::string(instructionSet(hasFastBf16() ? DType::BF16 : DType::F32)) + ", " + ProductLibrary::name();
  info.precisions = {Precision::F32};
  if (hasFastBf16()) info.precisions.push_back(Precision::BF16);
  return info;
}

std::unique_ptr<Backend> makeCpuBackend(const BackendOptions& options) {
  if (options.precision == Precision::BF16 && !hasFastBf16())
    throw Error(ErrorCode::Unsupported, "this processor or build has no bf16 arithmetic; use f32", "precision");
  return std::make_unique<CpuBackend>(options);
}

CpuBackend::CpuBackend(const BackendOptions& options)
    : precision_(options.precision),
      threads_(threadsFor(options.threads)),
      pool_(std::make_shared<MemoryPool>(std::make_unique<Heap>(), options.memoryLimitBytes)),
      products_(withMatrixUnit(ProductLibrary::make(activationType()))) {
  setThreadCount(threads_);
}

std::string CpuBackend::instructionSet() const {
  return std::string(cpu::instructionSet(activationType())) + ", " + ProductLibrary::name();
}

Tensor CpuBackend::allocate(DType dtype, Shape shape) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = shape;
  tensor.storage = pool_->allocate(tensor.bytes(), &tensor.address);
  return tensor;
}

void CpuBackend::upload(const Tensor& destination, const void* host) { std::memcpy(destination.address, host, destination.bytes()); }
void CpuBackend::download(const Tensor& source, void* host) { std::memcpy(host, source.address, source.bytes()); }
void CpuBackend::copy(const Tensor& destination, const Tensor& source) { std::memmove(destination.address, source.address, source.bytes()); }
void CpuBackend::zero(const Tensor& tensor) { std::memset(tensor.address, 0, tensor.bytes()); }

KindSeconds CpuBackend::takeSeconds() { return std::exchange(seconds_, KindSeconds{}); }

std::shared_ptr<LinearWeight> CpuBackend::makeLinear(std::span<const WeightView* const> weights, std::span<const WeightView* const> biases) {
  const Timed timed(*this, seconds_.other);
  int64_t outputs = 0;
  const int64_t inputs = weights[0]->elements() / weights[0]->shape[0];
  for (const WeightView* weight : weights) outputs += weight->shape[0];
  std::vector<float> bias;
  for (const WeightView* view : biases) {
    const std::vector<float> part = view->toFloat();
    bias.insert(bias.end(), part.begin(), part.end());
  }
  // A lone weight already in the right type needs no copy before packing.
  if (weights.size() == 1 && weights[0]->dtype == activationType() && weights[0]->scale == 1.0f) {
    auto packed = products_->packLinear(weights[0]->data, activationType(), outputs, inputs, bias);
    weights[0]->release();
    return packed;
  }
  const std::vector<std::byte> rows = stack(weights, activationType(), outputs, inputs);
  return products_->packLinear(rows.data(), activationType(), outputs, inputs, bias);
}

std::shared_ptr<ConvWeight> CpuBackend::makeConv(const WeightView& weight, const WeightView* bias) {
  const Timed timed(*this, seconds_.other);
  std::array<int64_t, 3> kernel{1, 1, 1};
  const size_t spatial = weight.shape.size() - 2;
  for (size_t i = 0; i < spatial; ++i) kernel[3 - spatial + i] = weight.shape[2 + i];
  const WeightView* one[] = {&weight};
  const std::vector<std::byte> values = stack(one, activationType(), weight.shape[0], weight.elements() / weight.shape[0]);
  std::vector<float> offsets;
  if (bias != nullptr) offsets = bias->toFloat();
  return products_->packConv(values.data(), activationType(), weight.shape[0], weight.shape[1], kernel, offsets);
}

}  // namespace vmoba::cpu
