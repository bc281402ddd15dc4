// What becomes of pinned memory, and of memory that is being filled, when something fails on the way.
#include <gtest/gtest.h>

#include <set>

#include "native/backends/cuda/emulated_runtime.h"
#include "native/backends/cuda/upload.h"
#include "native/base/error.h"

namespace vmoba::cuda {
namespace {

/// Pinned memory and events, either of which is refused from some call on; nothing else.
class Scarce final : public DeviceRuntime {
 public:
  Scarce(size_t pinned, size_t events) : mostPinned_(pinned), mostEvents_(events) {}
  size_t pinned() const { return pinned_.size(); }
  size_t events() const { return events_; }

  std::byte* allocatePinned(size_t bytes) override {
    if (pinned_.size() == mostPinned_) return nullptr;
    return *pinned_.insert(new std::byte[bytes]).first;
  }
  void freePinned(std::byte* address) noexcept override {
    pinned_.erase(address);
    delete[] address;
  }
  std::unique_ptr<DeviceEvent> makeEvent() override {
    if (events_ == mostEvents_) throw Error(ErrorCode::DeviceLost, "no more events");
    return std::make_unique<Event>(events_);
  }

  DeviceFacts facts() const override { return {}; }
  size_t freeBytes() override { return 0; }
  std::byte* allocate(size_t) override { return nullptr; }
  void free(std::byte*) noexcept override {}
  void copyToDevice(StreamId, std::byte*, const std::byte*, size_t) override {}
  void copyToHost(StreamId, std::byte*, const std::byte*, size_t) override {}
  void copyOnDevice(StreamId, std::byte*, const std::byte*, size_t) override {}
  void zero(StreamId, std::byte*, size_t) override {}
  void record(DeviceEvent&, StreamId) override {}
  void wait(StreamId, const DeviceEvent&) override {}
  bool reached(const DeviceEvent&) override { return true; }
  double secondsBetween(const DeviceEvent&, const DeviceEvent&) override { return 0; }
  void synchronize(StreamId) override {}
  void launch(StreamId, const char*, const std::function<void(void*)>&) override {}
  void bindThread() override {}

 private:
  struct Event final : DeviceEvent {
    explicit Event(size_t& count) : count_(count) { ++count_; }
    ~Event() override { --count_; }
    size_t& count_;
  };
  size_t mostPinned_, mostEvents_, events_ = 0;
  std::set<std::byte*> pinned_;
};

TEST(PinnedSlots, GiveEverythingBackAlsoWhenNotAllCouldBeMade) {
  const auto make = [](Scarce& runtime) { PinnedSlots(runtime, 4, 64); };
  Scarce enough(4, 4), memory(3, 4), events(4, 2);
  EXPECT_NO_THROW(make(enough));
  EXPECT_THROW(make(memory), Error);
  EXPECT_THROW(make(events), Error);
  for (const Scarce* runtime : {&enough, &memory, &events}) {
    EXPECT_EQ(runtime->pinned(), 0u);
    EXPECT_EQ(runtime->events(), 0u);
  }
}

class EmulatedMemory final : public MemorySource {
 public:
  explicit EmulatedMemory(std::shared_ptr<DeviceRuntime> runtime) : runtime_(std::move(runtime)) {}
  std::byte* allocate(size_t bytes) override { return runtime_->allocate(bytes); }
  void free(std::byte* address) noexcept override { runtime_->free(address); }
  const char* description() const override { return "the test"; }

 private:
  std::shared_ptr<DeviceRuntime> runtime_;
};

/// Tells at its end whether what was copied into it had arrived.
struct Filled final : Storage {
  explicit Filled(bool& arrived) : arrived_(arrived) {}
  ~Filled() override { arrived_ = value == std::byte{7}; }
  std::byte value{};
  bool& arrived_;
};

TEST(WeightLoader, KeepsMemoryUntilTheDeviceIsDoneWithItAlsoWhenAJobFailsHalfway) {
  const auto runtime = makeEmulatedRuntime();  // copies as late as CUDA may
  WeightLoader loader(runtime, std::make_shared<MemoryPool>(std::make_unique<EmulatedMemory>(runtime), 0));
  bool arrived = false;
  auto memory = std::make_shared<Filled>(arrived);
  auto arrival = loader.load(memory, [to = &memory->value](WeightLoader::Lane& lane) {
    const std::byte seven{7};
    lane.copy(to, &seven, 1);
    throw Error(ErrorCode::Unsupported, "the second weight has no kernel");
  });
  memory.reset();
  EXPECT_THROW(loader.await(*arrival), Error);
  arrival.reset();
  EXPECT_TRUE(arrived);
}

}  // namespace
}  // namespace vmoba::cuda
