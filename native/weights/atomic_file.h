// A file that appears complete or not at all: written under a temporary name in the same folder, flushed to the disk,
// renamed over the target, and the folder's entry flushed too.
#pragma once
#include <cstddef>
#include <cstdio>
#include <span>
#include <string>

namespace vmoba {

class AtomicFile {
 public:
  /// Opens "<path>.<process id>.tmp". Error{Io} naming the path when the folder cannot be written.
  explicit AtomicFile(std::string path);
  /// Removes the temporary file unless commit() succeeded.
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends. Error{Io} when the disk refuses.
  void write(std::span<const std::byte> bytes);
  void write(const void* data, size_t bytes) { write({static_cast<const std::byte*>(data), bytes}); }
  /// Makes the file visible under its own name. Call once. `durable`: a power cut cannot undo it; waits for the disk.
  void commit(bool durable = true);

 private:
  [[noreturn]] void fail(const char* what) const;
  std::string path_;
  std::string temporary_;
  std::FILE* file_ = nullptr;
};

}  // namespace vmoba
