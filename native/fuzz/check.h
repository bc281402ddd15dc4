// What a fuzz target promises beyond "no memory error": a broken promise stops the run with its input kept.
#pragma once
#include <cstdio>
#include <cstdlib>
#include <string>

#include "native/base/error.h"

namespace vmoba::fuzz {

inline void check(bool holds, const char* promise) {
  if (holds) return;
  std::fprintf(stderr, "broken promise: %s\n", promise);
  std::abort();
}

/// Refusals are of the expected code, on one line.
inline void checkRefusal(const Error& error, ErrorCode expected) {
  check(error.code() == expected, "a refusal has the parser's error code");
  check(std::string(error.what()).find('\n') == std::string::npos, "a refusal is one line");
}

}  // namespace vmoba::fuzz
