#include "kernels/emulation/block.h"

#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <numeric>

#include "native/base/parallel.h"

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
#endif

namespace vmoba::emulation {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t stackBytes = 512 << 10;
#else
constexpr size_t stackBytes = 64 << 10;
#endif

thread_local ThreadState* currentThread = nullptr;

/// Frames that were left without returning stay marked in the sanitizer's eyes; what uses the memory next must not be accused of it.
void forgetFrames([[maybe_unused]] std::byte* stacks, [[maybe_unused]] size_t bytes) {
#ifdef __SANITIZE_ADDRESS__
  __asan_unpoison_memory_region(stacks, bytes);
#endif
}

/// Stacks live as long as the process's thread: mapping and first touch of hundreds per launch would cost more than the launch.
std::byte* stacksFor(size_t bytes) {
  struct Arena {
    std::byte* memory = nullptr;
    size_t bytes = 0;
    ~Arena() {
      if (memory) munmap(memory, bytes);
    }
  };
  thread_local Arena arena;
  if (arena.bytes < bytes) {
    if (arena.memory) {
      forgetFrames(arena.memory, arena.bytes);
      munmap(arena.memory, arena.bytes);
    }
    arena.memory = nullptr;
    arena.bytes = 0;
    void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (memory == MAP_FAILED) throw std::bad_alloc();
    arena.memory = static_cast<std::byte*>(memory);
    arena.bytes = bytes;
  }
  return arena.memory;
}

uint32_t nextRandom(uint32_t& state) {  // xorshift32
  state ^= state << 13;
  state ^= state >> 17;
  state ^= state << 5;
  return state;
}

void shuffle(std::vector<int>& order, uint32_t& state) {
  for (size_t i = order.size(); i > 1; --i) std::swap(order[i - 1], order[nextRandom(state) % i]);
}

}  // namespace

ThreadState& current() { return *currentThread; }

Block::Block(const LaunchShape& shape, const Options& options) : shape_(shape), options_(options) {
  if (shape.threads <= 0 || shape.threads % warpLanes != 0 || shape.threads > 1024)
    throw Violation(std::string(shape.kernel) + ": a block has " + std::to_string(shape.threads) + " threads, not whole warps up to 1024");
  threads_.resize(static_cast<size_t>(shape.threads));
  warps_.resize(static_cast<size_t>(shape.threads / warpLanes));
  runnable_.resize(threads_.size());
  const size_t rounded = (shape.sharedBytes + 15) / 16 * 16;
  shared_ = std::make_unique<std::byte[]>(rounded + 16);
  cells_.resize((shape.sharedBytes + 1) / 2);
}

void Block::threadEntry(void* argument) {
  auto* thread = static_cast<ThreadState*>(argument);
  Block& block = *thread->block;
  try {
    (*block.body_)();
    block.finishThread();
  } catch (...) {
    block.failure_ = std::current_exception();
  }
  thread->done = true;
  if (block.failure_ || block.queued_ == 0) {
    Fiber::switchTo(thread->fiber, block.scheduler_, true);
  } else {
    ThreadState& next = block.threads_[static_cast<size_t>(block.runnable_[block.head_])];
    block.head_ = (block.head_ + 1) % block.runnable_.size();
    --block.queued_;
    currentThread = &next;
    Fiber::switchTo(thread->fiber, next.fiber, true);
  }
  std::abort();
}

void Block::run(const Extent3& index, const std::function<void()>& body) {
  index_ = index;
  body_ = &body;
  std::byte* const stacks = stacksFor(stackBytes * threads_.size());
  failure_ = nullptr;
  barriersPassed_ = 0;
  alive_ = shape_.threads;
  head_ = queued_ = 0;
  atBarrier_.clear();
  random_ = options_.scheduleSeed * 2654435761u + static_cast<uint32_t>(index.x + 7919 * index.y + 104729 * index.z) + 1;
  if (random_ == 0) random_ = 1;
  std::fill(cells_.begin(), cells_.end(), Cell{});
  std::memset(shared_.get(), 0xff, shape_.sharedBytes);  // NaN in every float format: what slips the checks stays visible
  for (Warp& warp : warps_) warp = Warp{};
  resetWarpgroups();
  for (size_t i = 0; i < threads_.size(); ++i) {
    ThreadState& thread = threads_[i];
    thread.block = this;
    thread.index = static_cast<int>(i);
    thread.lane = thread.index % warpLanes;
    thread.warp = thread.index / warpLanes;
    thread.barriers = 0;
    thread.warpEpoch = 0;
    thread.pending.clear();
    thread.committed.clear();
    thread.unfenced.clear();
    thread.done = false;
    thread.fiber.prepare(&threadEntry, &thread, stacks + i * stackBytes, stackBytes);
  }
  std::vector<int> order(warps_.size());
  std::iota(order.begin(), order.end(), 0);
  shuffle(order, random_);
  for (const int warp : order)
    for (int lane = 0; lane < warpLanes; ++lane) enqueue(warp * warpLanes + lane);

  ThreadState& first = threads_[static_cast<size_t>(runnable_[head_])];
  head_ = (head_ + 1) % runnable_.size();
  --queued_;
  currentThread = &first;
  Fiber::switchTo(scheduler_, first.fiber);
  currentThread = nullptr;
  if (failure_) {
    forgetFrames(stacks, stackBytes * threads_.size());
    std::rethrow_exception(failure_);
  }
  for (const auto& [offset, phase] : phases_)
    if (!phase.boxes.empty()) throw Violation(std::string(shape_.kernel) + ": the block ends with bulk copies for the phase barrier at shared byte " + std::to_string(offset) + " that nobody waited for");
  for (const Warp& warp : warps_)
    if (warp.started != warps_[static_cast<size_t>(&warp - warps_.data()) / 4 * 4].started)
      throw Violation(std::string(shape_.kernel) + ": the warps of a warpgroup took part in different numbers of products");
}

void Block::enqueue(int thread) {
  runnable_[(head_ + queued_) % runnable_.size()] = thread;
  ++queued_;
}

void Block::suspend() {
  ThreadState& self = current();
  if (queued_ == 0) {
    std::string who;
    for (const Warp& warp : warps_)
      if (warp.arrived) who += std::string(who.empty() ? "" : ", ") + std::to_string(warp.arrived) + " lanes in " + warp.name;
    if (!atBarrier_.empty()) who += std::string(who.empty() ? "" : ", ") + std::to_string(atBarrier_.size()) + " threads at a barrier";
    for (const auto& [offset, phase] : phases_)
      if (!phase.waiting.empty()) who += std::string(who.empty() ? "" : ", ") + std::to_string(phase.waiting.size()) + " threads at the phase barrier of byte " + std::to_string(offset);
    fail("deadlock: of " + std::to_string(shape_.threads) + " threads " + std::to_string(shape_.threads - alive_) + " have ended; waiting: " + who);
  }
  ThreadState& next = threads_[static_cast<size_t>(runnable_[head_])];
  head_ = (head_ + 1) % runnable_.size();
  --queued_;
  currentThread = &next;
  Fiber::switchTo(self.fiber, next.fiber);
}

void Block::finishThread() {
  ThreadState& self = current();
  if (!self.pending.empty() || !self.committed.empty()) fail("the thread ends with asynchronous copies it never waited for");
  const Warp& warp = warps_[static_cast<size_t>(self.warp)];
  if (!warp.open.empty() || !warp.committed.empty()) fail("the thread ends with products it never waited for");
  --alive_;
  if (queued_ == 0 && alive_ > 0) {
    alive_ += 1;
    suspend();  // reports who waits for this thread
  }
}

void Block::barrier() {
  ThreadState& self = current();
  ++self.barriers;
  if (options_.fault.kind == PlantedFault::DropBarrier && self.barriers - 1 == options_.fault.nth) return;
  atBarrier_.push_back(self.index);
  if (atBarrier_.size() < threads_.size()) {
    suspend();
    return;
  }
  ++barriersPassed_;
  barrierTime_ = ++now_;
  std::vector<int> order(warps_.size());
  std::iota(order.begin(), order.end(), 0);
  shuffle(order, random_);
  atBarrier_.clear();
  for (const int warp : order)
    for (int lane = 0; lane < warpLanes; ++lane)
      if (warp * warpLanes + lane != self.index) enqueue(warp * warpLanes + lane);
  enqueue(self.index);
  suspend();
}

void Block::warpBarrier() {
  int nothing = 0;
  collective("a warp barrier", nothing, [this](const auto&) { joinWarp(); });
  ++current().warpEpoch;
}

std::byte** Block::enterCollective(const char* name, std::byte* mine) {
  ThreadState& self = current();
  Warp& warp = warps_[static_cast<size_t>(self.warp)];
  if (warp.arrived == 0) {
    warp.name = name;
  } else if (warp.name != name) {
    fail(std::string("lanes of one warp diverge: some are in ") + warp.name + ", this one in " + name);
  }
  warp.slots[self.lane] = mine;
  if (++warp.arrived < warpLanes) {
    suspend();
    return nullptr;
  }
  return warp.slots;
}

void Block::leaveCollective() {
  ThreadState& self = current();
  Warp& warp = warps_[static_cast<size_t>(self.warp)];
  warp.arrived = 0;
  for (int lane = 0; lane < warpLanes; ++lane)
    if (lane != self.lane) enqueue(self.warp * warpLanes + lane);
}

void Block::bounds(uint32_t offset, uint32_t bytes) const {
  if (static_cast<size_t>(offset) + bytes > shape_.sharedBytes)
    fail("bytes " + std::to_string(offset) + " to " + std::to_string(offset + bytes) + " are outside the block's " +
         std::to_string(shape_.sharedBytes) + " bytes of shared memory");
}

const std::byte* Block::read(uint32_t offset, uint32_t bytes) {
  bounds(offset, bytes);
  const ThreadState& self = current();
  for (uint32_t at = offset / 2; at < (offset + bytes + 1) / 2; ++at) {
    Cell& cell = cells_[at];
    if (cell.writer == unwritten) fail("reads shared byte " + std::to_string(at * 2) + ", which nothing wrote");
    if (cell.writer == beingCopied) fail("reads shared byte " + std::to_string(at * 2) + ", which an asynchronous copy has yet to write");
    if (cell.writeBarrier == barriersPassed_ && cell.writer != self.index &&
        (cell.writer / warpLanes != self.warp || cell.writeWarpEpoch == self.warpEpoch) && !(shape_.warpgroups && knows(cell.writer, times_[at].written)))
      fail("race: reads shared byte " + std::to_string(at * 2) + ", written by thread " + std::to_string(cell.writer) + " with no barrier between");
    if (cell.reader == nobody || cell.readBarrier != barriersPassed_) {
      cell.reader = static_cast<int16_t>(self.index);
    } else if (cell.reader != self.index) {
      // Readers of one warp are remembered as that warp (coded below `several`), readers of two as `several`.
      const int16_t sameWarp = static_cast<int16_t>(several - 1 - self.warp);
      if (cell.reader >= 0) {
        cell.reader = cell.reader / warpLanes == self.warp ? sameWarp : several;
      } else if (cell.reader != sameWarp) {
        cell.reader = several;
      }
    }
    cell.readBarrier = barriersPassed_;
    cell.readWarpEpoch = self.warpEpoch;
    if (shape_.warpgroups) lineReads_[at * 2 / lineBytes * warps_.size() + static_cast<size_t>(self.warp)] = ++now_;
  }
  return shared_.get() + offset;
}

void Block::checkWrite(const Cell& cell, const ThreadState& self, uint32_t offset, bool atomic) const {
  const auto race = [&](int other, uint32_t epoch) {
    if (other == self.index) return false;
    if (other >= 0) return other / warpLanes != self.warp || epoch == self.warpEpoch;
    if (other == several) return true;
    return several - 1 - other != self.warp || epoch == self.warpEpoch;
  };
  if (cell.writer == beingCopied) fail("writes shared byte " + std::to_string(offset) + ", which an asynchronous copy is writing");
  if (cell.writer >= 0 && cell.writeBarrier == barriersPassed_ && !(atomic && cell.atomic) && race(cell.writer, cell.writeWarpEpoch) &&
      !(shape_.warpgroups && knows(cell.writer, times_[offset / 2].written)))
    fail("race: writes shared byte " + std::to_string(offset) + ", written by thread " + std::to_string(cell.writer) + " with no barrier between");
  if (shape_.warpgroups) {
    checkReaders(offset);
    const int readingWarp = cell.reader >= 0 ? cell.reader / warpLanes : several - 1 - cell.reader;
    if (readingWarp != self.warp) return;  // others were looked at, one by one
  }
  if (cell.reader != nobody && cell.readBarrier == barriersPassed_ && race(cell.reader, cell.readWarpEpoch))
    fail("race: writes shared byte " + std::to_string(offset) + ", which another thread reads with no barrier between");
}

std::byte* Block::write(uint32_t offset, uint32_t bytes) {
  bounds(offset, bytes);
  const ThreadState& self = current();
  for (uint32_t at = offset / 2; at < (offset + bytes + 1) / 2; ++at) {
    Cell& cell = cells_[at];
    checkWrite(cell, self, at * 2, false);
    cell.writer = static_cast<int16_t>(self.index);
    cell.writeBarrier = barriersPassed_;
    cell.writeWarpEpoch = self.warpEpoch;
    cell.atomic = false;
  }
  recordWrite(offset, bytes);
  return shared_.get() + offset;
}

std::byte* Block::update(uint32_t offset, uint32_t bytes) {
  bounds(offset, bytes);
  const ThreadState& self = current();
  for (uint32_t at = offset / 2; at < (offset + bytes + 1) / 2; ++at) {
    Cell& cell = cells_[at];
    if (cell.writer == unwritten) fail("updates shared byte " + std::to_string(at * 2) + ", which nothing wrote");
    checkWrite(cell, self, at * 2, true);
    cell.writer = static_cast<int16_t>(self.index);
    cell.writeBarrier = barriersPassed_;
    cell.writeWarpEpoch = self.warpEpoch;
    cell.atomic = true;
  }
  recordWrite(offset, bytes);
  return shared_.get() + offset;
}

void Block::startCopy(uint32_t offset, const void* source, int bytes, int validBytes) {
  ThreadState& self = current();
  bounds(offset, static_cast<uint32_t>(bytes));
  if (offset % static_cast<uint32_t>(bytes) != 0) fail("an asynchronous copy goes to misaligned shared byte " + std::to_string(offset));
  if (validBytes > 0 && reinterpret_cast<uintptr_t>(source) % static_cast<uintptr_t>(bytes) != 0)
    fail("an asynchronous copy reads from a misaligned address");
  for (uint32_t at = offset / 2; at < (offset + static_cast<uint32_t>(bytes)) / 2; ++at) {
    checkWrite(cells_[at], self, at * 2, false);
    cells_[at].writer = beingCopied;
  }
  self.pending.push_back({offset, static_cast<const std::byte*>(source), static_cast<uint16_t>(bytes), static_cast<uint16_t>(validBytes)});
}

void Block::commitCopies() {
  ThreadState& self = current();
  self.committed.push_back(std::move(self.pending));
  self.pending.clear();
}

void Block::waitCopies(int groupsLeft) {
  ThreadState& self = current();
  if (options_.fault.kind == PlantedFault::SkipCopyWait) return;
  while (static_cast<int>(self.committed.size()) > groupsLeft) {
    for (const ThreadState::Copy& copy : self.committed.front()) {
      if (copy.valid) std::memcpy(shared_.get() + copy.destination, copy.source, copy.valid);
      std::memset(shared_.get() + copy.destination + copy.valid, 0, static_cast<size_t>(copy.bytes - copy.valid));
      for (uint32_t at = copy.destination / 2; at < (copy.destination + copy.bytes) / 2; ++at) {
        Cell& cell = cells_[at];
        cell.writer = static_cast<int16_t>(self.index);
        cell.writeBarrier = barriersPassed_;
        cell.writeWarpEpoch = self.warpEpoch;
        cell.atomic = false;
      }
      recordWrite(copy.destination, copy.bytes);
    }
    self.committed.pop_front();
  }
}

void Block::fail(const std::string& what) const {
  const ThreadState& self = current();
  throw Violation(std::string(shape_.kernel) + ", block (" + std::to_string(index_.x) + ", " + std::to_string(index_.y) + ", " +
                  std::to_string(index_.z) + "), thread " + std::to_string(self.index) + ": " + what);
}

void runGrid(const LaunchShape& shape, const Options& options, const std::function<void()>& body) {
  const int64_t blocks = int64_t{shape.grid.x} * shape.grid.y * shape.grid.z;
  if (blocks <= 0) throw Violation(std::string(shape.kernel) + ": the grid is empty");
  std::vector<int> order(static_cast<size_t>(blocks));
  std::iota(order.begin(), order.end(), 0);
  uint32_t random = options.scheduleSeed * 747796405u + 1;
  shuffle(order, random);
  std::vector<std::unique_ptr<Block>> workers(static_cast<size_t>(threadCount()));
  std::atomic<bool> failed = false;
  std::exception_ptr failure;
  std::mutex guard;
  // Few threads are not worth waking the pool for, whose other threads would spin between launches.
  const auto forBlocks = [&](const auto& each) {
    if (blocks * shape.threads >= 8192) return parallelForDynamic(blocks, each);
    for (int64_t i = 0; i < blocks; ++i) each(i);
  };
  forBlocks([&](int64_t i) {
    if (failed) return;
    try {
      auto& worker = workers[static_cast<size_t>(threadIndex())];
      if (!worker) worker = std::make_unique<Block>(shape, options);
      const int block = order[static_cast<size_t>(i)];
      worker->run({block % shape.grid.x, block / shape.grid.x % shape.grid.y, block / (shape.grid.x * shape.grid.y)}, body);
    } catch (...) {
      const std::lock_guard lock(guard);
      if (!failed.exchange(true)) failure = std::current_exception();
    }
  });
  if (failure) std::rethrow_exception(failure);
}

}  // namespace vmoba::emulation
