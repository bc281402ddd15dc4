#include "native/backends/memory_pool.h"

#include <algorithm>
#include <string>

#include "native/base/error.h"

namespace vmoba {
namespace {
std::string megabytes(size_t bytes) { return std::to_string((bytes + (size_t{1} << 20) - 1) >> 20) + " MiB"; }
}  // namespace

struct MemoryPool::Block final : Storage {
  std::shared_ptr<MemoryPool> pool;
  std::byte* address = nullptr;
  size_t bytes = 0;
  ~Block() override { pool->giveBack(address, bytes); }
};

MemoryPool::~MemoryPool() { trim(); }

std::shared_ptr<Storage> MemoryPool::allocate(size_t bytes, std::byte** address) {
  bytes = std::max<size_t>((bytes + kPoolAlignment - 1) / kPoolAlignment * kPoolAlignment, kPoolAlignment);
  const std::lock_guard lock(mutex_);
  std::byte* memory = nullptr;
  // A block up to an eighth too large may serve: shapes repeat step by step, so exact hits are the rule.
  if (const auto found = free_.lower_bound(bytes); found != free_.end() && found->first <= bytes + bytes / 8) {
    bytes = found->first;
    memory = found->second;
    free_.erase(found);
  } else {
    if (limit_ != 0 && held_ + bytes > limit_) trimLocked();
    if (limit_ != 0 && held_ + bytes > limit_)
      throw Error(ErrorCode::OutOfMemory, "needs " + megabytes(bytes) + " more, but " + megabytes(inUse_) + " of the limit of " +
                                              megabytes(limit_) + " are in use; choose a smaller size or raise the memory limit");
    memory = source_->allocate(bytes);
    if (memory == nullptr) {
      trimLocked();
      memory = source_->allocate(bytes);
    }
    if (memory == nullptr) throw Error(ErrorCode::OutOfMemory, std::string(source_->description()) + " refused " + megabytes(bytes) + " of memory");
    held_ += bytes;
    peakHeld_ = std::max(peakHeld_, held_);
  }
  auto block = std::make_shared<Block>();
  block->pool = shared_from_this();
  block->address = memory;
  block->bytes = bytes;
  inUse_ += bytes;
  peak_ = std::max(peak_, inUse_);
  *address = memory;
  return block;
}

void MemoryPool::giveBack(std::byte* address, size_t bytes) {
  const std::lock_guard lock(mutex_);
  inUse_ -= bytes;
  free_.emplace(bytes, address);
}

void MemoryPool::restartPeaks() {
  const std::lock_guard lock(mutex_);
  peak_ = inUse_;
  peakHeld_ = held_;
}

void MemoryPool::trim() {
  const std::lock_guard lock(mutex_);
  trimLocked();
}

void MemoryPool::trimLocked() {
  for (const auto& [bytes, address] : free_) {
    source_->free(address);
    held_ -= bytes;
  }
  free_.clear();
}

}  // namespace vmoba
