#include "native/backends/backend.h"

#include "native/backends/cpu/cpu_backend.h"
#include "native/base/error.h"

namespace vmoba {

Tensor Backend::makeVector(std::span<const float> values) {
  Tensor tensor = allocate(DType::F32, {static_cast<int64_t>(values.size())});
  upload(tensor, values.data());
  return tensor;
}

Tensor Backend::makeVector(const WeightView& view) {
  const std::vector<float> values = view.toFloat();
  return makeVector(values);
}

void Backend::throwIfCancelled() const {
  if (cancel_ != nullptr && cancel_->load(std::memory_order_relaxed)) throw Error(ErrorCode::Cancelled, "cancelled");
}

std::vector<DeviceInfo> listDevices() { return {cpu::describeCpu()}; }

std::unique_ptr<Backend> makeBackend(const std::string& device, const BackendOptions& options) {
  if (device.empty() || device == "cpu") return cpu::makeCpuBackend(options);
  for (const DeviceInfo& info : listDevices())
    if (info.id == device && !info.usable) throw Error(ErrorCode::Unsupported, device + ": " + info.reason, "device");
  throw Error(ErrorCode::Unsupported, "unknown device '" + device + "': `devices` lists what this machine has", "device");
}

}  // namespace vmoba
