#include "kernels/cuda/attention/prepare.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/tile/launch.h"

#include <algorithm>

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

// A thread block takes one segment of one projection. Eight rows at a time: each warp sums the squares of one row, then all
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
    for (int segment = a.plan.blockFirstSegment[block]; segment < a.plan.blockFirstSegment[block + 1]; ++segment)
      sum += a.segmentSums[int64_t{segment} * width + column];
    a.means[(int64_t{column / a.paddedDim} * a.plan.blocks + block) * a.paddedDim + column % a.paddedDim] = static_cast<float>(sum / length);
  }
};

// 64 queries by 64 blocks per thread block, 4 by 4 per thread, sixteen channels at a time.
template <class T>
struct Gate {
  static constexpr const char* name = "gate";
  static constexpr int threads = 256, blocksPerSM = 2, side = 64, depth = 16, stride = side + 1;
  static constexpr int sharedBytes = 2 * depth * stride * 4;
  struct Arguments {
    PlanView plan;
    const T* q;
    const float* means;
    float* gate;
    int32_t paddedDim;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int query0 = tile::blockIndex().x * side, block0 = tile::blockIndex().y * side, head = tile::blockIndex().z;
    const int thread = tile::threadIndex(), tx = thread % 16, ty = thread / 16;
    const auto queries = tile::sharedWindow<float>(0, depth * stride);
    const auto means = tile::sharedWindow<float>(depth * stride * 4, depth * stride);
    float sum[4][4] = {};
    for (int i0 = 0; i0 < a.paddedDim; i0 += depth) {
      for (int at = thread; at < side * depth; at += threads) {
        const int row = at / depth, i = at % depth;
        const bool hasQuery = tile::within(query0 + row, a.plan.tokens), hasBlock = tile::within(block0 + row, a.plan.blocks);
        queries.set(i * stride + row, hasQuery ? tile::toFloat(a.q[(int64_t{head} * a.plan.tokens + query0 + row) * a.paddedDim + i0 + i]) : 0.0f);
        means.set(i * stride + row, hasBlock ? a.means[(int64_t{head} * a.plan.blocks + block0 + row) * a.paddedDim + i0 + i] : 0.0f);
      }
      tile::barrier();
      for (int i = 0; i < depth; ++i) {
        float q[4], m[4];
        TILE_UNROLL
        for (int j = 0; j < 4; ++j) {
          q[j] = queries.get(i * stride + tx + 16 * j);
          m[j] = means.get(i * stride + ty + 16 * j);
        }
        TILE_UNROLL
        for (int c = 0; c < 4; ++c)
          TILE_UNROLL
          for (int s = 0; s < 4; ++s) sum[c][s] = tile::fma(q[s], m[c], sum[c][s]);
      }
      tile::barrier();
    }
    TILE_UNROLL
    for (int c = 0; c < 4; ++c)
      TILE_UNROLL
      for (int s = 0; s < 4; ++s) {
        const int block = block0 + ty + 16 * c, query = query0 + tx + 16 * s;
        if (tile::within(block, a.plan.blocks) && tile::within(query, a.plan.tokens))
          a.gate[(int64_t{head} * a.plan.blocks + block) * a.plan.tokens + query] = sum[c][s];
      }
  }
};

}  // namespace

template <class T>
void prepare(tile::Stream stream, const PrepareJob<T>& job) {
  bool sums = false;
  for (int i = 0; i < job.parts; ++i) sums = sums || job.part[i].segmentSums;
  const int shared = Prepare<T>::rows * 4 + (sums ? job.heads * job.paddedDim * 8 : 0);
  tile::launch<Prepare<T>>(stream, {job.plan.segments, job.parts}, shared, job);
}

void blockMeans(tile::Stream stream, const PlanView& plan, const double* segmentSums, int32_t heads, int32_t paddedDim, float* means) {
  tile::launch<BlockMeans>(stream, {plan.blocks, tile::divideUp(heads * paddedDim, BlockMeans::threads)}, 0, {plan, segmentSums, means, heads, paddedDim});
}

template <class T>
void gate(tile::Stream stream, const PlanView& plan, const T* q, const float* means, int32_t heads, int32_t paddedDim, float* out) {
  using Kernel = Gate<T>;
  tile::launch<Kernel>(stream, {tile::divideUp(plan.tokens, Kernel::side), tile::divideUp(plan.blocks, Kernel::side), heads}, Kernel::sharedBytes,
                       {plan, q, means, out, paddedDim});
}

template void prepare<float>(tile::Stream, const PrepareJob<float>&);
template void prepare<Bf16>(tile::Stream, const PrepareJob<Bf16>&);
template void gate<float>(tile::Stream, const PlanView&, const float*, const float*, int32_t, int32_t, float*);
template void gate<Bf16>(tile::Stream, const PlanView&, const Bf16*, const float*, int32_t, int32_t, float*);

}  // namespace vmoba::cuda
