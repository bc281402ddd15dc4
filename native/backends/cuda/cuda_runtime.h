// The CUDA runtime behind DeviceRuntime. The runtime is linked statically: the library loads on machines without a driver and
// reports that there is none.
#pragma once
#include <memory>

#include "native/backends/cuda/device_runtime.h"
#include "native/backends/cuda/device_support.h"

namespace vmoba::cuda {

/// Looks at driver and devices without creating a context on any of them.
Probe probeCuda();
std::shared_ptr<DeviceRuntime> makeCudaRuntime(int ordinal);

}  // namespace vmoba::cuda
