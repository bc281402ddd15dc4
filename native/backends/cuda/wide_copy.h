// One memcpy by several threads. A single core moves 5 to 10 GB/s out of a mapped file, which a PCIe link waits for: streamed weights
// arrive as fast as they are copied into pinned memory.
#pragma once
#include <condition_variable>
#include <cstddef>
#include <mutex>
#include <thread>
#include <vector>

namespace vmoba::cuda {

class WideCopy {
 public:
  /// `threads` with the caller; helpers sleep between copies.
  explicit WideCopy(unsigned threads = suggestedThreads());
  ~WideCopy();
  WideCopy(const WideCopy&) = delete;
  WideCopy& operator=(const WideCopy&) = delete;

  /// Returns when all bytes are there. One caller at a time.
  void copy(std::byte* to, const std::byte* from, size_t bytes);

  /// Half of the machine's threads, at most eight: the rest enqueue work, and belong to the user.
  static unsigned suggestedThreads();

 private:
  void help();
  void copyPieces(std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;
  std::condition_variable wake_, done_;
  std::byte* to_ = nullptr;
  const std::byte* from_ = nullptr;
  size_t bytes_ = 0, next_ = 0, copying_ = 0;
  bool stop_ = false;
  std::vector<std::thread> helpers_;
};

}  // namespace vmoba::cuda
