// Entry points of the CUDA backend's shared library.
#include "native/backends/cuda/cuda_runtime.h"
#include "native/backends/cuda/device_backend.h"
#include "native/backends/device_library.h"
#include "native/base/error.h"

namespace {

using namespace vmoba;

std::vector<DeviceInfo> list() { return cuda::describeDevices(cuda::probeCuda()); }

std::unique_ptr<Backend> make(const std::string& device, const BackendOptions& options) {
  const std::vector<DeviceInfo> devices = list();
  for (size_t i = 0; i < devices.size(); ++i) {
    if (devices[i].id != device) continue;
    if (!devices[i].usable) throw Error(ErrorCode::Unsupported, device + ": " + devices[i].reason, "device");
    auto runtime = cuda::makeCudaRuntime(static_cast<int>(i));
    const cuda::DeviceFacts facts = runtime->facts();
    std::string why;
    auto library = options.precision == Precision::BF16 ? cuda::CublasLt::open(&why, facts.major * 10 + facts.minor >= 89) : nullptr;
    return std::make_unique<cuda::DeviceBackend>(device, std::move(runtime), std::move(library), options);
  }
  throw Error(ErrorCode::Unsupported, "there is no GPU " + device, "device");
}

const BackendLibrary library{list, make};

}  // namespace

extern "C" VMOBA_BACKEND_EXPORT const char* vmobaBackendAbi() { return VMOBA_BACKEND_ABI; }
extern "C" VMOBA_BACKEND_EXPORT const BackendLibrary* vmobaBackendLibrary() { return &library; }
