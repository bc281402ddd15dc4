// A folder of a benchmark's own, gone with it.
#pragma once
#include <chrono>
#include <filesystem>
#include <string>

#include "native/base/error.h"
#include "native/base/json.h"

namespace vmoba {

class ScratchFolder {
 public:
  /// Under the option `scratch`, default the system's folder for temporary files. Error{Io} when it cannot be made.
  ScratchFolder(const Json& options, const std::string& name)
      : path_(std::filesystem::path(options.stringOr("scratch", std::filesystem::temp_directory_path().string())) /
              (name + "-" + std::to_string(std::chrono::steady_clock::now().time_since_epoch().count()))) {
    std::error_code failed;
    std::filesystem::create_directories(path_, failed);
    if (failed) throw Error(ErrorCode::Io, "the folder " + path_.string() + " cannot be made (" + failed.message() + "); name another by scratch", "scratch");
  }
  ~ScratchFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;
  std::string path() const { return path_.string(); }

 private:
  std::filesystem::path path_;
};

}  // namespace vmoba
