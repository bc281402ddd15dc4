#include "native/backends/cuda/emulated_runtime.h"

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <mutex>
#include <new>

#include "native/base/error.h"

namespace vmoba::cuda {
namespace {

using Clock = std::chrono::steady_clock;

struct EmulatedEvent final : DeviceEvent {
  bool onCopyStream = false;
  bool done = true;
  Clock::time_point at = Clock::now();
};

std::byte* newBytes(size_t bytes) { return static_cast<std::byte*>(::operator new(bytes, std::align_val_t{256}, std::nothrow)); }
void deleteBytes(std::byte* address) { ::operator delete(address, std::align_val_t{256}); }

class EmulatedRuntime final : public DeviceRuntime {
 public:
  explicit EmulatedRuntime(const EmulatedFaults& faults) : faults_(faults) {}

  DeviceFacts facts() const override {
    DeviceFacts facts;
    facts.name = "emulated GPU";
    facts.major = 8;
    facts.multiprocessors = 2;
    facts.sharedBytesPerBlock = 163 * 1024;  // of an A100
    facts.memoryBytes = faults_.memoryBytes;
    facts.warpgroups = true;
    facts.peakFlops = 1e9;
    return facts;
  }
  size_t freeBytes() override {
    const std::lock_guard lock(mutex_);
    return faults_.memoryBytes - held_;
  }

  std::byte* allocate(size_t bytes) override {
    const std::lock_guard lock(mutex_);
    ++allocations_;
    const bool refused = faults_.refuseAllocation != 0 && allocations_ >= faults_.refuseAllocation && allocations_ < faults_.refuseAllocation + faults_.refusedAllocations;
    if (refused || held_ + bytes > faults_.memoryBytes) return nullptr;
    std::byte* address = newBytes(bytes);
    if (address == nullptr) return nullptr;
    held_ += bytes;
    sizes_[address] = bytes;
    return address;
  }
  void free(std::byte* address) noexcept override {
    const std::lock_guard lock(mutex_);
    drainCopies(nullptr);  // as cudaFree does
    const auto found = sizes_.find(address);
    if (found == sizes_.end()) return;
    held_ -= found->second;
    sizes_.erase(found);
    deleteBytes(address);
  }
  std::byte* allocatePinned(size_t bytes) override { return newBytes(bytes); }
  void freePinned(std::byte* address) noexcept override { deleteBytes(address); }

  void copyToDevice(StreamId stream, std::byte* device, const std::byte* host, size_t bytes) override { copy(stream, device, host, bytes); }
  void copyToHost(StreamId stream, std::byte* host, const std::byte* device, size_t bytes) override { copy(stream, host, device, bytes); }
  void copyOnDevice(StreamId stream, std::byte* destination, const std::byte* source, size_t bytes) override { copy(stream, destination, source, bytes); }
  void zero(StreamId stream, std::byte* device, size_t bytes) override {
    submit(stream, [=] { std::memset(device, 0, bytes); });
  }

  std::unique_ptr<DeviceEvent> makeEvent() override { return std::make_unique<EmulatedEvent>(); }
  void record(DeviceEvent& generic, StreamId stream) override {
    const std::lock_guard lock(mutex_);
    requireAlive();
    auto& event = static_cast<EmulatedEvent&>(generic);
    event.onCopyStream = stream == StreamId::Copy;
    event.done = !event.onCopyStream;
    event.at = Clock::now();
    if (event.onCopyStream) copies_.push_back({{}, &event});
  }
  void wait(StreamId stream, const DeviceEvent& generic) override {
    const std::lock_guard lock(mutex_);
    requireAlive();
    const auto& event = static_cast<const EmulatedEvent&>(generic);
    // What the copy stream waits for on the compute stream has already run.
    if (stream == StreamId::Compute && !event.done) drainCopies(&event);
  }
  bool reached(const DeviceEvent& generic) override {
    const std::lock_guard lock(mutex_);
    requireAlive();
    const auto& event = static_cast<const EmulatedEvent&>(generic);
    if (!event.done) drainCopies(&event);
    return true;
  }
  double secondsBetween(const DeviceEvent& from, const DeviceEvent& to) override {
    return std::chrono::duration<double>(static_cast<const EmulatedEvent&>(to).at - static_cast<const EmulatedEvent&>(from).at).count();
  }
  void synchronize(StreamId stream) override {
    const std::lock_guard lock(mutex_);
    requireAlive();
    if (stream == StreamId::Copy) drainCopies(nullptr);
  }

  void launch(StreamId stream, const char* operation, const std::function<void(void*)>& enqueue) override {
    {
      const std::lock_guard lock(mutex_);
      if (faults_.loseDeviceAtLaunch != 0 && ++launches_ >= faults_.loseDeviceAtLaunch) lost_ = operation;
      requireAlive();
    }
    if (stream == StreamId::Copy) {
      const std::lock_guard lock(mutex_);
      copies_.push_back({[enqueue] { enqueue(nullptr); }, nullptr});
    } else {
      enqueue(nullptr);
    }
  }
  void bindThread() override {}
  void reissued(std::byte* address, size_t bytes) override { std::memset(address, 0xff, bytes); }

 private:
  struct Late {
    std::function<void()> work;
    EmulatedEvent* event;
  };

  void copy(StreamId stream, std::byte* destination, const std::byte* source, size_t bytes) {
    submit(stream, [=] { std::memmove(destination, source, bytes); });
  }
  void submit(StreamId stream, std::function<void()> work) {
    const std::lock_guard lock(mutex_);
    requireAlive();
    if (stream == StreamId::Copy) {
      copies_.push_back({std::move(work), nullptr});
    } else {
      work();
    }
  }
  /// Runs the copy stream up to `last`, or all of it.
  void drainCopies(const EmulatedEvent* last) {
    while (!copies_.empty()) {
      const Late next = std::move(copies_.front());
      copies_.pop_front();
      if (next.work) next.work();
      if (next.event == nullptr) continue;
      next.event->done = true;
      next.event->at = Clock::now();
      if (next.event == last) return;
    }
  }
  void requireAlive() const {
    if (lost_ != nullptr)
      throw Error(ErrorCode::DeviceLost, std::string("the GPU failed during ") + lost_ + ": planted fault; the render can be resumed on the CPU, or on the GPU after a restart");
  }

  EmulatedFaults faults_;
  std::mutex mutex_;
  std::map<std::byte*, size_t> sizes_;
  std::deque<Late> copies_;
  size_t held_ = 0;
  int64_t allocations_ = 0, launches_ = 0;
  const char* lost_ = nullptr;
};

int64_t number(const char* name, int64_t fallback) {
  const char* text = std::getenv(name);
  return text == nullptr ? fallback : std::strtoll(text, nullptr, 10);
}

}  // namespace

EmulatedFaults EmulatedFaults::fromEnvironment() {
  EmulatedFaults faults;
  faults.loseDeviceAtLaunch = number("VMOBA_EMULATED_LOSE_AT", 0);
  faults.refuseAllocation = number("VMOBA_EMULATED_REFUSE_AT", 0);
  faults.refusedAllocations = 2;  // a pool that is refused once gives back what it keeps and asks again
  faults.memoryBytes = static_cast<size_t>(number("VMOBA_EMULATED_MEMORY", int64_t{8} << 30));
  return faults;
}

std::shared_ptr<DeviceRuntime> makeEmulatedRuntime(const EmulatedFaults& faults) { return std::make_shared<EmulatedRuntime>(faults); }

DeviceInfo describeEmulated() {
  DeviceInfo info;
  info.id = info.kind = "emulated";
  info.name = "CUDA kernels run on the CPU, for verification only";
  info.memoryBytes = EmulatedFaults::fromEnvironment().memoryBytes;
  info.instructionSet = "emulated sm_80";
  info.precisions = {Precision::F32, Precision::BF16};
  return info;
}

}  // namespace vmoba::cuda
