// Host memory for the CPU backend: 64-byte aligned blocks kept for reuse by exact size class, so that a denoising step
// allocates nothing once the first has run. Counts bytes in use and their peak; refuses beyond a limit.
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "native/backends/backend.h"

namespace vmoba::cpu {

class MemoryPool : public std::enable_shared_from_this<MemoryPool> {
 public:
  explicit MemoryPool(size_t limitBytes) : limit_(limitBytes) {}
  ~MemoryPool();

  /// A block of at least `bytes`. Error{OutOfMemory} beyond the limit or when the system refuses.
  std::shared_ptr<Storage> allocate(size_t bytes, std::byte** address);
  void trim();
  size_t inUse() const { return inUse_; }
  size_t peak() const { return peak_; }

 private:
  struct Block;
  void giveBack(std::byte* address, size_t bytes);
  void trimLocked();

  std::mutex mutex_;
  std::multimap<size_t, std::byte*> free_;
  size_t limit_, inUse_ = 0, held_ = 0, peak_ = 0;
};

}  // namespace vmoba::cpu
