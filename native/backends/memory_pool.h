// A pool over some source of memory (the heap, a device): aligned blocks kept for reuse by size class, so that a denoising
// step allocates nothing once the first has run. Counts bytes in use and their peak; refuses beyond a hard limit.
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>

#include "native/backends/backend.h"

namespace vmoba {

/// Where a pool gets its blocks from. Called under the pool's lock.
class MemorySource {
 public:
  virtual ~MemorySource() = default;
  virtual std::byte* allocate(size_t bytes) = 0;  ///< null when refused; at least kPoolAlignment aligned
  virtual void free(std::byte* address) noexcept = 0;
  virtual const char* description() const = 0;    ///< who refuses, for the message: "the system", "the GPU"
};

constexpr size_t kPoolAlignment = 64;

class MemoryPool : public std::enable_shared_from_this<MemoryPool> {
 public:
  MemoryPool(std::unique_ptr<MemorySource> source, size_t limitBytes) : source_(std::move(source)), limit_(limitBytes) {}
  ~MemoryPool();

  size_t limitBytes() const { return limit_; }
  /// A block of at least `bytes`. Error{OutOfMemory} beyond the limit or when the source refuses.
  std::shared_ptr<Storage> allocate(size_t bytes, std::byte** address);
  void trim();
  size_t inUse() const { return inUse_; }
  size_t peak() const { return peak_; }
  /// The most taken from the source: blocks in use and blocks kept for reuse.
  size_t peakHeld() const { return peakHeld_; }
  /// From here on peaks count from what is in use and held now.
  void restartPeaks();

 private:
  struct Block;
  void giveBack(std::byte* address, size_t bytes);
  void trimLocked();

  std::mutex mutex_;
  std::unique_ptr<MemorySource> source_;
  std::multimap<size_t, std::byte*> free_;
  size_t limit_, inUse_ = 0, held_ = 0, peak_ = 0, peakHeld_ = 0;
};

}  // namespace vmoba
