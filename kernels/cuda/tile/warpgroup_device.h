// Hopper's tile operations as PTX for sm_90a (PTX ISA 8.0+; the driver's entry points as CUDA 12.5 and later find them). Included by warpgroup.h only.
#pragma once
#include <cuda.h>

#include "native/base/error.h"

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

/// Arrives; the phase then also waits for so many bytes of boxes.
TILE_DEVICE void expectBytes(Shared<uint64_t> barriers, int i, int bytes) {
  asm volatile("{ .reg .b64 state; mbarrier.arrive.expect_tx.shared::cta.b64 state, [%0], %1; }" ::"r"(barriers.address(i)), "r"(bytes) : "memory");
}

// Boxes of a matrix ---------------------------------------------------------------------------------------------------

/// A matrix of bf16 rows in device memory, cut into boxes of some rows by 64 columns, as the copy engine takes it. Lies in a kernel's arguments.
struct RowBoxes {
  CUtensorMap map;
};
/// `columns`: a multiple of 64; `matrix`: aligned to 16 bytes. Host code; throws Error{DeviceLost} where the driver refuses.
inline RowBoxes rowBoxes(const Bf16* matrix, int64_t rows, int columns, int boxRows) {
  static const auto encode = [] {
    void* function = nullptr;
    cudaDriverEntryPointQueryResult found;
    if (cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &function, 12000, cudaEnableDefault, &found) != cudaSuccess || found != cudaDriverEntryPointSuccess) function = nullptr;
    return reinterpret_cast<decltype(&cuTensorMapEncodeTiled)>(function);
  }();
  RowBoxes boxes;
  const cuuint64_t extent[2] = {static_cast<cuuint64_t>(columns), static_cast<cuuint64_t>(rows)}, rowBytes[1] = {static_cast<cuuint64_t>(columns) * 2};
  const cuuint32_t box[2] = {64, static_cast<cuuint32_t>(boxRows)}, steps[2] = {1, 1};
  const CUresult result = !encode ? CUDA_ERROR_NOT_FOUND
                                  : encode(&boxes.map, CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, const_cast<Bf16*>(matrix), extent, rowBytes, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE,
                                           CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  if (result != CUDA_SUCCESS) throw Error(ErrorCode::DeviceLost, "the GPU's driver does not describe matrices for bulk copies (" + std::to_string(result) + "): update the driver");
  return boxes;
}
/// By one thread: fetches the box of rows from `row` on (zeros past the last) and of columns 64·panel on to `element`, at a multiple of 1024
/// bytes, swizzled as an Operand. Its 128·boxRows bytes count for the barrier's phase; who waits for it may let products read them.
TILE_DEVICE void fetchBox(Shared<Bf16> to, int element, const RowBoxes& boxes, int panel, int row, Shared<uint64_t> barriers, int barrier) {
  asm volatile("cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], [%2];" ::"r"(to.address(element)),
               "l"(reinterpret_cast<uint64_t>(&boxes.map)), "r"(barriers.address(barrier)), "r"(panel * 64), "r"(row)
               : "memory");
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
template <int Count, int M>
TILE_DEVICE void pinned(FirstFragments<Count, M> fragments) {
  TILE_UNROLL
  for (int i = 0; i < Count * 4; ++i) asm volatile("" : "+r"(fragments.of[i / 4][i % 4])::"memory");
}

/// Before the first product after accumulators or fragments, all of which are named, were written.
template <class... Registers>
TILE_DEVICE void fenceProducts(Registers&&... registers) {
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
#define TILE_NAMES_16 "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15"
#define TILE_NAMES_40 TILE_NAMES_32 ", %32, %33, %34, %35, %36, %37, %38, %39"
#define TILE_NAMES_48 TILE_NAMES_40 ", %40, %41, %42, %43, %44, %45, %46, %47"
#define TILE_NAMES_76 TILE_NAMES_64 ", %64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75"
#define TILE_FLOATS_4(d, i) "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3])
#define TILE_FLOATS_8(d, i) \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), "+f"(d[i + 6]), "+f"(d[i + 7])
#define TILE_FLOATS_32(d, i) TILE_FLOATS_8(d, i), TILE_FLOATS_8(d, i + 8), TILE_FLOATS_8(d, i + 16), TILE_FLOATS_8(d, i + 24)
#define TILE_WGMMA(shape, names, rest) \
  "{ .reg .pred p; setp.ne.b32 p, " shape ".f32.bf16.bf16 {" names "}, " rest "; }"

/// Starts d = a·bᵀ (+ d where `accumulate`): 64 rows of a, 2·N rows of b, 16 columns, both K-major in shared memory. With warp w of
/// the warpgroup, g = lane/4, t = lane%4: d[4j, 4j+1] = D[16w+g][8j+2t, +1], d[4j+2, 4j+3] = D[16w+g+8][8j+2t, +1].
template <int N>
TILE_DEVICE void multiplyAsync(float (&d)[N], Operand a, Operand b, bool accumulate) {
  static_assert(N == 16 || N == 32 || N == 40 || N == 48 || N == 64 || N == 76);
  if constexpr (N == 16) {
    asm volatile(TILE_WGMMA("%18, 0; wgmma.mma_async.sync.aligned.m64n32k16", TILE_NAMES_16, "%16, %17, p, 1, 1, 0, 0")
                 : TILE_FLOATS_8(d, 0), TILE_FLOATS_8(d, 8)
                 : "l"(a.bits()), "l"(b.bits()), "r"(static_cast<int>(accumulate)));
  } else if constexpr (N == 32) {
    asm volatile(TILE_WGMMA("%34, 0; wgmma.mma_async.sync.aligned.m64n64k16", TILE_NAMES_32, "%32, %33, p, 1, 1, 0, 0")
                 : TILE_FLOATS_32(d, 0)
                 : "l"(a.bits()), "l"(b.bits()), "r"(static_cast<int>(accumulate)));
  } else if constexpr (N == 40) {
    asm volatile(TILE_WGMMA("%42, 0; wgmma.mma_async.sync.aligned.m64n80k16", TILE_NAMES_40, "%40, %41, p, 1, 1, 0, 0")
                 : TILE_FLOATS_32(d, 0), TILE_FLOATS_8(d, 32)
                 : "l"(a.bits()), "l"(b.bits()), "r"(static_cast<int>(accumulate)));
  } else if constexpr (N == 48) {
    asm volatile(TILE_WGMMA("%50, 0; wgmma.mma_async.sync.aligned.m64n96k16", TILE_NAMES_48, "%48, %49, p, 1, 1, 0, 0")
                 : TILE_FLOATS_32(d, 0), TILE_FLOATS_8(d, 32), TILE_FLOATS_8(d, 40)
                 : "l"(a.bits()), "l"(b.bits()), "r"(static_cast<int>(accumulate)));
  } else if constexpr (N == 76) {
    asm volatile(TILE_WGMMA("%78, 0; wgmma.mma_async.sync.aligned.m64n152k16", TILE_NAMES_76, "%76, %77, p, 1, 1, 0, 0")
                 : TILE_FLOATS_32(d, 0), TILE_FLOATS_32(d, 32), TILE_FLOATS_8(d, 64), TILE_FLOATS_4(d, 72)
                 : "l"(a.bits()), "l"(b.bits()), "r"(static_cast<int>(accumulate)));
  } else {
    asm volatile(TILE_WGMMA("%66, 0; wgmma.mma_async.sync.aligned.m64n128k16", TILE_NAMES_64, "%64, %65, p, 1, 1, 0, 0")
                 : TILE_FLOATS_32(d, 0), TILE_FLOATS_32(d, 32)
                 : "l"(a.bits()), "l"(b.bits()), "r"(static_cast<int>(accumulate)));
  }
}
/// Starts d = a·b (+ d where `accumulate`): b MN-major in shared memory, 16 rows of 2·N columns. a[0] = A[16w+g][2t, +1], a[1] = A[16w+g+8][2t, +1],
/// a[2] = A[16w+g][2t+8, +1], a[3] = A[16w+g+8][2t+8, +1].
template <int N>
TILE_DEVICE void multiplyAsyncByRows(float (&d)[N], const uint32_t (&a)[4], Operand b, bool accumulate = true) {
  static_assert(N == 32 || N == 64);
  if constexpr (N == 32) {
    asm volatile(TILE_WGMMA("%37, 0; wgmma.mma_async.sync.aligned.m64n64k16", TILE_NAMES_32, "{%32, %33, %34, %35}, %36, p, 1, 1, 1")
                 : TILE_FLOATS_32(d, 0)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits()), "r"(static_cast<int>(accumulate)));
  } else {
    asm volatile(TILE_WGMMA("%69, 0; wgmma.mma_async.sync.aligned.m64n128k16", TILE_NAMES_64, "{%64, %65, %66, %67}, %68, p, 1, 1, 1")
                 : TILE_FLOATS_32(d, 0), TILE_FLOATS_32(d, 32)
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b.bits()), "r"(static_cast<int>(accumulate)));
  }
}

#undef TILE_NAMES_16
#undef TILE_NAMES_32
#undef TILE_NAMES_40
#undef TILE_NAMES_48
#undef TILE_NAMES_64
#undef TILE_NAMES_76
#undef TILE_FLOATS_4
#undef TILE_FLOATS_8
#undef TILE_FLOATS_32
#undef TILE_WGMMA

}  // namespace vmoba::tile
