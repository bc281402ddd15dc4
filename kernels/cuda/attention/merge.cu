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
  tile::Words4 words{};
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
  tile::Floats4 half[2]{};
  TILE_DEVICE float at(int i) const { return half[i / 4].at[i % 4]; }
  static TILE_DEVICE Octet pack(const float (&value)[8]) {
    Octet packed;
    TILE_UNROLL
    for (int i = 0; i < 8; ++i) packed.half[i / 4].at[i % 4] = value[i];
    return packed;
  }
};

// D/8 lanes take a row of a head, eight channels each; they look up as many chunks at once.
template <class T, int D>
struct Merge {
  static constexpr const char* name = "merge partial results";
  static constexpr int threads = 256, blocksPerSM = 4, lanes = D / 8, rows = threads / lanes, together = 4;
  struct Arguments {
    AttendJob<T> job;
    int32_t firstHead;
  };

  // Of one chunk and row: where the partial result is (-1: nowhere), and the logarithm of its denominator.
  struct Part {
    int64_t row = -1;
    float log = -3.4e38f;
  };
  static TILE_DEVICE Part partOf(const Arguments& a, int local, int chunk, int position) {
    const AttendJob<T>& x = a.job;
    if (!tile::within(chunk, x.chunks) || !tile::within(position, x.queries)) return {};
    const int place = x.places[(int64_t{a.firstHead + local} * x.chunks + chunk) * x.queries + position];
    if (place < 0) return {};
    const int64_t row = (int64_t{local} * x.chunks + chunk) * listRowsOf(x.queries) + place;
    return {row, x.partials.logSumExp[row]};
  }

  static TILE_DEVICE void run(const Arguments& a) {
    const AttendJob<T>& x = a.job;
    const int local = tile::blockIndex().y, position = tile::blockIndex().x * rows + tile::threadIndex() / lanes;
    const int lane = tile::laneIndex() % lanes, firstLane = tile::laneIndex() - lane, channel = lane * 8;
    float most = -3.4e38f;
    Part mine;
    for (int chunk = 0; chunk < x.chunks; chunk += lanes) {
      mine = partOf(a, local, chunk + lane, position);
      most = tile::maximum(most, mine.log);
    }
    TILE_UNROLL
    for (int distance = 1; distance < lanes; distance *= 2) most = tile::maximum(most, tile::shuffleXor(most, distance));
    float total = 0, sum[8] = {};
    for (int chunk = 0; chunk < x.chunks; chunk += lanes) {
      if (x.chunks > lanes) mine = partOf(a, local, chunk + lane, position);
      for (int i = 0; i < lanes && chunk + i < x.chunks; i += together) {
        Octet<T> part[together];
        float weight[together];
        TILE_UNROLL
        for (int j = 0; j < together; ++j) {
          const int64_t row = tile::shuffle(mine.row, firstLane + i + j);
          const float log = tile::shuffle(mine.log, firstLane + i + j);
          weight[j] = row < 0 ? 0 : tile::exponential2(log - most);
          part[j] = row < 0 ? Octet<T>{} : *reinterpret_cast<const Octet<T>*>(x.partials.out + row * D + channel);
        }
        TILE_UNROLL
        for (int j = 0; j < together; ++j) {
          total += weight[j];
          TILE_UNROLL
          for (int e = 0; e < 8; ++e) sum[e] = tile::fma(weight[j], part[j].at(e), sum[e]);
        }
      }
    }
    if (total == 0) return;  // not a shared row, or none at all
    const float inverse = 1 / total;
    TILE_UNROLL
    for (int e = 0; e < 8; ++e) sum[e] *= inverse;
    const int64_t raster = x.scatter ? x.scatter[position] : position;
    T* to = x.out + raster * x.outStride + int64_t{a.firstHead + local} * x.headDim + channel;
    if (x.headDim == D && x.outStride % 8 == 0) {
      *reinterpret_cast<Octet<T>*>(to) = Octet<T>::pack(sum);
      return;
    }
    TILE_UNROLL
    for (int e = 0; e < 8; ++e)
      if (tile::within(channel + e, x.headDim)) to[e] = tile::fromFloat<T>(sum[e]);
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
