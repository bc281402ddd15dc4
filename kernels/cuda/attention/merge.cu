// What shared rows got from each chunk becomes their output: means of disjoint sets of keys, weighed by the sets' softmax denominators.
#include "kernels/cuda/attention/attend.h"
#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {
namespace {

// Eight neighbouring channels, as stored.
template <class T>
struct Octet;
template <>
struct Octet<Bf16> {
  tile::Words4 words;
  TILE_DEVICE float at(int i) const { return i % 2 ? tile::highFloat(words.word[i / 2]) : tile::lowFloat(words.word[i / 2]); }
  static TILE_DEVICE Octet pack(const float (&value)[8]) {
    Octet packed;
    TILE_UNROLL
    for (int i = 0; i < 4; ++i) packed.words.word[i] = tile::packBf16(value[2 * i], value[2 * i + 1]);
    return packed;
  }
};
template <>
struct Octet<float> {
  tile::Floats4 half[2];
  TILE_DEVICE float at(int i) const { return half[i / 4].at[i % 4]; }
  static TILE_DEVICE Octet pack(const float (&value)[8]) { return {{{{value[0], value[1], value[2], value[3]}}, {{value[4], value[5], value[6], value[7]}}}}; }
};

// D/8 lanes take a row of a head, eight channels each.
template <class T, int D>
struct Merge {
  static constexpr const char* name = "merge partial results";
  static constexpr int threads = 256, blocksPerSM = 4, lanes = D / 8, rows = threads / lanes;
  struct Arguments {
    AttendJob<T> job;
    int32_t firstHead;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const AttendJob<T>& x = a.job;
    const int local = tile::blockIndex().y, position = tile::blockIndex().x * rows + tile::threadIndex() / lanes, channel = tile::threadIndex() % lanes * 8;
    if (!tile::within(position, x.queries)) return;
    const int64_t listRows = listRowsOf(x.queries);
    const int32_t* places = x.places + int64_t{a.firstHead + local} * x.chunks * x.queries + position;
    float most = -3.4e38f, total = 0, sum[8] = {};
    for (int chunk = 0; chunk < x.chunks; ++chunk) {
      const int place = places[int64_t{chunk} * x.queries];
      if (place >= 0) most = tile::maximum(most, x.partials.logSumExp[(int64_t{local} * x.chunks + chunk) * listRows + place]);
    }
    if (most < -3.3e38f) return;  // not a shared row
    TILE_UNROLL_BY(4)
    for (int chunk = 0; chunk < x.chunks; ++chunk) {
      const int place = places[int64_t{chunk} * x.queries];
      if (place < 0) continue;
      const int64_t row = (int64_t{local} * x.chunks + chunk) * listRows + place;
      const float weight = tile::exponential2(x.partials.logSumExp[row] - most);
      const auto part = *reinterpret_cast<const Octet<T>*>(x.partials.out + row * D + channel);
      total += weight;
      TILE_UNROLL
      for (int i = 0; i < 8; ++i) sum[i] = tile::fma(weight, part.at(i), sum[i]);
    }
    const float inverse = 1 / total;
    TILE_UNROLL
    for (int i = 0; i < 8; ++i) sum[i] *= inverse;
    const int64_t raster = x.scatter ? x.scatter[position] : position;
    T* to = x.out + raster * x.outStride + int64_t{a.firstHead + local} * x.headDim + channel;
    if (x.headDim == D && x.outStride % 8 == 0) {
      *reinterpret_cast<Octet<T>*>(to) = Octet<T>::pack(sum);
      return;
    }
    TILE_UNROLL
    for (int i = 0; i < 8; ++i)
      if (tile::within(channel + i, x.headDim)) to[i] = tile::fromFloat<T>(sum[i]);
  }
};

template <class T, int D>
void launchMerge(tile::Stream stream, const AttendJob<T>& job, int32_t firstHead, int32_t heads) {
  using Kernel = Merge<T, D>;
  tile::launch<Kernel>(stream, {tile::divideUp(job.queries, Kernel::rows), heads}, 0, {job, firstHead});
}

}  // namespace

template <class T>
void mergePartials(tile::Stream stream, const AttendJob<T>& job, int32_t firstHead, int32_t heads) {
  job.paddedDim == 32   ? launchMerge<T, 32>(stream, job, firstHead, heads)
  : job.paddedDim == 64 ? launchMerge<T, 64>(stream, job, firstHead, heads)
                        : launchMerge<T, 128>(stream, job, firstHead, heads);
}

template void mergePartials<float>(tile::Stream, const AttendJob<float>&, int32_t, int32_t);
template void mergePartials<Bf16>(tile::Stream, const AttendJob<Bf16>&, int32_t, int32_t);

}  // namespace vmoba::cuda
