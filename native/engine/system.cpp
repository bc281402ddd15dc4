// What the engine knows of the process and build it runs in.
#include "native/engine/session.h"
#include "build_id.h"

#if defined(__linux__) || defined(__APPLE__)
#include <sys/resource.h>
#endif

namespace vmoba {

const char* buildId() { return VMOBA_BUILD_ID; }

size_t peakResidentBytes() {
#if defined(__linux__) || defined(__APPLE__)
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
#if defined(__APPLE__)
  return static_cast<size_t>(usage.ru_maxrss);
#else
  return static_cast<size_t>(usage.ru_maxrss) * 1024;
#endif
#else
  return 0;
#endif
}

}  // namespace vmoba
