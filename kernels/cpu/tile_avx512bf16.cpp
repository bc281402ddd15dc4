// The tile kernel on AVX-512 with bf16 dot products (vdpbf16ps). This file is compiled with its own flags; nothing in it may run
// before the dispatcher has seen the processor.
#include <immintrin.h>

#include <cstdint>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/tile.h"

namespace vmoba::cpu {
namespace avx512bf16 {
namespace {

constexpr int64_t kChunkBytes = 128 << 10;

#include "kernels/cpu/avx512bf16-inl.h"
#include "kernels/cpu/tile-inl.h"

}  // namespace

extern const TileKernel kernel;
const TileKernel kernel{"avx512-bf16", DType::BF16, Arithmetic::kLanes, Arithmetic::kStep, kSumBytes, Tile<Arithmetic>::scratchBytes, Tile<Arithmetic>::run, Tile<Arithmetic>::finish, Tile<Arithmetic>::gateScratchBytes, Tile<Arithmetic>::gate};

}  // namespace avx512bf16
}  // namespace vmoba::cpu
