// A device that is this machine's CPU: memory from the heap, kernels through kernels/emulation. The compute stream runs at
// once; the copy stream runs as late as CUDA allows (when something waits for it), so that a missing wait or a staging buffer
// reused too early gives wrong numbers in a test instead of rare ones on a GPU. Faults can be planted to test error paths.
#pragma once
#include <memory>

#include "native/backends/cuda/device_runtime.h"
#include "native/backends/cuda/device_support.h"

namespace vmoba::cuda {

/// Counted from 1; 0 = never.
struct EmulatedFaults {
  int64_t refuseAllocation = 0;  ///< the n-th device allocation is refused
  int64_t refusedAllocations = 1;///< and as many following ones, counted from it
  int64_t loseDeviceAtLaunch = 0;///< the n-th launch, and everything after it, fails
  size_t memoryBytes = size_t{8} << 30;
  /// From the environment (VMOBA_EMULATED_LOSE_AT, VMOBA_EMULATED_REFUSE_AT, VMOBA_EMULATED_MEMORY), for whole-program tests.
  static EmulatedFaults fromEnvironment();
};

std::shared_ptr<DeviceRuntime> makeEmulatedRuntime(const EmulatedFaults& faults = {});
DeviceInfo describeEmulated();

}  // namespace vmoba::cuda
