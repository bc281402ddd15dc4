// The little of a GPU's runtime that the backend needs: memory, streams, events, and a look at errors. Two implementations:
// the CUDA runtime, and an emulated one whose device memory is the heap and whose kernels run on the CPU (kernels/emulation).
// The backend above this interface is the same code for both, so tests without a GPU execute what a GPU executes.
//
// Errors: a refused allocation is null; everything else that fails throws Error{DeviceLost}, because after a failed launch
// or copy nothing on the device can be trusted.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "native/backends/backend.h"

namespace vmoba::cuda {

/// Facts that decide tile sizes, splits and limits.
struct DeviceFacts {
  std::string name;
  int major = 0, minor = 0;              ///< compute capability
  int multiprocessors = 1;
  size_t sharedBytesPerBlock = 0;        ///< opt-in limit
  size_t memoryBytes = 0;                ///< of the whole device
  bool warpgroups = false;               ///< kernels by wgmma run: a Hopper GPU, and compiled for sm_90a
  double peakFlops = 0;                  ///< rough bf16 tensor rate, for pacing only
};

enum class StreamId : uint8_t { Compute, Copy };

/// A point in a stream. Opaque; belongs to its runtime.
class DeviceEvent {
 public:
  virtual ~DeviceEvent() = default;
};

class DeviceRuntime {
 public:
  virtual ~DeviceRuntime() = default;

  virtual DeviceFacts facts() const = 0;
  virtual size_t freeBytes() = 0;
  virtual std::byte* allocate(size_t bytes) = 0;            ///< null when refused
  virtual void free(std::byte* address) noexcept = 0;
  virtual std::byte* allocatePinned(size_t bytes) = 0;      ///< host memory a copy engine can read; null when refused
  virtual void freePinned(std::byte* address) noexcept = 0;

  // Enqueued; `host` must be pinned and stay untouched until the copy is done.
  virtual void copyToDevice(StreamId stream, std::byte* device, const std::byte* host, size_t bytes) = 0;
  virtual void copyToHost(StreamId stream, std::byte* host, const std::byte* device, size_t bytes) = 0;
  virtual void copyOnDevice(StreamId stream, std::byte* destination, const std::byte* source, size_t bytes) = 0;
  virtual void zero(StreamId stream, std::byte* device, size_t bytes) = 0;

  virtual std::unique_ptr<DeviceEvent> makeEvent() = 0;
  virtual void record(DeviceEvent& event, StreamId stream) = 0;
  virtual void wait(StreamId stream, const DeviceEvent& event) = 0;   ///< later work of `stream` starts after the event
  virtual bool reached(const DeviceEvent& event) = 0;
  virtual double secondsBetween(const DeviceEvent& from, const DeviceEvent& to) = 0;  ///< both reached
  virtual void synchronize(StreamId stream) = 0;

  /// Enqueues kernels: `enqueue` launches them on the native stream it is given. Throws Error{DeviceLost} naming `operation`
  /// when a launch failed.
  virtual void launch(StreamId stream, const char* operation, const std::function<void(void* nativeStream)>& enqueue) = 0;
  /// Makes the device current for the calling thread; called once by every thread that uses the runtime.
  virtual void bindThread() = 0;
  /// A pool hands out `bytes` at `address` again. The emulated device fills them with NaN, so that a read of what nothing wrote shows.
  virtual void reissued(std::byte* /*address*/, size_t /*bytes*/) {}
};

}  // namespace vmoba::cuda
