// What both bf16 attention kernels (flash.cu, hopper.cu) share: their arguments, the end of a row, and launches that stay short.
#pragma once
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention/attend.h"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

struct FlashArguments {
  AttendJob<Bf16> job;
  float scale;        ///< of logits, in powers of two: log2(e)/sqrt(headDim)
  int32_t firstHead;
};

/// Ends a row held by four neighbouring lanes, of which each has sumAt(n, e), its unnormalised output of column 8n + 2·(lane % 4) + e, and
/// `total`, its part of the denominator. For all lanes of the warp; position < 0: no row.
template <int D, class SumAt>
TILE_DEVICE void finishRow(const FlashArguments& a, int head, int position, float most, float total, const SumAt& sumAt) {
  const AttendJob<Bf16>& x = a.job;
  const int pair = tile::laneIndex() % 4 * 2;
  total += tile::shuffleXor(total, 1);
  total += tile::shuffleXor(total, 2);
  if (position < 0) return;
  if (x.logSumExp && pair == 0) x.logSumExp[int64_t{head} * x.queries + position] = tile::fma(most, a.scale, tile::logarithm2(total));
  const float inverse = 1 / total;
  const int64_t raster = x.scatter ? x.scatter[position] : position;
  Bf16* to = x.out + raster * x.outStride + int64_t{head} * x.headDim;
  TILE_UNROLL
  for (int n = 0; n < D / 8; ++n) {
    const int column = n * 8 + pair;
    if (column >= x.headDim) continue;
    float first = sumAt(n, 0) * inverse, second = sumAt(n, 1) * inverse;
    auto* place32 = reinterpret_cast<uint32_t*>(to + column);
    if (x.accumulate) {
      const uint32_t before = *place32;
      first += tile::lowFloat(before);
      second += tile::highFloat(before);
    }
    *place32 = tile::packBf16(first, second);
  }
}

/// As many heads at a time as `flopsPerLaunch` allows.
template <class Kernel>
void launchByHeads(tile::Stream stream, const AttendJob<Bf16>& job, double flopsPerLaunch, const BetweenLaunches& between) {
  const double perHead = 4.0 * job.queries * job.keys.count * job.paddedDim;
  const int heads = std::clamp(static_cast<int>(flopsPerLaunch / perHead), 1, job.heads);
  const float scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(job.headDim)));
  for (int head = 0; head < job.heads; head += heads) {
    tile::launch<Kernel>(stream, {tile::divideUp(job.queries, kTileRows), std::min(heads, job.heads - head)}, Kernel::sharedBytes, {job, scale, head});
    if (between) between();
  }
}

}  // namespace vmoba::cuda
