#include "native/backends/cuda/upload.h"

#include <algorithm>
#include <chrono>

#include "native/base/error.h"

namespace vmoba::cuda {
namespace {
constexpr size_t kWeightSlots = 4, kWeightSlotBytes = size_t{8} << 20;
}

PinnedSlots::PinnedSlots(DeviceRuntime& runtime, size_t slots, size_t slotBytes, unsigned threads)
    : runtime_(runtime), slotBytes_(slotBytes), slots_(slots), fill_(threads) {
  for (Slot& slot : slots_) {
    slot.memory = {runtime_.allocatePinned(slotBytes), [&runtime](std::byte* memory) { runtime.freePinned(memory); }};
    if (!slot.memory) throw Error(ErrorCode::OutOfMemory, "the system refused " + std::to_string(slots * slotBytes >> 20) + " MiB of pinned memory for copies to the GPU");
    slot.done = runtime_.makeEvent();
  }
}

PinnedSlots::Slot& PinnedSlots::next() {
  Slot& slot = slots_[turn_++ % slots_.size()];
  while (slot.busy && !runtime_.reached(*slot.done)) std::this_thread::sleep_for(std::chrono::microseconds(50));
  slot.busy = false;
  return slot;
}

void PinnedSlots::through(StreamId stream, const std::byte* host, size_t bytes, const std::function<void(const std::byte*)>& enqueue) {
  Slot& slot = next();
  fill_.copy(slot.memory.get(), host, bytes);
  enqueue(slot.memory.get());
  runtime_.record(*slot.done, stream);
  slot.busy = true;
}

void PinnedSlots::copyToDevice(StreamId stream, std::byte* device, const std::byte* host, size_t bytes) {
  for (size_t from = 0; from < bytes; from += slotBytes_) {
    const size_t n = std::min(slotBytes_, bytes - from);
    through(stream, host + from, n, [&](const std::byte* slot) { runtime_.copyToDevice(stream, device + from, slot, n); });
  }
}

void WeightLoader::Lane::convert(const std::byte* host, size_t bytes, size_t multiple, const std::function<void(const std::byte*, size_t, size_t)>& use) {
  // One scratch is enough: the copy stream runs in order, so a piece is converted before the next overwrites it.
  const size_t piece = slots_.slotBytes() / multiple * multiple;
  for (size_t from = 0; from < bytes; from += piece) {
    const size_t n = std::min(piece, bytes - from);
    slots_.through(StreamId::Copy, host + from, n, [&](const std::byte* slot) {
      runtime_.copyToDevice(StreamId::Copy, scratch_, slot, n);
      use(scratch_, from, n);
    });
  }
}

WeightLoader::WeightLoader(std::shared_ptr<DeviceRuntime> runtime, std::shared_ptr<MemoryPool> pool)
    : runtime_(std::move(runtime)), pool_(std::move(pool)), thread_([this] { work(); }) {}

WeightLoader::~WeightLoader() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
    queue_.clear();
  }
  wake_.notify_all();
  thread_.join();
}

std::shared_ptr<Arrival> WeightLoader::load(std::shared_ptr<Storage> keep, std::function<void(Lane&)> fill) {
  Job job{std::make_shared<Arrival>(runtime_->makeEvent()), runtime_->makeEvent(), std::move(fill)};
  job.arrival->keep_ = std::move(keep);
  runtime_->record(*job.memoryFree, StreamId::Compute);
  const std::shared_ptr<Arrival> arrival = job.arrival;
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(job));
    ++open_;
  }
  wake_.notify_all();
  return arrival;
}

void WeightLoader::await(Arrival& arrival) {
  std::unique_lock lock(mutex_);
  if (arrival.awaited_) return;
  progress_.wait(lock, [&] { return arrival.enqueued_; });
  if (arrival.failure_) std::rethrow_exception(arrival.failure_);
  lock.unlock();
  runtime_->wait(StreamId::Compute, *arrival.event_);
  lock.lock();
  arrival.awaited_ = true;
  const auto released = std::move(arrival.keep_);
  lock.unlock();
}

/// Drops what the compute stream waits for, and what nobody wants any more once the device has finished filling it.
void WeightLoader::forgetArrived() {
  std::erase_if(inFlight_, [&](const std::shared_ptr<Arrival>& arrival) {
    return arrival->awaited_ || (arrival.use_count() == 1 && runtime_->reached(*arrival->event_));
  });
}

void WeightLoader::finish() {
  std::unique_lock lock(mutex_);
  progress_.wait(lock, [&] { return open_ == 0; });
}

void WeightLoader::work() {
  std::unique_ptr<PinnedSlots> slots;
  std::shared_ptr<Storage> scratchStorage;
  std::byte* scratch = nullptr;
  bool bound = false;
  // Where a job failed and at the end: the device may still be reading the slots and filling memory that others would be given next.
  const auto settle = [&] {
    try {
      if (bound) runtime_->synchronize(StreamId::Copy);
    } catch (...) {  // a lost device reads nothing more
    }
  };
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [&] { return stop_ || !queue_.empty(); });
    if (stop_) break;
    Job job = std::move(queue_.front());
    queue_.pop_front();
    lock.unlock();
    std::exception_ptr failure;
    try {
      if (!bound) runtime_->bindThread();
      bound = true;
      if (!slots) slots = std::make_unique<PinnedSlots>(*runtime_, kWeightSlots, kWeightSlotBytes, WideCopy::suggestedThreads());
      if (!scratchStorage) scratchStorage = pool_->allocate(kWeightSlotBytes, &scratch);
      runtime_->wait(StreamId::Copy, *job.memoryFree);
      Lane lane(*runtime_, *slots, scratch);
      job.fill(lane);
      runtime_->record(*job.arrival->event_, StreamId::Copy);
    } catch (...) {
      failure = std::current_exception();
      settle();
    }
    lock.lock();
    job.arrival->failure_ = failure;
    job.arrival->enqueued_ = true;
    if (!failure) inFlight_.push_back(std::move(job.arrival));
    --open_;
    try {
      forgetArrived();
    } catch (const Error&) {  // a lost device: the computing thread learns of it by itself
      inFlight_.clear();
    }
    progress_.notify_all();
  }
  lock.unlock();
  settle();
  inFlight_.clear();
}

}  // namespace vmoba::cuda
