#include "kernels/emulation/fiber.h"

#include <cstdint>
#include <cstdlib>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/common_interface_defs.h>

/// A block that fails leaves its fibers where they stand: what their frames own is never freed, which is no leak of a kernel.
extern "C" __attribute__((visibility("default"))) const char* __asan_default_options() { return "detect_leaks=0"; }
#endif

namespace vmoba::emulation {
namespace {

#ifdef __SANITIZE_ADDRESS__
thread_local Fiber* arrivedFrom = nullptr;
#endif

#ifdef __x86_64__
extern "C" void vmobaSwitchStack(void** saveStackPointer, void* loadStackPointer);
extern "C" void vmobaEnterFiber();
// System V ABI: rbx, rbp, r12-r15, the x87 control word and mxcsr survive a call; everything else is the caller's.
asm(R"(
.text
.type vmobaSwitchStack,@function
vmobaSwitchStack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size vmobaSwitchStack,.-vmobaSwitchStack
.type vmobaEnterFiber,@function
vmobaEnterFiber:
  movq %r12, %rdi
  xorl %ebp, %ebp
  callq *%r13
  ud2
.size vmobaEnterFiber,.-vmobaEnterFiber
)");
#endif

}  // namespace

void Fiber::begin(Fiber* self) {
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(nullptr, &arrivedFrom->stack_, &arrivedFrom->stackBytes_);
#endif
  self->entry_(self->argument_);
  std::abort();
}

#ifdef __x86_64__
void Fiber::prepare(void (*entry)(void*), void* argument, std::byte* stack, size_t stackBytes) {
  entry_ = entry;
  argument_ = argument;
  stack_ = stack;
  stackBytes_ = stackBytes;
  auto** top = reinterpret_cast<void**>(stack + stackBytes);  // 16-byte aligned: stacks are page multiples
  top -= 2;  // so that the stack is 16-byte aligned once the return address below is popped
  *--top = reinterpret_cast<void*>(&vmobaEnterFiber);     // return address
  *--top = nullptr;                                       // rbp
  *--top = nullptr;                                       // rbx
  *--top = this;                                          // r12
  *--top = reinterpret_cast<void*>(&Fiber::begin);        // r13
  *--top = nullptr;                                       // r14
  *--top = nullptr;                                       // r15
  stackPointer_ = top;
}
#else
void Fiber::beginSplit(unsigned low, unsigned high) {
  begin(reinterpret_cast<Fiber*>(static_cast<uintptr_t>(low) | (static_cast<uintptr_t>(high) << 32)));
}

void Fiber::prepare(void (*entry)(void*), void* argument, std::byte* stack, size_t stackBytes) {
  entry_ = entry;
  argument_ = argument;
  stack_ = stack;
  stackBytes_ = stackBytes;
  getcontext(&context_);
  context_.uc_stack.ss_sp = stack;
  context_.uc_stack.ss_size = stackBytes;
  context_.uc_link = nullptr;
  const auto self = reinterpret_cast<uintptr_t>(this);
  makecontext(&context_, reinterpret_cast<void (*)()>(&Fiber::beginSplit), 2, static_cast<unsigned>(self),
              static_cast<unsigned>(static_cast<uint64_t>(self) >> 32));
}
#endif

void Fiber::switchTo(Fiber& from, Fiber& to, [[maybe_unused]] bool fromEnds) {
#ifdef __SANITIZE_ADDRESS__
  arrivedFrom = &from;
  __sanitizer_start_switch_fiber(fromEnds ? nullptr : &from.fakeStack_, to.stack_, to.stackBytes_);
#endif
#ifdef __x86_64__
  vmobaSwitchStack(&from.stackPointer_, to.stackPointer_);
#else
  swapcontext(&from.context_, &to.context_);
#endif
#ifdef __SANITIZE_ADDRESS__
  __sanitizer_finish_switch_fiber(from.fakeStack_, &arrivedFrom->stack_, &arrivedFrom->stackBytes_);
#endif
}

}  // namespace vmoba::emulation
