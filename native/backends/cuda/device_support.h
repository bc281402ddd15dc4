// Which GPUs can be used, and in words a person can act on why the others cannot. Pure: what was probed goes in, descriptions
// come out, so every refusal is tested without a GPU.
#pragma once
#include <string>
#include <vector>

#include "native/backends/cuda/device_runtime.h"

namespace vmoba::cuda {

struct Probe {
  int driverVersion = 0;    ///< CUDA version the driver supports, as 1000*major + 10*minor; 0 = no driver
  int runtimeVersion = 0;   ///< CUDA version this library was built with
  std::string failure;      ///< what the runtime said when it could not count devices; empty = it could
  std::vector<DeviceFacts> devices;
};

constexpr int kLeastMajor = 8;                            ///< Ampere: bf16 tensor cores, asynchronous copies
constexpr size_t kLeastMemoryBytes = size_t{3} << 30;     ///< a 1.3B transformer streamed, one small clip, and the desktop

/// One entry per device, or a single unusable "cuda:0" that says why there is none.
std::vector<DeviceInfo> describeDevices(const Probe& probe);

}  // namespace vmoba::cuda
