// Entry points of the emulated device's library: the CUDA backend and its kernels on the CPU, for verification.
#include <cstdlib>

#include "native/backends/cuda/device_backend.h"
#include "native/backends/cuda/emulated_runtime.h"
#include "native/backends/device_library.h"

namespace {

using namespace vmoba;

std::vector<DeviceInfo> list() { return {cuda::describeEmulated()}; }

std::unique_ptr<Backend> make(const std::string& device, const BackendOptions& options) {
  const cuda::EmulatedFaults faults = cuda::EmulatedFaults::fromEnvironment();
  unsetenv("VMOBA_EMULATED_REFUSE_AT");  // planted once: the smaller plan's backend finds memory
  return std::make_unique<cuda::DeviceBackend>(device, cuda::makeEmulatedRuntime(faults), nullptr, options);
}

const BackendLibrary library{list, make};

}  // namespace

extern "C" VMOBA_BACKEND_EXPORT const char* vmobaBackendAbi() { return VMOBA_BACKEND_ABI; }
extern "C" VMOBA_BACKEND_EXPORT const BackendLibrary* vmobaBackendLibrary() { return &library; }
