// Hands out aligned pieces of one scratch buffer. Without a buffer it only measures, so that sizes and layout cannot disagree.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "native/base/error.h"

namespace vmoba::cpu {

class Arena {
 public:
  Arena() = default;
  explicit Arena(std::span<std::byte> buffer) : buffer_(buffer), measuring_(false) {
    const auto misaligned = reinterpret_cast<uintptr_t>(buffer.data()) % kAlignment;
    used_ = misaligned == 0 ? 0 : kAlignment - misaligned;
  }
  template <class T>
  T* take(int64_t count) {
    const size_t at = used_;
    used_ += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    if (measuring_) return nullptr;
    if (used_ > buffer_.size()) throw Error(ErrorCode::Internal, "a kernel was given too little scratch memory");
    return reinterpret_cast<T*>(buffer_.data() + at);
  }
  /// Bytes a buffer of any alignment must have.
  size_t bytes() const { return used_ + kAlignment; }

 private:
  static constexpr size_t kAlignment = 64;
  std::span<std::byte> buffer_;
  size_t used_ = 0;
  bool measuring_ = true;
};

}  // namespace vmoba::cpu
