// Runs every reference fixture in a directory through the real engine and compares every stored output and intermediate.
// Sizes come from the files, so any directory of the same layout works. A stored tensor nothing compares is a failure, so that
// nothing passes by being skipped.
#pragma once
#include <functional>
#include <string>
#include <vector>

#include "native/backends/backend.h"

namespace vmoba {

struct VerifyRow {
  std::string file, tensor;
  double error = 0;      ///< largest absolute difference; for exact rows the number of differing elements
  double tolerance = 0;  ///< 0 = exact
  bool pass = false;
  std::string note;
};
using VerifyCallback = std::function<void(const VerifyRow&)>;

struct VerifySummary {
  int64_t rows = 0, failed = 0, files = 0;
  double seconds = 0;
};

/// Strict f32 on `device`. Error{BadRequest} when the directory holds no fixtures.
VerifySummary verifyDirectory(const std::string& directory, const std::string& device, int threads, const VerifyCallback& onRow);

}  // namespace vmoba
