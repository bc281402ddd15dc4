#include "native/weights/mapped_file.h"

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <limits>

#include "native/base/error.h"

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <windows.h>

#include <filesystem>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

namespace vmoba {

namespace {
[[noreturn]] void fail(const std::string& path, const std::string& reason) { throw Error(ErrorCode::Io, path + ": " + reason); }
}  // namespace

#ifdef _WIN32

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const std::filesystem::path wide(reinterpret_cast<const char8_t*>(path.c_str()));
  const HANDLE file = CreateFileW(wide.c_str(), GENERIC_READ, FILE_SHARE_READ | FILE_SHARE_DELETE, nullptr, OPEN_EXISTING,
                                  FILE_ATTRIBUTE_NORMAL, nullptr);
  if (file == INVALID_HANDLE_VALUE) fail(path, "cannot be opened (system error " + std::to_string(GetLastError()) + ")");
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  LARGE_INTEGER size;
  if (!GetFileSizeEx(file, &size)) {
    CloseHandle(file);
    fail(path, "its size cannot be read");
  }
  if (size.QuadPart > 0) {
    const HANDLE mapping = CreateFileMappingW(file, nullptr, PAGE_READONLY, 0, 0, nullptr);
    const void* view = mapping ? MapViewOfFile(mapping, FILE_MAP_READ, 0, 0, 0) : nullptr;
    if (mapping) CloseHandle(mapping);
    CloseHandle(file);
    if (!view) fail(path, "cannot be mapped into memory (system error " + std::to_string(GetLastError()) + ")");
    mapped->data_ = static_cast<const std::byte*>(view);
    mapped->size_ = static_cast<size_t>(size.QuadPart);
  } else {
    CloseHandle(file);
  }
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_) UnmapViewOfFile(data_);
}

void MappedFile::release(const std::byte*, size_t) noexcept {}

#else

std::shared_ptr<const MappedFile> MappedFile::open(const std::string& path) {
  const int file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a named pipe must not block
  if (file < 0) fail(path, errno == ENOENT ? "no such file" : std::string("cannot be opened: ") + std::strerror(errno));
  struct stat info {};
  if (::fstat(file, &info) != 0 || !S_ISREG(info.st_mode)) {
    ::close(file);
    fail(path, "is not a regular file");
  }
  const auto size = static_cast<uint64_t>(info.st_size);
  if (size > std::numeric_limits<size_t>::max()) {
    ::close(file);
    fail(path, "is too large for this machine's address space");
  }
  std::shared_ptr<MappedFile> mapped(new MappedFile);
  if (size > 0) {
    void* view = ::mmap(nullptr, static_cast<size_t>(size), PROT_READ, MAP_PRIVATE, file, 0);
    const int reason = errno;
    ::close(file);
    if (view == MAP_FAILED) fail(path, std::string("cannot be mapped into memory: ") + std::strerror(reason));
    mapped->data_ = static_cast<const std::byte*>(view);
    mapped->size_ = static_cast<size_t>(size);
  } else {
    ::close(file);
  }
  return mapped;
}

MappedFile::~MappedFile() {
  if (data_) ::munmap(const_cast<std::byte*>(data_), size_);
}

void MappedFile::release(const std::byte* data, size_t bytes) noexcept {
  const long page = ::sysconf(_SC_PAGESIZE);
  if (page <= 0 || !data) return;
  const auto mask = static_cast<uintptr_t>(page) - 1;
  const auto first = (reinterpret_cast<uintptr_t>(data) + mask) & ~mask;
  const auto last = (reinterpret_cast<uintptr_t>(data) + bytes) & ~mask;
  if (last > first) (void)::madvise(reinterpret_cast<void*>(first), last - first, MADV_DONTNEED);
}

#endif

}  // namespace vmoba
