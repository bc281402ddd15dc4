// Cooperative threads of execution on stacks of their own: what a CUDA thread becomes on the CPU. A switch saves the
// callee-saved registers and swaps stacks (a few nanoseconds on x86-64; ucontext elsewhere).
#pragma once
#include <cstddef>
#ifndef __x86_64__
#include <ucontext.h>
#endif

namespace vmoba::emulation {

/// A suspended execution. Default-constructed it stands for the thread that calls switchTo first.
class Fiber {
 public:
  /// Makes the fiber start at entry(argument) on `stack` when first switched to. `entry` must never return.
  void prepare(void (*entry)(void*), void* argument, std::byte* stack, size_t stackBytes);
  /// Suspends `from` (the running fiber) and continues `to`. `fromEnds`: `from` will never run again.
  static void switchTo(Fiber& from, Fiber& to, bool fromEnds = false);

 private:
  static void begin(Fiber* self);
#ifdef __x86_64__
  void* stackPointer_ = nullptr;
#else
  static void beginSplit(unsigned low, unsigned high);
  ucontext_t context_{};
#endif
  void (*entry_)(void*) = nullptr;
  void* argument_ = nullptr;
  const void* stack_ = nullptr;  // for AddressSanitizer, which must know which stack is in use
  size_t stackBytes_ = 0;
  void* fakeStack_ = nullptr;
};

}  // namespace vmoba::emulation
