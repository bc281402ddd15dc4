#include "kernels/cuda/quantise.h"

#include "kernels/cuda/elements.cuh"

namespace vmoba::cuda {
namespace {

constexpr int threadsPerBlock = 256;

/// Of floats without their sign the greatest is the one with the greatest bits; NaN is above all.
struct LargestMagnitude {
  static constexpr const char* name = "largest magnitude";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const Bf16* x;
    uint32_t* largest;
    int64_t count;
    bool vector;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = (int64_t{tile::blockIndex().x} * threads + tile::threadIndex()) * 4;
    const Four v = loadFour(p.x, i, p.count, p.vector);  // zeros behind the end
    uint32_t most = 0;
    for (int j = 0; j < 4; ++j) {
      const uint32_t bits = tile::bitsOfFloat(v.at[j]) & 0x7fffffffu;
      most = bits > most ? bits : most;
    }
    for (int mask = tile::warpLanes / 2; mask > 0; mask /= 2) {
      const uint32_t other = tile::shuffleXor(most, mask);
      most = other > most ? other : most;
    }
    if (tile::laneIndex() == 0) tile::atomicMax(p.largest, most);
  }
};

struct Quantise {
  static constexpr const char* name = "quantise";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const Bf16* x;
    uint8_t* out;
    float* scale;  ///< the second holds the largest magnitude
    int64_t count;
    bool vector;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t thread = int64_t{tile::blockIndex().x} * threads + tile::threadIndex(), i = thread * 4;
    const float largest = p.scale[1], scale = largest == 0.0f ? 1.0f : largest / 448.0f;
    if (thread == 0) p.scale[0] = scale;
    if (!tile::within(i, p.count)) return;
    const Four v = loadFour(p.x, i, p.count, p.vector);
    for (int j = 0; j < 4; ++j)
      if (tile::within(i + j, p.count)) p.out[i + j] = static_cast<uint8_t>(floatToE4m3(v.at[j] / scale));
  }
};

}  // namespace

void quantiseE4m3(const Bf16* x, uint8_t* out, float* scale, int64_t count, tile::Stream stream) {
  const tile::Extent grid{tile::divideUp(count, threadsPerBlock * 4)};
  tile::launch<LargestMagnitude>(stream, grid, 0, {x, reinterpret_cast<uint32_t*>(scale + 1), count, alignedForFour(x)});
  tile::launch<Quantise>(stream, grid, 0, {x, out, scale, count, alignedForFour(x)});
}

}  // namespace vmoba::cuda
