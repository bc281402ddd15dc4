// Hopper's tile operations as PTX for sm_90a (PTX ISA 8.0+). Included by warpgroup.h only.
#pragma once

namespace vmoba::tile {

// Barriers with phases ----------------------------------------------------------------------------------------------

/// Barrier i counts `arrivals` per phase. By one thread, before a `barrier` of the whole block.
TILE_DEVICE void initPhase(Shared<uint64_t> barriers, int i, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(barriers.address(i)), "r"(arrivals) : "memory");
}
/// What the thread did before is visible to who waits for this phase.
TILE_DEVICE void arrivePhase(Shared<uint64_t> barriers, int i) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0]; }" ::"r"(barriers.address(i)) : "memory");
}
/// Returns once the phase of this parity (the first is 0) is complete; before the first, parity 1 counts as complete.
TILE_DEVICE void waitPhase(Shared<uint64_t> barriers, int i, int parity) {
  uint32_t complete = 0;
  while (!complete)
    asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
                 : "=r"(complete)
                 : "r"(barriers.address(i)), "r"(parity)
                 : "memory");
}

/// Whether waitPhase would return at once; what it would then guarantee is so.
TILE_DEVICE bool testPhase(Shared<uint64_t> barriers, int i, int parity) {
  uint32_t complete;
  asm volatile("{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
               : "=r"(complete)
               : "r"(barriers.address(i)), "r"(parity)
               : "memory");
  return complete != 0;
}

/// The thread's writes to shared memory so far become visible to products that are ordered after it.
TILE_DEVICE void fenceAsyncProxy() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// Registers ----------------------------------------------------------------------------------------------------------

/// The calling warpgroup keeps so many registers per thread and gives back the rest, or waits until it has so many. A multiple of 8.
template <int Registers>
TILE_DEVICE void keepRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(Registers));
}
template <int Registers>
TILE_DEVICE void claimRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(Registers));
}

// Products of a warpgroup -------------------------------------------------------------------------------------------

TILE_DEVICE Operand operand(Shared<Bf16> window, int element, int panelBytes = 16) { return operandAt(window.address(element), panelBytes); }

// Orders uses of registers, which the compiler would else move across the instructions below.
template <int N>
TILE_DEVICE void pinned(float (&values)[N]) {
  TILE_UNROLL
  for (int i = 0; i < N; ++i) asm volatile("" : "+f"(values[i])::"memory");
}
template <int M, int N>
TILE_DEVICE void pinned(uint32_t (&values)[M][N]) {
  TILE_UNROLL
  for (int i = 0; i < M * N; ++i) asm volatile("" : "+r"(values[i / N][i % N])::"memory");
}

/// Before the first product after accumulators or fragments, all of which are named, were written.
template <class... Registers>
TILE_DEVICE void fenceProducts(Registers&... registers) {
  (pinned(registers), ...);
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
TILE_DEVICE void commitProducts() { asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory"); }
/// Waits until at most `GroupsLeft` committed groups are in flight; `registers` are what is used only after that. Within a basic
/// block ptxas moves it before everything that does not need it.
template <int GroupsLeft, class... Registers>
TILE_DEVICE void waitProducts(Registers&... registers) {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(GroupsLeft) : "memory");
  (pinned(registers), ...);
}

#define TILE_NAMES_32 \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31"
#define TILE_NAMES_64 \
  TILE_NAMES_32 ", " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63"
#define TILE_FLOATS_8(d, i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define TILE_FLOATS_32(d, i) TILE_FLOATS_8(d, i), TILE_FLOATS_8(d, i + 8), TILE_FLOATS_8(d, i + 16), TILE_FLOATS_8(d, i + 24)
#define TILE_WGMMA(shape, names, rest) \
  "{ .reg .pred p; setp.ne.b32 p, " shape ".f32.bf16.bf16 {" names "}, " rest "; }"

/// Starts d = a·bᵀ (+ d where `accumulate`): 64 rows of a, 2·N rows of b, 16 columns, both K-major in shared memory. With warp w of
/// the warpgroup, g = lane/4, t = lane%4: d[4j, 4j+1] = D[16w+g][8j+2t, +1], d[4j+2, 4j+3] = D[16w+g+8][8j+2t, +1].
template <int N>
TILE_DEVICE void multiplyAsync(float (&d)[N], Operand a, Operand b, bool accumulate) {
  static_assert(N == 32 || N == 64);
  if constexpr (N == 32) {
    asm volatile(TILE_WGMMA("%34, 0; wgmma.mma_async.sync.aligned.m64n64k16", TILE_NAMES_32, "%32, %33, p, 1, 1, 0, 0")
                 : TILE_FLOATS_32(d, 0)
                 : "l"(a.bits), "l"(b.bits), "r"(static_cast<int>(accumulate)));
  } else {
    asm volatile(TILE_WGMMA("%66, 0; wgmma.mma_async.sync.aligned.m64n128k16", TILE_NAMES_64, "%64, %65, p, 1, 1, 0, 0")
                 : TILE_FLOATS_32(d, 0), TILE_FLOATS_32(d, 32)
                 : "l"(a.bits), "l"(b.bits), "r"(static_cast<int>(accumulate)));
  }
}
/// Starts d += a·b: b MN-major in shared memory, 16 rows of 2·N columns. a[0] = A[16w+g][2t, +1], a[1] = A[16w+g+8][2t, +1],
/// a[2] = A[16w+g][2t+8, +1], a[3] = A[16w+g+8][2t+8, +1].
template <int N>
TILE_DEVICE void multiplyAsyncByRows(float (&d)[N], const uint32_t (&a)[4], Operand b) {
  static_assert(N == 32 || N == 64);
  if constexpr (N == 32) {
    asm volatile(TILE_WGMMA("%37, 0; wgmma.mma_async.sync.aligned.m64n64k16", TILE_NAMES_32, "{%32, %33, %34, %35}, %36, p, 1, 1, 1")
                 : TILE_FLOATS_32(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits), "r"(1));
  } else {
    asm volatile(TILE_WGMMA("%69, 0; wgmma.mma_async.sync.aligned.m64n128k16", TILE_NAMES_64, "{%64, %65, %66, %67}, %68, p, 1, 1, 1")
                 : TILE_FLOATS_32(d, 0), TILE_FLOATS_32(d, 32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits), "r"(1));
  }
}

#undef TILE_NAMES_32
#undef TILE_NAMES_64
#undef TILE_FLOATS_8
#undef TILE_FLOATS_32
#undef TILE_WGMMA

}  // namespace vmoba::tile
