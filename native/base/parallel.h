// Data-parallel loops on the one thread pool of the process. OpenMP's team is that pool: oneDNN runs on the same
// one, so library calls and our kernels alternate on the same threads and never compete. The team belongs to
// the calling thread, so all compute of a session runs on one engine thread (see native/addon).
#pragma once
#include <algorithm>
#include <cstdint>
#include <thread>
#ifdef _OPENMP
#include <omp.h>
#endif

namespace vmoba {

/// Threads for a request of `requested`, where 0 means all cores.
inline int threadsFor(int requested) { return requested > 0 ? requested : std::max(1, static_cast<int>(std::thread::hardware_concurrency())); }

/// Threads a parallel loop started from this thread will use.
inline int threadCount() {
#ifdef _OPENMP
  return omp_get_max_threads();
#else
  return 1;
#endif
}

inline void setThreadCount([[maybe_unused]] int threads) {
#ifdef _OPENMP
  omp_set_num_threads(threads);
#endif
}

/// Index of the calling thread within the running loop, 0-based.
inline int threadIndex() {
#ifdef _OPENMP
  return omp_get_thread_num();
#else
  return 0;
#endif
}

/// body(i) for i in [0, count), one index at a time to whichever thread is free (unequal work balances).
/// The body must not throw. Results may not depend on which thread runs which index.
template <class Body>
void parallelForDynamic(int64_t count, const Body& body) {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic, 1)
#endif
  for (int64_t i = 0; i < count; ++i) body(i);
}

/// body(begin, end) over contiguous ranges, one range per thread, none smaller than `grain` (except the last).
template <class Body>
void parallelForRanges(int64_t count, int64_t grain, const Body& body) {
  if (count <= 0) return;
  const int64_t most = (count + grain - 1) / grain;
  const int64_t ranges = most < threadCount() ? most : threadCount();
  if (ranges <= 1) {
    body(int64_t{0}, count);
    return;
  }
#ifdef _OPENMP
#pragma omp parallel for schedule(static, 1) num_threads(static_cast<int>(ranges))
#endif
  for (int64_t r = 0; r < ranges; ++r) body(count * r / ranges, count * (r + 1) / ranges);
}

}  // namespace vmoba
