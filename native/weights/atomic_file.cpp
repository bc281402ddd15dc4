#include "native/weights/atomic_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <utility>

#include "native/base/error.h"

#ifdef _WIN32
#ifndef NOMINMAX
#define NOMINMAX
#endif
#include <io.h>
#include <process.h>
#include <windows.h>
#else
#include <fcntl.h>
#include <unistd.h>
#endif

namespace vmoba {

namespace {

std::filesystem::path fromUtf8(const std::string& path) { return {reinterpret_cast<const char8_t*>(path.c_str())}; }

bool flushToDisk(std::FILE* file) {
  if (std::fflush(file) != 0) return false;
#ifdef _WIN32
  return _commit(_fileno(file)) == 0;
#else
  return ::fsync(fileno(file)) == 0;
#endif
}

void flushFolder([[maybe_unused]] const std::filesystem::path& folder) {
#ifndef _WIN32
  const int handle = ::open(folder.empty() ? "." : folder.c_str(), O_RDONLY | O_CLOEXEC);
  if (handle < 0) return;  // some file systems do not let a folder be opened; the rename itself has succeeded
  (void)::fsync(handle);
  ::close(handle);
#endif
}

long processId() {
#ifdef _WIN32
  return _getpid();
#else
  return ::getpid();
#endif
}

}  // namespace

AtomicFile::AtomicFile(std::string path) : path_(std::move(path)), temporary_(path_ + "." + std::to_string(processId()) + ".tmp") {
#ifdef _WIN32
  file_ = _wfopen(fromUtf8(temporary_).c_str(), L"wb");
#else
  file_ = std::fopen(temporary_.c_str(), "wb");
#endif
  if (!file_) fail("cannot be written");
}

AtomicFile::~AtomicFile() {
  if (!file_) return;
  std::fclose(file_);
  std::error_code ignored;
  std::filesystem::remove(fromUtf8(temporary_), ignored);
}

void AtomicFile::fail(const char* what) const {
  throw Error(ErrorCode::Io, path_ + ": " + what + ": " + std::strerror(errno));
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  if (!bytes.empty() && std::fwrite(bytes.data(), 1, bytes.size(), file_) != bytes.size()) fail("cannot be written");
}

void AtomicFile::commit(bool durable) {
  if (durable ? !flushToDisk(file_) : std::fflush(file_) != 0) fail("cannot be written");
  const int closed = std::fclose(std::exchange(file_, nullptr));
  std::error_code reason;
  if (closed == 0) std::filesystem::rename(fromUtf8(temporary_), fromUtf8(path_), reason);
  if (closed != 0 || reason) {
    const std::string why = closed != 0 ? std::strerror(errno) : reason.message();
    std::error_code ignored;
    std::filesystem::remove(fromUtf8(temporary_), ignored);
    throw Error(ErrorCode::Io, path_ + ": cannot be written: " + why);
  }
  if (durable) flushFolder(fromUtf8(path_).parent_path());
}

}  // namespace vmoba
