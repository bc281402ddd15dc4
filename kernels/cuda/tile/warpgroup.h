// Tile operations that only a Hopper GPU has (sm_90a): barriers with phases, boxes of a matrix fetched by the copy engine, and products that
// a warpgroup (four warps, the first of them at a multiple of four) starts and later waits for. Kernels that use them declare `static constexpr bool warpgroups = true`.
// By nvcc inline PTX (warpgroup_device.h), on the CPU functions with the meaning that the PTX manual gives
// (kernels/emulation/warpgroup_functions.h).
//
// Easy to get wrong: products read shared memory through the asynchronous proxy, so whoever writes it (also by copyAsync) must
// fence that proxy after its write and before it lets others read; accumulators and fragments must not be touched between
// fenceProducts and waitProducts; a matrix in shared memory begins at a multiple of 1024 bytes.
#pragma once
#include "kernels/cuda/tile/tile.h"

namespace vmoba::tile {

/// A matrix of bf16 in shared memory as wgmma takes it, in 128-byte swizzle: panels 64 elements (128 bytes) wide, whose rows
/// follow each other; the 16-byte pieces of a row are permuted by `swizzled`. A K-major operand has k along the row, an MN-major
/// one (multiplyAsyncByRows) has k down the rows.
struct Operand {
  uint32_t low = 0;                                           ///< start and panel bytes, in 16-byte units
  uint32_t high = 1u << 30 | 8 * 128 / 16;  ///< 128-byte swizzle; from eight rows to the next eight
  /// As the instructions take it.
  TILE_DEVICE uint64_t bits() const { return uint64_t{high} << 32 | low; }
  /// The same matrix from `elements` on, whatever lies between: within a row by multiples of 16, or by multiples of 8 rows.
  TILE_DEVICE Operand from(int elements) const { return {low + static_cast<uint32_t>(elements / 8), high}; }
};

/// The same in all lanes.
TILE_DEVICE Operand uniform(Operand operand) { return {uniform(operand.low), operand.high}; }

/// The first `Count` of several fragments: what a shorter product reads.
template <int Count, int M>
struct FirstFragments {
  static_assert(Count <= M);
  uint32_t (&of)[M][4];
};
template <int Count, int M>
TILE_DEVICE FirstFragments<Count, M> firstFragments(uint32_t (&fragments)[M][4]) {
  return {fragments};
}

/// Element of piece `chunk` of `row` in panels of `rows` rows.
TILE_DEVICE int swizzled(int row, int chunk, int rows) { return (chunk / 8 * rows + row) * 64 + ((chunk % 8 ^ row % 8) << 3); }

/// `address`: in shared memory, bytes. `panelBytes`: from one panel to the next, for MN-major operands; K-major ones stay within a
/// panel and have 16 there, which nothing reads.
TILE_DEVICE Operand operandAt(uint32_t address, int panelBytes) { return {static_cast<uint32_t>(panelBytes / 16) << 16 | (address & 0x3ffff) / 16}; }

}  // namespace vmoba::tile

#ifdef __CUDACC__
#include "kernels/cuda/tile/warpgroup_device.h"
#else
#include "kernels/emulation/warpgroup_functions.h"
#endif
