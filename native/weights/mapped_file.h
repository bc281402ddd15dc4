// A file mapped read-only into memory: POSIX mmap, or CreateFileMapping on Windows (written, not yet tried there).
// The pages belong to the OS: a file that another program truncates while it is mapped faults on reading.
#pragma once
#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace vmoba {

class MappedFile {
 public:
  /// Maps the whole of a regular file. Error{Io} "<path>: <reason>" when it cannot be opened or mapped.
  static std::shared_ptr<const MappedFile> open(const std::string& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return {data_, size_}; }

  /// Tells the OS that the whole pages inside [data, data + bytes) of a mapping will not be read again soon.
  /// Harmless when the range is smaller than a page; the data stay readable (they come from the file again).
  static void release(const std::byte* data, size_t bytes) noexcept;

 private:
  MappedFile() = default;
  const std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace vmoba
