#include "kernels/cuda/attention/prepare.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/tile/launch.h"

#include <algorithm>
#include <type_traits>

namespace vmoba::cuda {
namespace {

// Two neighbouring channels, as stored.
template <class T>
struct Pair;
template <>
struct Pair<float> {
  using Type = tile::Floats2;
  static TILE_DEVICE float first(Type p) { return p.at[0]; }
  static TILE_DEVICE float second(Type p) { return p.at[1]; }
  static TILE_DEVICE Type pack(float a, float b) { return {{a, b}}; }
};
template <>
struct Pair<Bf16> {
  using Type = uint32_t;
  static TILE_DEVICE float first(Type p) { return tile::lowFloat(p); }
  static TILE_DEVICE float second(Type p) { return tile::highFloat(p); }
  static TILE_DEVICE Type pack(float a, float b) { return tile::packBf16(a, b); }
};

// Of any alignment; strict in f32. A thread block takes one segment of one projection. Eight rows at a time: each warp sums the squares of one row, then all
// threads go over the row's pairs of channels (second read from L1).
template <class T>
struct Prepare {
  static constexpr const char* name = "prepare";
  static constexpr int threads = 256, blocksPerSM = 4, rows = threads / tile::warpLanes;
  using Arguments = PrepareJob<T>;
  using P = Pair<T>;

  static TILE_DEVICE void run(const Arguments& a) {
    const Projection<T>& x = a.part[tile::blockIndex().y];
    const int segment = tile::blockIndex().x, thread = tile::threadIndex();
    const int first = a.plan.segmentFirst[segment], end = a.plan.segmentFirst[segment + 1];
    const int pairs = a.heads * a.headDim / 2, headPairs = a.headDim / 2, paddedPairs = a.paddedDim / 2;
    const auto factors = tile::sharedWindow<float>(0, rows);
    const auto sums = tile::sharedWindow<double>(rows * 4, x.segmentSums ? a.heads * a.paddedDim : 0);
    using Word = typename P::Type;
    const auto rowAt = [&](int position) {
      const int64_t raster = a.plan.permutation ? a.plan.permutation[position] : position;
      return reinterpret_cast<const Word*>(x.source + raster * x.rowStride);
    };
    if (x.segmentSums)
      for (int i = thread; i < a.heads * paddedPairs; i += threads) {
        sums.set(2 * i, 0.0);
        sums.set(2 * i + 1, 0.0);
      }
    if (x.norms && segment == 0)
      for (int head = thread; head < a.heads; head += threads) tile::atomicMax(x.norms + head, 0x7f800000u);
    bool finite = true;
    for (int group = first; group < end; group += rows) {
      const int mine = group + tile::warpIndex();
      double squares = 0;
      if (x.norm && tile::within(mine, end)) {
        const Word* row = rowAt(mine);
        for (int p = tile::laneIndex(); p < pairs; p += tile::warpLanes) {
          const double u = P::first(row[p]), v = P::second(row[p]);
          squares += u * u;
          squares += v * v;
        }
      }
      squares = tile::warpSum(squares);
      if (tile::laneIndex() == 0) factors.set(tile::warpIndex(), static_cast<float>(1 / tile::squareRoot(squares / (2 * pairs) + static_cast<double>(a.eps))));
      tile::barrier();
      for (int p = thread; p < a.heads * paddedPairs; p += threads) {
        const int head = p / paddedPairs, j = p % paddedPairs, column = head * headPairs + j;
        const bool padding = j >= headPairs;
        double sumFirst = x.segmentSums ? sums.get(2 * p) : 0, sumSecond = x.segmentSums ? sums.get(2 * p + 1) : 0;
        for (int r = 0; r < rows && tile::within(group + r, end); ++r) {
          const int position = group + r;
          float u = 0, v = 0;
          if (!padding) {
            const Word word = rowAt(position)[column];
            u = P::first(word);
            v = P::second(word);
            finite = finite && isFinite(u) && isFinite(v);
            if (x.norm) {
              const float factor = factors.get(r);
              u = u * factor * x.norm[2 * column];
              v = v * factor * x.norm[2 * column + 1];
            }
            if (x.ropeCos) {
              const int64_t raster = a.plan.permutation ? a.plan.permutation[position] : position;
              const float cosine = x.ropeCos[raster * headPairs + j], sine = x.ropeSin[raster * headPairs + j];
              const float turned = u * cosine - v * sine;
              v = u * sine + v * cosine;
              u = turned;
            }
          }
          const Word result = P::pack(u, v);
          reinterpret_cast<Word*>(x.out)[(int64_t{head} * a.plan.tokens + position) * paddedPairs + j] = result;
          sumFirst += static_cast<double>(P::first(result));
          sumSecond += static_cast<double>(P::second(result));
        }
        if (x.segmentSums) {
          sums.set(2 * p, sumFirst);
          sums.set(2 * p + 1, sumSecond);
        }
      }
      tile::barrier();
    }
    if (x.segmentSums)
      for (int p = thread; p < a.heads * paddedPairs; p += threads) {
        double* to = x.segmentSums + (int64_t{segment} * a.heads * paddedPairs + p) * 2;
        to[0] = sums.get(2 * p);
        to[1] = sums.get(2 * p + 1);
      }
    if (!finite && a.notFinite) tile::atomicOr(a.notFinite, 1u);
  }
};

// bf16 at the memory's pace, with heads of whole pieces of eight channels (16 bytes). A thread owns one piece of all rows of the segment, its sums
// included. While one group of rows is worked on, the loads of the next are on their way, its rotations by asynchronous copies into shared memory.
// Squares are summed in f32 (finite for values up to some 10^17), and so are the at most 64 rows of a segment, whose values have 8 bits each; the
// segments are summed in double. Every order is fixed.
template <int Threads>
struct PrepareWide {
  static constexpr const char* name = "prepare, bf16";
  static constexpr int threads = Threads, blocksPerSM = 768 / Threads;
  static constexpr int rows = 4, warps = Threads / tile::warpLanes, lanesOfRow = tile::warpLanes / rows, channels = 8, mostFourths = 128 / channels;
  static constexpr int offsetsAt = kSegmentTokens * 4, partialsAt = 2 * offsetsAt, mostAt = partialsAt + 2 * warps * rows * 4, rotationsAt = mostAt + Threads * 4;
  static constexpr int weightsAt = rotationsAt + 2 * rows * 2 * mostFourths * 16;
  static_assert(Threads >= kSegmentTokens && Threads >= rows * 2 * mostFourths && rotationsAt % 16 == 0);
  static int sharedBytes(bool normed) { return weightsAt + (normed ? 2 * Threads * 16 : 0); }
  using Arguments = PrepareJob<Bf16>;

  static TILE_DEVICE void run(const Arguments& a) {
    const Projection<Bf16>& x = a.part[tile::blockIndex().x];
    if (!x.norm) return x.ropeCos ? by<false, true>(a, x) : by<false, false>(a, x);
    x.ropeCos ? by<true, true>(a, x) : by<true, false>(a, x);
  }

 private:
  template <bool Normed, bool Rotated>
  static TILE_DEVICE void by(const Arguments& a, const Projection<Bf16>& x) {
    x.segmentSums ? segment<Normed, Rotated, true>(a, x) : segment<Normed, Rotated, false>(a, x);
  }

  template <bool Normed, bool Rotated, bool Summed>
  static TILE_DEVICE void segment(const Arguments& a, const Projection<Bf16>& x) {
    const int first = a.plan.segmentFirst[tile::blockIndex().y], count = a.plan.segmentFirst[tile::blockIndex().y + 1] - first;
    const int piece = tile::threadIndex();
    const int piecesOfHead = a.paddedDim / channels, fourths = a.headDim / channels;  // the latter: of a row's cosines, and of its sines
    const auto rasters = tile::sharedWindow<int32_t>(0, kSegmentTokens), offsets = tile::sharedWindow<int32_t>(offsetsAt, kSegmentTokens);  // of rows, in pieces
    const auto partials = tile::sharedWindow<float>(partialsAt, 2 * warps * rows);
    const auto rotations = tile::sharedWindow<tile::Floats4>(rotationsAt, 2 * rows * 2 * fourths);  // of each row the cosines, then the sines
    const auto weights = tile::sharedWindow<tile::Floats4>(weightsAt, Normed ? 2 * Threads : 0);    // of each piece the first half, then of each the second
    if (tile::within(piece, count)) {
      const int raster = a.plan.permutation ? a.plan.permutation[first + piece] : first + piece;
      rasters.set(piece, raster);
      offsets.set(piece, static_cast<int32_t>(raster * x.rowStride / channels));
    }
    const int head = piece / piecesOfHead, fourth = piece % piecesOfHead, column = head * a.headDim + fourth * channels;
    const bool mine = piece < a.heads * piecesOfHead, filled = mine && fourth < fourths;  // padding is owned, but not filled
    const auto* source = reinterpret_cast<const tile::Words4*>(x.source + column);
    auto* out = reinterpret_cast<tile::Words4*>(x.out) + (int64_t{head} * a.plan.tokens + first) * piecesOfHead + fourth;
    if (Normed && filled)
      TILE_UNROLL
      for (int i = 0; i < 2; ++i) weights.set(i * Threads + piece, reinterpret_cast<const tile::Floats4*>(x.norm + column)[i]);
    float sums[channels] = {};
    const auto most = tile::sharedWindow<float>(mostAt, Threads);  // squared norms so far; registers are scarce
    if (x.norms) most.set(piece, 0.0f);
    tile::barrier();

    const auto fetch = [&](tile::Words4 (&to)[rows], int group) {
      TILE_UNROLL
      for (int r = 0; r < rows; ++r) {
        to[r] = {};
        if (filled && tile::within(group * rows + r, count)) to[r] = source[offsets.get(group * rows + r)];
      }
    };
    const int rotatedRow = piece / (2 * fourths), rotation = piece % (2 * fourths);
    const auto fetchRotations = [&](int group) {
      const int row = group * rows + rotatedRow;
      if (rotatedRow < rows && tile::within(row, count)) {
        const bool sine = rotation >= fourths;
        const auto* from = reinterpret_cast<const tile::Floats4*>(sine ? x.ropeSin : x.ropeCos) + int64_t{rasters.get(row)} * fourths + rotation - (sine ? fourths : 0);
        tile::copyAsync<16>(rotations, group % 2 * rows * 2 * fourths + piece, from);
      }
      tile::commitCopies();
    };

    const float scale = 1.0f / static_cast<float>(a.heads * a.headDim);
    tile::Words4 words[rows], next[rows];
    fetch(words, 0);
    if (Rotated) fetchRotations(0);
    bool finite = true;
    for (int group = 0; group * rows < count; ++group) {
      fetch(next, group + 1);
      const int thread = tile::renewed(piece), lane = thread % tile::warpLanes, rowOfLane = lane / lanesOfRow;  // computed again, not held
      float factor = 1;
      bool suspicious = true;
      if constexpr (Normed) {
        const float sum = foldSquares(words);
        if (lane % lanesOfRow == 0) partials.set((group % 2 * warps + thread / tile::warpLanes) * rows + rowOfLane, sum);
      }
      if (Rotated) tile::waitCopies<0>();
      if (Normed || Rotated) tile::barrier();  // and everyone is done with the group before
      if (Rotated && (group + 1) * rows < count) fetchRotations(group + 1);
      if constexpr (Normed) {
        float sum = 0;
        TILE_UNROLL
        for (int w = 0; w < warps; ++w) sum += partials.get((group % 2 * warps + w) * rows + rowOfLane);
        factor = 1.0f / tile::squareRoot(sum * scale + a.eps);
        suspicious = tile::ballot(!isFinite(sum)) != 0;
      }
      if (suspicious) finite = finite && areFinite(words);
      float squares = 0, ofFirstRows = 0;
      TILE_UNROLL
      for (int r = 0; r < rows; ++r) {
        const float factorOfRow = Normed ? tile::shuffle(factor, r * lanesOfRow) : 1.0f;
        const int row = group * rows + r;
        const bool present = mine && tile::within(row, count);
        tile::Words4 result = words[r];
        if (present && filled) {
          tile::Floats4 weight[2], cosine, sine;
          if constexpr (Normed) {
            const int at = tile::renewed(piece);  // to be fetched again, not held
            weight[0] = weights.get(at);
            weight[1] = weights.get(at + Threads);
          }
          if constexpr (Rotated) {
            const int at = (group % 2 * rows + r) * 2 * fourths + fourth;
            cosine = rotations.get(at);
            sine = rotations.get(at + fourths);
          }
          TILE_UNROLL
          for (int w = 0; w < 4; ++w) {
            uint32_t& word = result.word[w];
            if constexpr (Normed || Rotated) {
              word = static_cast<uint32_t>(tile::renewed(static_cast<int>(word)));  // or both halves stay in registers from the squares on
              float u = tile::lowFloat(word), v = tile::highFloat(word);
              if constexpr (Normed) {
                u = u * factorOfRow * weight[w / 2].at[2 * w % 4];
                v = v * factorOfRow * weight[w / 2].at[2 * w % 4 + 1];
              }
              if constexpr (Rotated) {
                const float turned = tile::fma(u, cosine.at[w], -(v * sine.at[w]));
                v = tile::fma(u, sine.at[w], v * cosine.at[w]);
                u = turned;
              }
              word = tile::packBf16(u, v);
            }
            if constexpr (Summed) {
              sums[2 * w] += tile::lowFloat(word);
              sums[2 * w + 1] += tile::highFloat(word);
            }
          }
        }
        if (present) out[row * piecesOfHead] = result;
        if (!x.norms) continue;
        // Pairs of rows as they come: few are held at a time.
        const float squaresOfRow = present ? squaresOf(result) : 0;
        if (r % 2 == 0) {
          squares = squaresOfRow;
        } else if (r == 1) {
          ofFirstRows = halves(squares, squaresOfRow, piecesOfHead / 2);
        } else {
          const float norm = sumOver(halves(ofFirstRows, halves(squares, squaresOfRow, piecesOfHead / 2), piecesOfHead / 4), piecesOfHead / 8);
          most.set(thread, tile::maximum(most.get(thread), norm));
        }
      }
      TILE_UNROLL
      for (int r = 0; r < rows; ++r) words[r] = next[r];
    }
    if (x.norms) {
      float norm = most.get(piece);
      for (int mask = piecesOfHead / 2; mask > 0; mask /= 2) norm = tile::maximum(norm, tile::shuffleXor(norm, mask));
      if (mine && fourth == 0) tile::atomicMax(x.norms + head, tile::bitsOfFloat(norm));
    }
    if (Summed && mine) {
      double* to = x.segmentSums + (int64_t{tile::blockIndex().y} * a.heads * piecesOfHead + piece) * channels;
      TILE_UNROLL
      for (int i = 0; i < channels; ++i) to[i] = static_cast<double>(sums[i]);
    }
    if (!finite && a.notFinite) tile::atomicOr(a.notFinite, 1u);
  }

  static TILE_DEVICE bool areFinite(const tile::Words4 (&words)[rows]) {
    uint32_t exponents = 0;
    TILE_UNROLL
    for (int i = 0; i < 4 * rows; ++i) exponents |= (words[i / 4].word[i % 4] & 0x7f807f80u) + 0x00800080u;  // into the sign where all are ones
    return (exponents & 0x80008000u) == 0;
  }

  static TILE_DEVICE float squaresOf(const tile::Words4& words) {
    float sum = 0;
    TILE_UNROLL
    for (int w = 0; w < 4; ++w) {
      const float u = tile::lowFloat(words.word[w]), v = tile::highFloat(words.word[w]);
      sum = tile::fma(v, v, tile::fma(u, u, sum));
    }
    return sum;
  }

  /// The sums of squares of the warp's part of each row: lane l gets that of row l / lanesOfRow.
  static TILE_DEVICE float foldSquares(const tile::Words4 (&words)[rows]) {
    float sum[rows];
    TILE_UNROLL
    for (int r = 0; r < rows; ++r) sum[r] = squaresOf(words[r]);
    int mask = tile::warpLanes / 2;
    TILE_UNROLL
    for (int kept = rows / 2; kept > 0; kept /= 2, mask /= 2) {
      TILE_UNROLL
      for (int i = 0; i < kept; ++i) sum[i] = halves(sum[i], sum[i + kept], mask);
    }
    return sumOver(sum[0], mask);
  }
  /// Of two sums over lanes that differ in `mask`: those without it get the first, the others the second.
  static TILE_DEVICE float halves(float first, float second, int mask) {
    const bool upper = (tile::laneIndex() & mask) != 0;
    return (upper ? second : first) + tile::shuffleXor(upper ? first : second, mask);
  }
  /// Over lanes that differ in `mask` or lower bits.
  static TILE_DEVICE float sumOver(float value, int mask) {
    TILE_UNROLL
    for (; mask > 0; mask /= 2) value += tile::shuffleXor(value, mask);
    return value;
  }
};

struct BlockMeans {
  static constexpr const char* name = "block means";
  static constexpr int threads = 128, blocksPerSM = 8;
  struct Arguments {
    PlanView plan;
    const double* segmentSums;
    float* means;
    int32_t heads, paddedDim;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int block = tile::blockIndex().x, width = a.heads * a.paddedDim;
    const double length = a.plan.start[block + 1] - a.plan.start[block];
    const int column = tile::blockIndex().y * threads + tile::threadIndex();
    if (!tile::within(column, width)) return;
    double sum = 0;
    TILE_UNROLL_BY(8)
    for (int segment = a.plan.blockFirstSegment[block]; segment < a.plan.blockFirstSegment[block + 1]; ++segment)
      sum += a.segmentSums[int64_t{segment} * width + column];
    a.means[(int64_t{column / a.paddedDim} * a.plan.blocks + block) * a.paddedDim + column % a.paddedDim] = static_cast<float>(sum / length);
  }
};

/// Whether all rows of all parts can be moved 16 bytes at a time.
bool isWide(const PrepareJob<Bf16>& job) {
  const auto aligned = [](const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; };
  bool wide = job.headDim % 8 == 0 && job.plan.segments <= 65535;  // what a grid's second dimension takes
  for (int i = 0; i < job.parts; ++i) {
    const Projection<Bf16>& x = job.part[i];
    wide = wide && x.rowStride % 8 == 0 && x.rowStride / 8 * job.plan.tokens < int64_t{1} << 31;
    wide = wide && aligned(x.source) && aligned(x.norm) && aligned(x.ropeCos) && aligned(x.ropeSin) && aligned(x.out);
  }
  return wide;
}

template <int Threads>
void prepareWide(tile::Stream stream, const PrepareJob<Bf16>& job) {
  using Kernel = PrepareWide<Threads>;
  bool normed = false;
  for (int i = 0; i < job.parts; ++i) normed = normed || job.part[i].norm;
  tile::launch<Kernel>(stream, {job.parts, job.plan.segments}, Kernel::sharedBytes(normed), job);  // q, k, v of the same rows beside each other
}

}  // namespace

template <class T>
void prepare(tile::Stream stream, const PrepareJob<T>& job) {
  if constexpr (std::is_same_v<T, Bf16>) {
    const int pieces = job.heads * job.paddedDim / 8;
    if (isWide(job)) {
      if (pieces <= 192) return prepareWide<192>(stream, job);
      if (pieces <= 384) return prepareWide<384>(stream, job);
      if (pieces <= 640) return prepareWide<640>(stream, job);
    }
  }
  bool sums = false;
  for (int i = 0; i < job.parts; ++i) sums = sums || job.part[i].segmentSums;
  const int shared = Prepare<T>::rows * 4 + (sums ? job.heads * job.paddedDim * 8 : 0);
  tile::launch<Prepare<T>>(stream, {job.plan.segments, job.parts}, shared, job);
}

void blockMeans(tile::Stream stream, const PlanView& plan, const double* segmentSums, int32_t heads, int32_t paddedDim, float* means) {
  tile::launch<BlockMeans>(stream, {plan.blocks, tile::divideUp(heads * paddedDim, BlockMeans::threads)}, 0, {plan, segmentSums, means, heads, paddedDim});
}

template void prepare<float>(tile::Stream, const PrepareJob<float>&);
template void prepare<Bf16>(tile::Stream, const PrepareJob<Bf16>&);

}  // namespace vmoba::cuda
