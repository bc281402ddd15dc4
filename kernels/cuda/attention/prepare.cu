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

// bf16 at the memory's pace, with heads of whole pieces of eight channels. A thread owns `Chunks` pieces, the same ones in all rows of the segment: it
// holds their norm weights and sums, and moves 16 bytes at a time. While one group of rows is worked on, the loads of the next are on their way,
// its rotations by asynchronous copies into shared memory. Squares are summed in f32 (finite up to values near 10^18), and so are the at most 64
// rows of a segment, whose results have 8 bits each; the segments are summed in double. Every order is fixed.
template <int Threads, int Chunks>
struct PrepareWide {
  static constexpr const char* name = "prepare, bf16";
  static constexpr int threads = Threads, blocksPerSM = Threads * Chunks <= 192 ? 3 : Threads == 192 ? 2 : 1;
  static constexpr int rows = 4 / Chunks, warps = Threads / tile::warpLanes, lanesOfRow = tile::warpLanes / rows, channels = 8;
  static constexpr int partialsAt = 2 * kSegmentTokens * 4, rotationsAt = (partialsAt + 2 * warps * rows * 4 + 15) / 16 * 16;
  static_assert(Threads >= kSegmentTokens && Threads >= rows * 128 / 4);
  static int sharedBytes(int headDim) { return rotationsAt + 2 * rows * headDim * 4; }
  using Arguments = PrepareJob<Bf16>;

  static TILE_DEVICE void run(const Arguments& a) {
    const Projection<Bf16>& x = a.part[tile::blockIndex().x];
    const int first = a.plan.segmentFirst[tile::blockIndex().y], count = a.plan.segmentFirst[tile::blockIndex().y + 1] - first;
    const int thread = tile::threadIndex(), lane = tile::laneIndex(), warp = tile::warpIndex(), rowOfLane = lane / lanesOfRow;
    const int half = a.headDim / 2, chunksOfHead = a.paddedDim / channels;
    const bool normed = x.norm != nullptr, rotated = x.ropeCos != nullptr, summed = x.segmentSums != nullptr;
    const float scale = 1.0f / static_cast<float>(a.heads * a.headDim);
    const auto rasters = tile::sharedWindow<int32_t>(0, kSegmentTokens), offsets = tile::sharedWindow<int32_t>(kSegmentTokens * 4, kSegmentTokens);  // of rows, in pieces
    const auto partials = tile::sharedWindow<float>(partialsAt, 2 * warps * rows);
    const auto rotations = tile::sharedWindow<float>(rotationsAt, 2 * rows * a.headDim);  // of each row the cosines, then the sines
    if (tile::within(thread, count)) {
      const int raster = a.plan.permutation ? a.plan.permutation[first + thread] : first + thread;
      rasters.set(thread, raster);
      offsets.set(thread, static_cast<int32_t>(raster * x.rowStride / channels));
    }

    const tile::Words4* source[Chunks];
    tile::Words4* out[Chunks];
    int pair[Chunks];                   // the first of the piece's pairs within its head
    bool mine[Chunks], filled[Chunks];  // padding is owned, but not filled
    float weight[Chunks][channels], sums[Chunks][channels];
    TILE_UNROLL
    for (int c = 0; c < Chunks; ++c) {
      const int chunk = thread + c * Threads, head = chunk / chunksOfHead, channel = chunk % chunksOfHead * channels;
      mine[c] = chunk < a.heads * chunksOfHead;
      filled[c] = mine[c] && channel < a.headDim;
      pair[c] = channel / 2;
      source[c] = reinterpret_cast<const tile::Words4*>(x.source + head * a.headDim + channel);
      out[c] = reinterpret_cast<tile::Words4*>(x.out + (int64_t{head} * a.plan.tokens + first) * a.paddedDim + channel);
      TILE_UNROLL
      for (int i = 0; i < channels; ++i) {
        weight[c][i] = 1;
        sums[c][i] = 0;
      }
      if (normed && filled[c])
        TILE_UNROLL
        for (int i = 0; i < channels; i += 4) {
          const auto four = *reinterpret_cast<const tile::Floats4*>(x.norm + head * a.headDim + channel + i);
          TILE_UNROLL
          for (int j = 0; j < 4; ++j) weight[c][i + j] = four.at[j];
        }
    }
    tile::barrier();

    const auto fetch = [&](tile::Words4 (&to)[rows][Chunks], int group) {
      TILE_UNROLL
      for (int r = 0; r < rows; ++r) {
        const int row = group * rows + r;
        const bool present = tile::within(row, count);
        const int offset = present ? offsets.get(row) : 0;
        TILE_UNROLL
        for (int c = 0; c < Chunks; ++c) {
          to[r][c] = {};
          if (present && filled[c]) to[r][c] = source[c][offset];
        }
      }
    };
    const int fourths = half / 4, rotationRow = thread / (2 * fourths), rotationPiece = thread % (2 * fourths);
    const auto fetchRotations = [&](int group) {
      const int row = group * rows + rotationRow;
      if (rotationRow < rows && tile::within(row, count)) {
        const bool sine = rotationPiece >= fourths;
        const float* from = (sine ? x.ropeSin : x.ropeCos) + int64_t{rasters.get(row)} * half + (rotationPiece - (sine ? fourths : 0)) * 4;
        tile::copyAsync<16>(rotations, (group % 2 * rows + rotationRow) * a.headDim + rotationPiece * 4, from);
      }
      tile::commitCopies();
    };

    tile::Words4 words[rows][Chunks], next[rows][Chunks];
    fetch(words, 0);
    if (rotated) fetchRotations(0);
    uint32_t exponents = 0;
    for (int group = 0; group * rows < count; ++group) {
      fetch(next, group + 1);
      if (normed) {
        float squares[rows];
        TILE_UNROLL
        for (int r = 0; r < rows; ++r) {
          squares[r] = 0;
          TILE_UNROLL
          for (int c = 0; c < Chunks; ++c)
            TILE_UNROLL
            for (int w = 0; w < 4; ++w) {
              const float u = tile::lowFloat(words[r][c].word[w]), v = tile::highFloat(words[r][c].word[w]);
              squares[r] = tile::fma(v, v, tile::fma(u, u, squares[r]));
            }
        }
        const float sum = foldRows(squares);
        if (lane % lanesOfRow == 0) partials.set((group % 2 * warps + warp) * rows + rowOfLane, sum);
      }
      if (rotated) tile::waitCopies<0>();
      if (normed || rotated) tile::barrier();  // and everyone is done with the group before
      if (rotated && (group + 1) * rows < count) fetchRotations(group + 1);
      float factor = 1;
      if (normed) {
        float sum = 0;
        TILE_UNROLL
        for (int w = 0; w < warps; ++w) sum += partials.get((group % 2 * warps + w) * rows + rowOfLane);
        factor = 1.0f / tile::squareRoot(sum * scale + a.eps);
      }
      TILE_UNROLL
      for (int r = 0; r < rows; ++r) {
        const float factorOfRow = tile::shuffle(factor, r * lanesOfRow);
        const int row = group * rows + r;
        if (!tile::within(row, count)) continue;
        TILE_UNROLL
        for (int c = 0; c < Chunks; ++c) {
          if (!mine[c]) continue;
          tile::Words4 result = {};
          if (filled[c]) {
            tile::Floats4 cosine, sine;
            if (rotated) {
              const int at = ((group % 2 * rows + r) * a.headDim + pair[c]) / 4;
              cosine = rotations.template getAs<tile::Floats4>(at);
              sine = rotations.template getAs<tile::Floats4>(at + fourths);
            }
            TILE_UNROLL
            for (int w = 0; w < 4; ++w) {
              const auto word = static_cast<uint32_t>(tile::renewed(static_cast<int>(words[r][c].word[w])));  // or both halves stay in registers from the squares on
              exponents |= (word & 0x7f807f80u) + 0x00800080u;  // carries into the sign where the exponent is all ones
              float u = tile::lowFloat(word), v = tile::highFloat(word);
              if (normed) {
                u = u * factorOfRow * weight[c][2 * w];
                v = v * factorOfRow * weight[c][2 * w + 1];
              }
              if (rotated) {
                const float turned = tile::fma(u, cosine.at[w], -(v * sine.at[w]));
                v = tile::fma(u, sine.at[w], v * cosine.at[w]);
                u = turned;
              }
              result.word[w] = tile::packBf16(u, v);
              if (summed) {
                sums[c][2 * w] += tile::lowFloat(result.word[w]);
                sums[c][2 * w + 1] += tile::highFloat(result.word[w]);
              }
            }
          }
          out[c][row * chunksOfHead] = result;
        }
      }
      TILE_UNROLL
      for (int r = 0; r < rows; ++r)
        TILE_UNROLL
        for (int c = 0; c < Chunks; ++c) words[r][c] = next[r][c];
    }
    if (summed)
      TILE_UNROLL
      for (int c = 0; c < Chunks; ++c)
        if (mine[c]) {
          double* to = x.segmentSums + (int64_t{tile::blockIndex().y} * a.heads * chunksOfHead + thread + c * Threads) * channels;
          TILE_UNROLL
          for (int i = 0; i < channels; ++i) to[i] = static_cast<double>(sums[c][i]);
        }
    if ((exponents & 0x80008000u) && a.notFinite) tile::atomicOr(a.notFinite, 1u);
  }

 private:
  /// The sums over a warp of `rows` values of each lane, by halves: lane l gets that of value l / lanesOfRow.
  static TILE_DEVICE float foldRows(float (&value)[rows]) {
    int mask = tile::warpLanes / 2;
    TILE_UNROLL
    for (int kept = rows / 2; kept > 0; kept /= 2, mask /= 2) {
      const bool upper = (tile::laneIndex() & mask) != 0;
      TILE_UNROLL
      for (int i = 0; i < kept; ++i) {
        const float keeps = upper ? value[i + kept] : value[i], gives = upper ? value[i] : value[i + kept];
        value[i] = keeps + tile::shuffleXor(gives, mask);
      }
    }
    TILE_UNROLL
    for (; mask > 0; mask /= 2) value[0] = value[0] + tile::shuffleXor(value[0], mask);
    return value[0];
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

}  // namespace

namespace {

/// Whether all rows of all parts can be moved 16 bytes at a time.
bool isWide(const PrepareJob<Bf16>& job) {
  const auto aligned = [](const void* address) { return reinterpret_cast<uintptr_t>(address) % 16 == 0; };
  bool wide = job.headDim % 8 == 0;
  for (int i = 0; i < job.parts; ++i) {
    const Projection<Bf16>& x = job.part[i];
    wide = wide && x.rowStride % 8 == 0 && x.rowStride / 8 * job.plan.tokens < int64_t{1} << 31 && aligned(x.source) && aligned(x.norm) && aligned(x.ropeCos) && aligned(x.ropeSin) && aligned(x.out);
  }
  return wide;
}

template <int Threads, int Chunks>
void prepareWide(tile::Stream stream, const PrepareJob<Bf16>& job) {
  using Kernel = PrepareWide<Threads, Chunks>;
  tile::launch<Kernel>(stream, {job.parts, job.plan.segments}, Kernel::sharedBytes(job.headDim), job);  // q, k, v of the same rows beside each other
}

}  // namespace

template <class T>
void prepare(tile::Stream stream, const PrepareJob<T>& job) {
  if constexpr (std::is_same_v<T, Bf16>) {
    const int chunks = job.heads * job.paddedDim / 8;
    if (isWide(job) && job.plan.segments <= 65535) {
      if (chunks <= 192) return prepareWide<192, 1>(stream, job);
      if (chunks <= 384) return prepareWide<192, 2>(stream, job);
      if (chunks <= 640) return prepareWide<320, 2>(stream, job);
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
