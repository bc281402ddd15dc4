// The tile-operations layer every CUDA kernel is written on. Compiled by nvcc the operations are a GPU's instructions
// (device.h, inline PTX); compiled by the host compiler they are functions over emulated thread blocks
// (kernels/emulation/tile_functions.h). A kernel's body sees only this file and cannot tell which it got.
//
// A kernel is a struct:
//
//   struct Scale {
//     static constexpr const char* name = "scale";
//     static constexpr int threads = 128;      // per block: whole warps, the launch bound
//     static constexpr int blocksPerSM = 4;    // occupancy the compiler must leave registers for
//     struct Arguments { const float* x; float* y; int n; float factor; };
//     static TILE_DEVICE void run(const Arguments& a) { ... }
//   };
//   tile::launch<Scale>(stream, {blocks}, sharedBytes, {x, y, n, factor});      // launch.h
//
// One that needs Hopper's own operations (warpgroup.h) also says `static constexpr bool warpgroups = true`.
//
// Easy to get wrong: all 32 lanes must reach every warp operation; what a lane copies asynchronously is visible to itself
// after waitCopies and to others only after a barrier as well; edges go through `within`, not a bare comparison.
#pragma once
#include <cstdint>

#include "kernels/cuda/tile/common.h"
#include "native/base/dtype.h"

namespace vmoba::tile {

constexpr int warpLanes = 32;
constexpr uint32_t noValue = 0xffffffffu;

struct Extent {
  int x = 1, y = 1, z = 1;
};

template <class Kernel>
constexpr bool needsWarpgroups = requires { Kernel::warpgroups; };

/// 16 bytes moved at once.
struct alignas(16) Words4 {
  uint32_t word[4];
};
struct alignas(8) Words2 {
  uint32_t word[2];
};
struct alignas(16) Floats4 {
  float at[4];
};
struct alignas(8) Floats2 {
  float at[2];
};

}  // namespace vmoba::tile

#ifdef __CUDACC__
#include "kernels/cuda/tile/device.h"
#else
#include "kernels/emulation/tile_functions.h"
#endif

namespace vmoba::tile {

// Built from the operations above, the same on both sides -----------------------------------------------------------

TILE_DEVICE int laneIndex() { return threadIndex() % warpLanes; }
TILE_DEVICE int warpIndex() { return threadIndex() / warpLanes; }

/// Sum over the lanes of a warp, the same in every lane and in a fixed order.
template <class T>
TILE_DEVICE T warpSum(T value) {
  TILE_UNROLL
  for (int mask = warpLanes / 2; mask > 0; mask /= 2) value = value + shuffleXor(value, mask);
  return value;
}
TILE_DEVICE float warpMax(float value) {
  TILE_UNROLL
  for (int mask = warpLanes / 2; mask > 0; mask /= 2) value = maximum(value, shuffleXor(value, mask));
  return value;
}
TILE_DEVICE float warpMin(float value) { return -warpMax(-value); }

/// Sum over the block, in every thread. `scratch`: one T per warp. Holds two barriers.
template <class T>
TILE_DEVICE T blockSum(T value, Shared<T> scratch, int warps) {
  value = warpSum(value);
  if (laneIndex() == 0) scratch.set(warpIndex(), value);
  barrier();
  T sum = scratch.get(0);
  for (int w = 1; w < warps; ++w) sum = sum + scratch.get(w);
  barrier();
  return sum;
}
TILE_DEVICE float blockMax(float value, Shared<float> scratch, int warps) {
  value = warpMax(value);
  if (laneIndex() == 0) scratch.set(warpIndex(), value);
  barrier();
  float most = scratch.get(0);
  for (int w = 1; w < warps; ++w) most = maximum(most, scratch.get(w));
  barrier();
  return most;
}

TILE_DEVICE float bf16ToFloat(uint32_t bits) { return floatOfBits(bits << 16); }
TILE_DEVICE float toFloat(Bf16 value) { return bf16ToFloat(value.bits); }
TILE_DEVICE float toFloat(float value) { return value; }
/// Of two packed bf16 the first (lower half) and the second.
TILE_DEVICE float lowFloat(uint32_t pair) { return floatOfBits(pair << 16); }
TILE_DEVICE float highFloat(uint32_t pair) { return floatOfBits(pair & 0xffff0000u); }
TILE_DEVICE Bf16 toBf16(float value) { return Bf16{static_cast<uint16_t>(packBf16(value, 0.0f) & 0xffffu)}; }

template <class T>
TILE_DEVICE T fromFloat(float value);
template <>
TILE_DEVICE float fromFloat<float>(float value) {
  return value;
}
template <>
TILE_DEVICE Bf16 fromFloat<Bf16>(float value) {
  return toBf16(value);
}

}  // namespace vmoba::tile
