// Arrays of many megabytes in pages as large as the system gives: rows met in a partition's order, all over the array, would
// otherwise spend much of their time looking up pages.
#pragma once
#include <cstddef>
#include <span>

namespace vmoba {

/// Uninitialised, aligned to 64 bytes or more; null when the system refuses.
std::byte* allocateLarge(size_t bytes) noexcept;
void freeLarge(std::byte* memory) noexcept;

/// Owns such memory; throws std::bad_alloc.
class LargeBuffer {
 public:
  LargeBuffer() = default;
  explicit LargeBuffer(size_t bytes);
  LargeBuffer(LargeBuffer&& other) noexcept : bytes_(other.bytes_) { other.bytes_ = {}; }
  LargeBuffer& operator=(LargeBuffer&& other) noexcept;
  ~LargeBuffer() { freeLarge(bytes_.data()); }

  std::span<std::byte> bytes() const { return bytes_; }

 private:
  std::span<std::byte> bytes_;
};

}  // namespace vmoba
