// Starting a kernel (see tile.h for what one is) on a stream: on the GPU under nvcc, in the emulator otherwise.
#pragma once
#include <string>

#include "kernels/cuda/tile/tile.h"
#include "native/base/error.h"

namespace vmoba::tile {

#ifdef __CUDACC__

/// Throws Error{OutOfMemory} or Error{DeviceLost} naming `what` unless `status` is success.
inline void check(cudaError_t status, const char* what) {
  if (status == cudaSuccess) return;
  const auto code = status == cudaErrorMemoryAllocation ? ErrorCode::OutOfMemory : ErrorCode::DeviceLost;
  throw Error(code, std::string("the GPU failed in ") + what + ": " + cudaGetErrorString(status));
}

/// Shared memory of one multiprocessor of the current device, which decides how many thread blocks run beside each other.
inline int sharedBytesPerMultiprocessor(Stream) {
  int device = 0, bytes = 0;
  check(cudaGetDevice(&device), "reading the device");
  check(cudaDeviceGetAttribute(&bytes, cudaDevAttrMaxSharedMemoryPerMultiprocessor, device), "reading the device");
  return bytes;
}

inline int multiprocessors(Stream) {
  int device = 0, count = 0;
  check(cudaGetDevice(&device), "reading the device");
  check(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device), "reading the device");
  return count;
}

template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads, Kernel::blocksPerSM) entry(const __grid_constant__ typename Kernel::Arguments arguments) {
#if defined(__CUDA_ARCH__) && !defined(__CUDA_ARCH_FEAT_SM90_ALL)
  if constexpr (needsWarpgroups<Kernel>) {
    __trap();  // never launched: DeviceFacts::warpgroups is false
  } else {
    Kernel::run(arguments);
  }
#else
  Kernel::run(arguments);
#endif
}

template <class Kernel>
void launch(Stream stream, Extent grid, int sharedBytes, const typename Kernel::Arguments& arguments) {
  if (sharedBytes > 48 * 1024)
    check(cudaFuncSetAttribute(entry<Kernel>, cudaFuncAttributeMaxDynamicSharedMemorySize, sharedBytes), Kernel::name);
  const dim3 blocks(static_cast<unsigned>(grid.x), static_cast<unsigned>(grid.y), static_cast<unsigned>(grid.z));
  entry<Kernel><<<blocks, Kernel::threads, static_cast<size_t>(sharedBytes), static_cast<cudaStream_t>(stream.handle)>>>(arguments);
  check(cudaGetLastError(), Kernel::name);
}

#else

inline int multiprocessors(Stream) { return 3; }  // few, so that thread blocks stay for several tiles of work

inline int sharedBytesPerMultiprocessor(Stream stream) {
  return stream.handle ? static_cast<const emulation::Options*>(stream.handle)->sharedBytesPerMultiprocessor : emulation::Options{}.sharedBytesPerMultiprocessor;
}

template <class Kernel>
void launch(Stream stream, Extent grid, int sharedBytes, const typename Kernel::Arguments& arguments) {
  static const emulation::Options plain;
  const auto& options = stream.handle ? *static_cast<const emulation::Options*>(stream.handle) : plain;
  emulation::runGrid({{grid.x, grid.y, grid.z}, Kernel::threads, static_cast<size_t>(sharedBytes), Kernel::name, needsWarpgroups<Kernel>}, options,
                     [&] { Kernel::run(arguments); });
}

#endif

constexpr int divideUp(int64_t a, int64_t b) { return static_cast<int>((a + b - 1) / b); }

}  // namespace vmoba::tile
