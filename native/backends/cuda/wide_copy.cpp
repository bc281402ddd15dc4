#include "native/backends/cuda/wide_copy.h"

#include <algorithm>
#include <cstring>
#include <system_error>

namespace vmoba::cuda {
namespace {
constexpr size_t kPiece = size_t{512} << 10;
}

unsigned WideCopy::suggestedThreads() { return std::clamp(std::thread::hardware_concurrency() / 2, 1u, 8u); }

WideCopy::WideCopy(unsigned threads) {
  try {
    for (unsigned i = 1; i < threads; ++i) helpers_.emplace_back([this] { help(); });
  } catch (const std::system_error&) {  // as many as the system gives
  }
}

WideCopy::~WideCopy() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_all();
  for (std::thread& helper : helpers_) helper.join();
}

void WideCopy::copy(std::byte* to, const std::byte* from, size_t bytes) {
  if (helpers_.empty() || bytes <= kPiece) {
    std::memcpy(to, from, bytes);
    return;
  }
  std::unique_lock lock(mutex_);
  to_ = to;
  from_ = from;
  bytes_ = bytes;
  next_ = 0;
  wake_.notify_all();
  copyPieces(lock);
  done_.wait(lock, [this] { return copying_ == 0; });
}

/// Takes piece after piece until none is left; the lock is held between copies only.
void WideCopy::copyPieces(std::unique_lock<std::mutex>& lock) {
  while (next_ < bytes_) {
    const size_t at = next_, n = std::min(kPiece, bytes_ - at);
    next_ += n;
    ++copying_;
    lock.unlock();
    std::memcpy(to_ + at, from_ + at, n);
    lock.lock();
    if (--copying_ == 0) done_.notify_one();
  }
}

void WideCopy::help() {
  std::unique_lock lock(mutex_);
  while (true) {
    wake_.wait(lock, [this] { return stop_ || next_ < bytes_; });
    if (stop_) return;
    copyPieces(lock);
  }
}

}  // namespace vmoba::cuda
