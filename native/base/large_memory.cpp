#include "native/base/large_memory.h"

#include <cstdlib>
#include <new>
#include <utility>
#if defined(_WIN32)
#include <malloc.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace vmoba {
namespace {

constexpr size_t kAlignment = 64, kLargePage = size_t{2} << 20;

}  // namespace

std::byte* allocateLarge(size_t bytes) noexcept {
  const size_t alignment = bytes >= 2 * kLargePage ? kLargePage : kAlignment;
#if defined(_WIN32)
  return static_cast<std::byte*>(_aligned_malloc(bytes, alignment));
#else
  void* memory = nullptr;
  if (posix_memalign(&memory, alignment, bytes) != 0) return nullptr;
#if defined(__linux__)
  if (alignment == kLargePage) madvise(memory, bytes, MADV_HUGEPAGE);  // a refusal costs time only
#endif
  return static_cast<std::byte*>(memory);
#endif
}

void freeLarge(std::byte* memory) noexcept {
#if defined(_WIN32)
  _aligned_free(memory);
#else
  std::free(memory);
#endif
}

LargeBuffer::LargeBuffer(size_t bytes) : bytes_(allocateLarge(bytes), bytes) {
  if (bytes_.data() == nullptr) throw std::bad_alloc();
}

LargeBuffer& LargeBuffer::operator=(LargeBuffer&& other) noexcept {
  std::swap(bytes_, other.bytes_);
  return *this;
}

}  // namespace vmoba
