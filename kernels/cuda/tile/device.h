// The tile operations as instructions of an NVIDIA GPU, sm_80 and later (PTX ISA 7.0+). Included by tile.h only.
#pragma once
#include <cuda_runtime.h>

namespace vmoba::tile {

TILE_DEVICE int threadIndex() { return static_cast<int>(threadIdx.x); }
TILE_DEVICE Extent blockIndex() { return {static_cast<int>(blockIdx.x), static_cast<int>(blockIdx.y), static_cast<int>(blockIdx.z)}; }
TILE_DEVICE Extent gridExtent() { return {static_cast<int>(gridDim.x), static_cast<int>(gridDim.y), static_cast<int>(gridDim.z)}; }
TILE_DEVICE int blockThreads() { return static_cast<int>(blockDim.x); }

TILE_DEVICE void barrier() { __syncthreads(); }
TILE_DEVICE void warpBarrier() { __syncwarp(); }

/// False from `count` on: the edge of a ragged tail.
TILE_DEVICE bool within(int64_t index, int64_t count) { return index < count; }
TILE_DEVICE bool within(int index, int count) { return index < count; }

// Scalars ----------------------------------------------------------------------------------------------------------

TILE_DEVICE uint32_t bitsOfFloat(float value) { return __float_as_uint(value); }
TILE_DEVICE float floatOfBits(uint32_t bits) { return __uint_as_float(bits); }
TILE_DEVICE float fma(float a, float b, float c) { return __fmaf_rn(a, b, c); }
TILE_DEVICE float maximum(float a, float b) { return fmaxf(a, b); }
TILE_DEVICE float minimum(float a, float b) { return fminf(a, b); }
TILE_DEVICE float squareRoot(float value) { return sqrtf(value); }
TILE_DEVICE double squareRoot(double value) { return sqrt(value); }
TILE_DEVICE float exponential(float value) { return expf(value); }
TILE_DEVICE float logarithm2(float value) { return log2f(value); }
TILE_DEVICE float hyperbolicTangent(float value) { return tanhf(value); }
TILE_DEVICE float errorFunction(float value) { return erff(value); }
/// 2^value to 2 ulp, 0 for minus infinity.
TILE_DEVICE float exponential2(float value) {
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
/// 1/value to 1 ulp.
TILE_DEVICE float reciprocal(float value) {
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
/// log2(value) to 2^-22 or 2 ulp, whichever is more.
TILE_DEVICE float logarithm2Quick(float value) {
  float result;
  asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(value));
  return result;
}
/// Two floats rounded to nearest even bf16, `low` in the lower half.
TILE_DEVICE uint32_t packBf16(float low, float high) {
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
}
/// The same value, but computed anew from here on: keeps the compiler from holding everything derived from it in registers.
TILE_DEVICE int renewed(int value) {
  asm volatile("" : "+r"(value));
  return value;
}
TILE_DEVICE int populationCount(uint32_t bits) { return __popc(bits); }
/// Position of the lowest set bit, 0-based; -1 for 0.
TILE_DEVICE int lowestBit(uint32_t bits) { return __ffs(static_cast<int>(bits)) - 1; }
/// Position of the highest set bit, 0-based; -1 for 0.
TILE_DEVICE int highestBit(uint32_t bits) { return 31 - __clz(static_cast<int>(bits)); }

/// Sets bit `bit` of a word.
TILE_DEVICE uint32_t setBit(uint32_t word, int bit) { return word | (1u << bit); }
TILE_DEVICE bool bitOf(uint32_t word, int bit) { return (word >> bit) & 1u; }

// Warp -------------------------------------------------------------------------------------------------------------

template <class T>
TILE_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(0xffffffffu, value, lane);
}
/// The value that all lanes have. Tells the compiler, which then computes what depends on it once per warp.
TILE_DEVICE uint32_t uniform(uint32_t value) { return __reduce_or_sync(0xffffffffu, value); }
template <class T>
TILE_DEVICE T shuffleXor(T value, int mask) {
  return __shfl_xor_sync(0xffffffffu, value, mask);
}
/// The value of the lane `delta` below; the own value where there is none.
template <class T>
TILE_DEVICE T shuffleUp(T value, int delta) {
  return __shfl_up_sync(0xffffffffu, value, static_cast<unsigned>(delta));
}
TILE_DEVICE uint32_t ballot(bool predicate) { return __ballot_sync(0xffffffffu, predicate); }
/// The lanes whose `value` has the same lowest `Bits` bits as this lane's.
template <int Bits>
TILE_DEVICE uint32_t lanesAlike(uint32_t value) {
  uint32_t alike = 0xffffffffu;
  TILE_UNROLL
  for (int bit = 0; bit < Bits; ++bit) {
    uint32_t votes;  // as PTX, because of a ballot and a choice by its predicate the compiler makes seven instructions
    asm volatile(
        "{.reg .pred p; .reg .b32 b; and.b32 b, %1, %2; setp.ne.u32 p, b, 0;"
        " vote.sync.ballot.b32 %0, p, 0xffffffff; @!p not.b32 %0, %0;}"
        : "=r"(votes)
        : "r"(value), "r"(1u << bit));
    alike &= votes;
  }
  return alike;
}

// Shared memory ----------------------------------------------------------------------------------------------------

/// A window of the block's dynamic shared memory.
template <class T>
class Shared {
 public:
  TILE_DEVICE Shared(T* data, uint32_t address) : data_(data), address_(address) {}
  TILE_DEVICE T get(int i) const { return data_[i]; }
  TILE_DEVICE void set(int i, T value) const { data_[i] = value; }
  TILE_DEVICE T* pointer(int i) const { return data_ + i; }
  /// The elements from `first` on.
  TILE_DEVICE Shared from(int first) const { return Shared(data_ + first, address(first)); }
  /// Of element i, in the shared state space, 32 bits wide: what PTX instructions take.
  TILE_DEVICE uint32_t address(int i) const { return address_ + static_cast<uint32_t>(i) * static_cast<uint32_t>(sizeof(T)); }
  /// The same bytes as other elements; `i` in units of U.
  template <class U>
  TILE_DEVICE U getAs(int i) const {
    return reinterpret_cast<const U*>(data_)[i];
  }
  template <class U>
  TILE_DEVICE void setAs(int i, U value) const {
    reinterpret_cast<U*>(data_)[i] = value;
  }

 private:
  T* data_;
  uint32_t address_;
};

template <class T>
TILE_DEVICE Shared<T> sharedWindow(int byteOffset, [[maybe_unused]] int count) {
  extern __shared__ __align__(1024) unsigned char vmobaSharedMemory[];
  return Shared<T>(reinterpret_cast<T*>(vmobaSharedMemory + byteOffset),
                   static_cast<uint32_t>(__cvta_generic_to_shared(vmobaSharedMemory)) + static_cast<uint32_t>(byteOffset));
}

/// Starts copying `Bytes` (16; also 8 or 4) to element i; bytes from `validBytes` on become zero (and are not read).
template <int Bytes, class T>
TILE_DEVICE void copyAsync(Shared<T> destination, int i, const T* source, int validBytes = Bytes) {
  if constexpr (Bytes == 16) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(destination.address(i)), "l"(source), "r"(validBytes) : "memory");
  } else {
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(destination.address(i)), "l"(source), "n"(Bytes), "r"(validBytes) : "memory");
  }
}
TILE_DEVICE void commitCopies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
/// Waits until at most `GroupsLeft` of this thread's committed groups are in flight.
template <int GroupsLeft>
TILE_DEVICE void waitCopies() {
  asm volatile("cp.async.wait_group %0;" ::"n"(GroupsLeft) : "memory");
}

/// ldmatrix.x4: four 8x8 bf16 matrices; lanes 8m..8m+7 give the first elements of matrix m's rows (16-byte aligned).
/// Register m of lane t holds row t/4, columns 2(t%4) and +1 of matrix m.
TILE_DEVICE void loadMatrices(uint32_t (&r)[4], Shared<Bf16> window, int element) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(window.address(element))
               : "memory");
}
/// The same, each matrix transposed: lane t gets rows 2(t%4) and +1 of column t/4.
TILE_DEVICE void loadMatricesTransposed(uint32_t (&r)[4], Shared<Bf16> window, int element) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(window.address(element))
               : "memory");
}

/// c += a·b, m16n8k16. With g = lane/4, t = lane%4 (PTX ISA, "Matrix Fragments for mma.m16n8k16"):
/// a[0] = A[g][2t,+1], a[1] = A[g+8][2t,+1], a[2] = A[g][2t+8,+1], a[3] = A[g+8][2t+8,+1];
/// b0 = B[2t,+1][g], b1 = B[2t+8,+1][g]; c[0,1] = C[g][2t,+1], c[2,3] = C[g+8][2t,+1].
TILE_DEVICE void multiplyAccumulate(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Atomics ----------------------------------------------------------------------------------------------------------

TILE_DEVICE uint32_t atomicAdd(uint32_t* address, uint32_t value) { return ::atomicAdd(address, value); }
TILE_DEVICE uint64_t atomicAdd(uint64_t* address, uint64_t value) {
  return ::atomicAdd(reinterpret_cast<unsigned long long*>(address), static_cast<unsigned long long>(value));
}
TILE_DEVICE float atomicAdd(float* address, float value) { return ::atomicAdd(address, value); }
TILE_DEVICE uint32_t atomicOr(uint32_t* address, uint32_t value) { return ::atomicOr(address, value); }
TILE_DEVICE uint32_t atomicMax(uint32_t* address, uint32_t value) { return ::atomicMax(address, value); }
TILE_DEVICE uint32_t atomicMin(uint32_t* address, uint32_t value) { return ::atomicMin(address, value); }
template <class T>
TILE_DEVICE T atomicAdd(Shared<T> window, int i, T value) {
  return atomicAdd(window.pointer(i), value);
}
TILE_DEVICE uint32_t atomicOr(Shared<uint32_t> window, int i, uint32_t value) { return ::atomicOr(window.pointer(i), value); }

}  // namespace vmoba::tile
