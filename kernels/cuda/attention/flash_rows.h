// What both bf16 attention kernels (flash.cu, hopper.cu) share: their arguments and the end of a row.
#pragma once
#include <cmath>

#include "kernels/cuda/attention/key_tiles.h"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

struct FlashArguments {
  AttendJob<Bf16> job;
  float scale;              ///< of logits, in powers of two: log2(e)/sqrt(headDim)
  int32_t firstHead, heads;

  static FlashArguments of(const AttendJob<Bf16>& job, int32_t firstHead, int32_t heads) {
    return {job, static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(job.headDim))), firstHead, heads};
  }
};

/// The value that a row's weights are relative to, once logits up to `high` have come: it follows the largest logit only where that is
/// over 2^8 times its weight, because then all sums have to be rescaled. Floats lose nothing by weights above one.
TILE_DEVICE float raised(float reference, float high, float scale) { return (high - reference) * scale > 8.0f ? high : reference; }

/// Of four neighbouring lanes that hold two columns each of four groups of eight: lane j gets all of group j.
TILE_DEVICE tile::Words4 gatherGroup(uint32_t a, uint32_t b, uint32_t c, uint32_t d) {
  const int lane = tile::laneIndex();
  const bool odd = lane & 1, upper = lane & 2;
  // Transposes a matrix of four by four words by exchanging halves, then quarters.
  const uint32_t sent0 = tile::shuffleXor(upper ? a : c, 2), sent1 = tile::shuffleXor(upper ? b : d, 2);
  const uint32_t own0 = upper ? c : a, own1 = upper ? d : b;
  const uint32_t low0 = upper ? sent0 : own0, low1 = upper ? sent1 : own1, high0 = upper ? own0 : sent0, high1 = upper ? own1 : sent1;
  const uint32_t fromLow = tile::shuffleXor(odd ? low0 : low1, 1), fromHigh = tile::shuffleXor(odd ? high0 : high1, 1);
  return odd ? tile::Words4{{fromLow, low1, fromHigh, high1}} : tile::Words4{{low0, fromLow, high0, fromHigh}};
}

/// Whether rows of results can be written 16 bytes at a time, whole.
TILE_SHARED_CODE bool isWhole(const AttendJob<Bf16>& x) { return !x.accumulate && x.headDim == x.paddedDim && x.outStride % 8 == 0; }

/// Ends a row held by four neighbouring lanes, of which each has sumAt(n, e), its unnormalised output of column 8n + 2·(lane % 4) + e, and
/// `total`, its part of the denominator. For all lanes of the warp. `position` of the row without cells; `target` as Work gives it. `Whole`:
/// isWhole is known to be true.
template <int D, bool Whole = false, class SumAt>
TILE_DEVICE void finishRow(const FlashArguments& a, int head, int position, int target, float most, float total, const SumAt& sumAt) {
  const AttendJob<Bf16>& x = a.job;
  const int quarter = tile::laneIndex() % 4, pair = quarter * 2;
  total += tile::shuffleXor(total, 1);
  total += tile::shuffleXor(total, 2);
  const bool present = target >= 0, shared = present && (target & kSharedRow) != 0;
  const float inverse = tile::reciprocal(total);
  const int64_t row = present ? target & ~kSharedRow : 0;
  if (present && pair == 0 && (shared || x.logSumExp)) {
    float* log = shared ? x.partials.logSumExp + row : x.logSumExp + int64_t{head} * x.queries + position;
    *log = tile::fma(most, a.scale, tile::logarithm2Quick(total));
  }
  Bf16* to = shared ? x.partials.out + row * D : x.out + row * x.outStride + int64_t{head} * x.headDim;
  if (Whole || isWhole(x)) {
    TILE_UNROLL
    for (int n = 0; n < D / 8; n += 4) {
      const auto packed = [&](int i) { return tile::packBf16(sumAt(n + i, 0) * inverse, sumAt(n + i, 1) * inverse); };
      const tile::Words4 words = gatherGroup(packed(0), packed(1), packed(2), packed(3));
      if (present) *reinterpret_cast<tile::Words4*>(to + (n + quarter) * 8) = words;
    }
    return;
  }
  if (!present) return;
  TILE_UNROLL
  for (int n = 0; n < D / 8; ++n) {
    const int column = n * 8 + pair;
    if (column >= (shared ? D : x.headDim)) continue;
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

}  // namespace vmoba::cuda
