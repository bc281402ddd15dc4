// From the host's memory to the device's. Two ways: small values go through pinned slots on the compute stream, in order with
// the work that reads them; weights go through a thread and the copy stream of their own, so that reading a mapped file,
// copying and dequantising layer i + 1 happen behind the computing of layer i.
#pragma once
#include <condition_variable>
#include <deque>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "native/backends/cuda/device_runtime.h"
#include "native/backends/cuda/wide_copy.h"
#include "native/backends/memory_pool.h"

namespace vmoba::cuda {

/// Pinned slots used in turn; a slot is filled again only after the copy out of it is done.
class PinnedSlots {
 public:
  /// `threads` fill a slot together.
  PinnedSlots(DeviceRuntime& runtime, size_t slots, size_t slotBytes, unsigned threads = 1);
  size_t slotBytes() const { return slotBytes_; }

  /// Enqueues host -> device on `stream` in pieces; `host` may be reused on return.
  void copyToDevice(StreamId stream, std::byte* device, const std::byte* host, size_t bytes);
  /// One piece of at most slotBytes: copied into a slot, then `enqueue(slot)`, which must only use `stream`.
  void through(StreamId stream, const std::byte* host, size_t bytes, const std::function<void(const std::byte*)>& enqueue);

 private:
  struct Slot {
    std::unique_ptr<std::byte, std::function<void(std::byte*)>> memory;  ///< pinned
    std::unique_ptr<DeviceEvent> done;
    bool busy = false;
  };
  Slot& next();

  DeviceRuntime& runtime_;
  size_t slotBytes_, turn_ = 0;
  std::vector<Slot> slots_;
  WideCopy fill_;
};

/// Set by the loader when the work that fills some memory has been enqueued; waited for by whoever reads it.
class Arrival {
 public:
  explicit Arrival(std::unique_ptr<DeviceEvent> event) : event_(std::move(event)) {}

 private:
  friend class WeightLoader;
  std::unique_ptr<DeviceEvent> event_;
  // Guarded by the loader's mutex:
  bool enqueued_ = false, awaited_ = false;
  std::shared_ptr<Storage> keep_;  ///< until the compute stream waits: from then on stream order protects the memory
  std::exception_ptr failure_;
};

class WeightLoader {
 public:
  WeightLoader(std::shared_ptr<DeviceRuntime> runtime, std::shared_ptr<MemoryPool> pool);
  ~WeightLoader();

  /// What a job may do; runs on the loader's thread.
  class Lane {
   public:
    Lane(DeviceRuntime& runtime, PinnedSlots& slots, std::byte* scratch) : runtime_(runtime), slots_(slots), scratch_(scratch) {}
    void copy(std::byte* device, const std::byte* host, size_t bytes) { slots_.copyToDevice(StreamId::Copy, device, host, bytes); }
    /// Host bytes in pieces of at most pieceBytes through device scratch: use(scratch, offset, bytes) enqueues what converts a piece.
    void convert(const std::byte* host, size_t bytes, size_t multiple, const std::function<void(const std::byte*, size_t, size_t)>& use);
    DeviceRuntime& runtime() { return runtime_; }

   private:
    DeviceRuntime& runtime_;
    PinnedSlots& slots_;
    std::byte* scratch_;
  };

  /// Runs `fill` later; `keep` (the memory it fills) stays alive until the device is done with it. The copy stream waits for all
  /// compute work enqueued before this call, because the memory may have been in use until then.
  std::shared_ptr<Arrival> load(std::shared_ptr<Storage> keep, std::function<void(Lane&)> fill);
  /// Before enqueuing compute work that reads what arrives. Throws what `fill` threw.
  void await(Arrival& arrival);
  /// Blocks until everything asked for has arrived.
  void finish();

 private:
  struct Job {
    std::shared_ptr<Arrival> arrival;
    std::unique_ptr<DeviceEvent> memoryFree;
    std::function<void(Lane&)> fill;
  };
  void work();
  void forgetArrived();

  std::shared_ptr<DeviceRuntime> runtime_;
  std::shared_ptr<MemoryPool> pool_;
  std::mutex mutex_;
  std::condition_variable wake_, progress_;
  std::deque<Job> queue_;
  std::vector<std::shared_ptr<Arrival>> inFlight_;  ///< enqueued, not awaited by anyone yet
  size_t open_ = 0;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace vmoba::cuda
