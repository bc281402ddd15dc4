// Memory, weights and control; the operations are in device_transformer.cpp, device_attention.cpp and device_vae.cpp.
#include "native/backends/cuda/device_backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

#include "kernels/cuda/conv3d.h"
#include "kernels/cuda/dequantise.h"
#include "native/base/error.h"

namespace vmoba::cuda {
namespace {

constexpr size_t kSlots = 64, kSlotBytes = size_t{256} << 10;

class DeviceMemory final : public MemorySource {
 public:
  explicit DeviceMemory(std::shared_ptr<DeviceRuntime> runtime) : runtime_(std::move(runtime)) {}
  std::byte* allocate(size_t bytes) override { return runtime_->allocate(bytes); }
  void free(std::byte* address) noexcept override { runtime_->free(address); }
  const char* description() const override { return "the GPU"; }

 private:
  std::shared_ptr<DeviceRuntime> runtime_;
};

/// The desktop, other programs and the driver's own needs keep a tenth, at least half a gigabyte where that leaves most of it.
size_t limitFor(DeviceRuntime& runtime, size_t asked) {
  const size_t free = runtime.freeBytes();
  const size_t usable = free - std::min(free / 4, std::max(free / 10, size_t{512} << 20));
  return asked == 0 ? usable : std::min(asked, usable);
}

bool says(const char* variable, const char* value) { return std::getenv(variable) != nullptr && std::strcmp(std::getenv(variable), value) == 0; }

bool isPlain(const WeightView& view, DType type) { return view.dtype == type && view.scale == 1.0f; }

}  // namespace

DeviceBackend::DeviceBackend(std::string name, std::shared_ptr<DeviceRuntime> runtime, std::unique_ptr<CublasLt> library, const BackendOptions& options)
    : name_(std::move(name)),
      precision_(options.precision),
      runtime_(std::move(runtime)),
      library_(std::move(library)),
      keepFp8_(precision_ == Precision::BF16 && says("VMOBA_FP8", "1")),
      hopper_(precision_ == Precision::BF16 && runtime_->facts().warpgroups && !says("VMOBA_HOPPER", "0")),
      wideTiles_(hopper_ && says("VMOBA_HOPPER", "wide")),
      pool_(std::make_shared<MemoryPool>(std::make_unique<DeviceMemory>(runtime_), limitFor(*runtime_, options.memoryLimitBytes))),
      slots_(*runtime_, kSlots, kSlotBytes),
      timeline_(*runtime_, [this] { poll(); }),
      loader_(std::make_unique<WeightLoader>(runtime_, pool_)) {
  notFinite_ = allocate(DType::I32, {1});
  zero(notFinite_);
}

DeviceBackend::~DeviceBackend() {
  loader_.reset();
  try {
    runtime_->synchronize(StreamId::Compute);  // the device may still read the pinned slots
  } catch (const Error&) {                     // a lost device reads nothing more
  }
}

std::string DeviceBackend::instructionSet() const {
  const DeviceFacts facts = runtime_->facts();
  const std::string products = library_ && precision_ == Precision::BF16 ? library_->name() : "own products";
  return "sm_" + std::to_string(facts.major) + std::to_string(facts.minor) + ", " + products + (keepFp8_ ? " with fp8" : "") + (wideTiles_ ? ", attention by wgmma in wide tiles" : hopper_ ? ", attention by wgmma" : "");
}

void DeviceBackend::poll() {
  beat();
  if (cancel_ != nullptr && cancel_->load(std::memory_order_relaxed)) afterWork_.clear();
  throwIfCancelled();
}

void DeviceBackend::run(Kind kind, const char* operation, double flops, double bytes, const std::function<void(tile::Stream)>& enqueue) {
  poll();
  timeline_.begin(kind);
  runtime_->launch(StreamId::Compute, operation, [&](void* native) { enqueue({native}); });
  timeline_.enqueued(flops, bytes);
}

/// About a tenth of a second, so that no launch comes near a desktop's watchdog. Strict f32 runs on the scalar units.
double DeviceBackend::mostFlopsPerLaunch() const { return runtime_->facts().peakFlops * (precision_ == Precision::BF16 ? 0.03 : 0.002); }

Tensor DeviceBackend::allocate(DType dtype, Shape shape) {
  Tensor tensor;
  tensor.dtype = dtype;
  tensor.shape = shape;
  try {
    tensor.storage = pool_->allocate(tensor.bytes(), &tensor.address);
  } catch (const Error&) {
    afterWork_.clear();
    throw;
  }
  runtime_->reissued(tensor.address, tensor.bytes());
  return tensor;
}

void DeviceBackend::upload(const Tensor& destination, const void* host) {
  slots_.copyToDevice(StreamId::Compute, destination.address, static_cast<const std::byte*>(host), destination.bytes());
}

template <class T>
Tensor DeviceBackend::uploaded(DType type, std::span<const T> values) {
  const Tensor tensor = allocate(type, {static_cast<int64_t>(values.size())});
  upload(tensor, values.data());
  return tensor;
}
template Tensor DeviceBackend::uploaded(DType, std::span<const int32_t>);
template Tensor DeviceBackend::uploaded(DType, std::span<const uint8_t>);

void DeviceBackend::download(const Tensor& source, void* host) {
  if (!landing_) landing_ = {runtime_->allocatePinned(kLandingBytes), [runtime = runtime_](std::byte* memory) { runtime->freePinned(memory); }};
  if (!landing_) throw Error(ErrorCode::OutOfMemory, "the system refused pinned memory for copies from the GPU");
  for (size_t from = 0; from < source.bytes(); from += kLandingBytes) {
    const size_t n = std::min(kLandingBytes, source.bytes() - from);
    runtime_->copyToHost(StreamId::Compute, landing_.get(), source.address + from, n);
    timeline_.drain();
    std::memcpy(static_cast<std::byte*>(host) + from, landing_.get(), n);
  }
}

void DeviceBackend::copy(const Tensor& destination, const Tensor& source) {
  timeline_.begin(Kind::Other);
  runtime_->copyOnDevice(StreamId::Compute, destination.address, source.address, source.bytes());
  timeline_.enqueued(0, 2.0 * static_cast<double>(source.bytes()));
}

void DeviceBackend::zero(const Tensor& tensor) { runtime_->zero(StreamId::Compute, tensor.address, tensor.bytes()); }

void DeviceBackend::synchronize() {
  timeline_.drain();
  const auto results = std::exchange(afterWork_, {});
  for (const auto& result : results) result();
  requireFinite();
}

void DeviceBackend::requireFinite() {
  int32_t fault = 0;
  download(notFinite_, &fault);
  if (fault == 0) return;
  zero(notFinite_);
  throw Error(ErrorCode::NumericalFault, "attention met NaN or infinity: the checkpoint may be damaged, or needs f32 precision");
}

KindSeconds DeviceBackend::takeSeconds() {
  synchronize();
  KindSeconds seconds = timeline_.take();
  seconds.linearFlops = std::exchange(linearFlops_, 0);
  return seconds;
}

// Weights ------------------------------------------------------------------------------------------------------------

Tensor DeviceBackend::makeBias(std::span<const WeightView* const> biases) {
  std::vector<float> values;
  for (const WeightView* view : biases) {
    const std::vector<float> part = view->toFloat();
    values.insert(values.end(), part.begin(), part.end());
  }
  return values.empty() ? Tensor{} : makeVector(values);
}

std::shared_ptr<LinearWeight> DeviceBackend::makeLinear(std::span<const WeightView* const> weights, std::span<const WeightView* const> biases) {
  auto linear = std::make_shared<DeviceLinear>();
  linear->inputs = weights[0]->elements() / weights[0]->shape[0];
  const bool fp8 = keepFp8_ && std::all_of(weights.begin(), weights.end(), [](const WeightView* weight) { return weight->dtype == DType::F8E4M3; });
  const DType type = fp8 ? DType::F8E4M3 : activationType();
  std::vector<float> scales;
  for (const WeightView* weight : weights) {
    if (fp8) linear->parts.push_back({linear->outputs, weight->shape[0], weight->scale});
    scales.push_back(weight->scale);
    linear->outputs += weight->shape[0];
  }
  if (fp8) linear->scales = makeVector(scales);
  linear->values = allocate(type, {linear->outputs, linear->inputs});
  linear->bias = makeBias(biases);
  if (linear->bias && library_ && precision_ == Precision::BF16) {
    linear->biasInType = allocate(DType::BF16, linear->bias.shape);
    convert(linear->bias, linear->biasInType);
  }
  linear->bytes = linear->values.bytes() + (linear->bias ? linear->bias.bytes() : 0);
  std::vector<WeightView> views;
  for (const WeightView* weight : weights) views.push_back(*weight);
  linear->arrival = loader_->load(linear->values.storage, [views, type, fp8, to = linear->values.address](WeightLoader::Lane& lane) {
    std::byte* at = to;
    for (const WeightView& view : views) {
      const size_t size = elementBytes(view.dtype);
      if (fp8 || isPlain(view, type)) {
        lane.copy(at, view.data, view.bytes);
      } else {
        lane.convert(view.data, view.bytes, size, [&](const std::byte* piece, size_t offset, size_t bytes) {
          std::byte* destination = at + offset / size * elementBytes(type);
          lane.runtime().launch(StreamId::Copy, "dequantising weights", [=, dtype = view.dtype, scale = view.scale](void* native) {
            dequantiseScaled(piece, dtype, scale, destination, type, static_cast<int64_t>(bytes / size), {native});
          });
        });
      }
      at += static_cast<size_t>(view.elements()) * elementBytes(type);
      view.release();
    }
  });
  return linear;
}

std::shared_ptr<ConvWeight> DeviceBackend::makeConv(const WeightView& weight, const WeightView* bias) {
  if (weight.scale != 1.0f) throw Error(ErrorCode::Unsupported, weight.file + ": " + weight.name + ": scaled convolution weights are not supported on the GPU");
  auto conv = std::make_shared<DeviceConv>();
  conv->outputs = weight.shape[0];
  conv->inputs = weight.shape[1];
  const size_t spatial = weight.shape.size() - 2;
  for (size_t i = 0; i < spatial; ++i) conv->kernel[3 - spatial + i] = weight.shape[2 + i];
  const DType type = activationType();
  const int64_t taps = conv->kernel[0] * conv->kernel[1] * conv->kernel[2];
  conv->values = allocate(type, {conv->outputs, taps, conv->inputs});
  if (bias != nullptr) conv->bias = makeBias(std::span(&bias, 1));
  conv->bytes = conv->values.bytes() + (conv->bias ? conv->bias.bytes() : 0);
  // The stored order lies on the device until it is rearranged.
  const Tensor stored = allocate(weight.dtype, {weight.elements()});
  struct Both final : Storage {
    std::shared_ptr<Storage> values, stored;
  };
  auto both = std::make_shared<Both>();
  both->values = conv->values.storage;
  both->stored = stored.storage;
  conv->arrival = loader_->load(both, [view = weight, type, taps, from = stored.address, to = conv->values.address](WeightLoader::Lane& lane) {
    lane.copy(from, view.data, view.bytes);
    lane.runtime().launch(StreamId::Copy, "arranging a convolution's weights", [=, dtype = view.dtype, outputs = view.shape[0], inputs = view.shape[1]](void* native) {
      arrangeConvWeight(from, dtype, to, type, outputs, inputs, taps, {native});
    });
    view.release();
  });
  return conv;
}

}  // namespace vmoba::cuda
