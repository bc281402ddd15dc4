// Attention in f32 arithmetic: the strict mode, umT5's biased attention, the VAE's attention over frames and word maps. 32 query
// rows by 32 keys per step; four threads share a row.
#include "kernels/cuda/attention/attend.h"
#include "kernels/cuda/attention/key_tiles.h"
#include "kernels/cuda/tile/launch.h"

#include <algorithm>
#include <cmath>

namespace vmoba::cuda {
namespace {

constexpr int kKeys = 32, kDepth = 32, kSlice = 128, kStride = kKeys + 1;

// Operands by strides, so that rows of [q | k | v] and prepared operands are the same to the kernel.
template <class T>
struct PlainArguments {
  const T* q;
  const T* k;
  const T* v;
  int64_t queryRowStride, queryHeadStride, keyRowStride, keyHeadStride;  // elements
  int32_t queries, width, valueWidth;  // width: of q and k; valueWidth: columns of v and out in use
  int32_t keys, chunks;
  const Cell* cells;
  const int32_t* cellFirst;
  const int32_t* order;
  const int32_t* ends;
  Partials<T> partials;
  const int32_t* scatter;
  T* out;
  int64_t outRowStride, outHeadStride;
  float scale;
  float* logSumExp;
  const float* bias;
  const int32_t* bucketOfDistance;
  const uint8_t* keyMask;
  int32_t heads, firstHead, headsHere, accumulate;
};

// Logits of 32 rows and 32 keys, eight per thread: row thread/4, keys thread%4 + 4j.
template <class T, class QueryRow, class KeyRow>
TILE_DEVICE void plainLogits(tile::Shared<float> queryPart, tile::Shared<float> keyPart, int width, const QueryRow& queryRow, const KeyRow& keyRow, float (&logits)[8]) {
  const int thread = tile::threadIndex(), row = thread / 4, quarter = thread % 4;
  TILE_UNROLL
  for (int j = 0; j < 8; ++j) logits[j] = 0;
  for (int depth = 0; depth < width; depth += kDepth) {
    tile::barrier();
    for (int at = thread; at < kKeys * kDepth; at += 4 * kWarpRows) {
      const int r = at / kDepth, i = depth + at % kDepth;
      const T* query = queryRow(r);
      const T* key = keyRow(r);
      queryPart.set(r * kStride + at % kDepth, query && tile::within(i, width) ? tile::toFloat(query[i]) : 0.0f);
      keyPart.set(r * kStride + at % kDepth, key && tile::within(i, width) ? tile::toFloat(key[i]) : 0.0f);
    }
    tile::barrier();
    for (int i = 0; i < kDepth; ++i) {
      const float query = queryPart.get(row * kStride + i);
      TILE_UNROLL
      for (int j = 0; j < 8; ++j) logits[j] = tile::fma(query, keyPart.get((quarter + 4 * j) * kStride + i), logits[j]);
    }
  }
}

// Of the four threads that share a row.
TILE_DEVICE float rowMax(float value) {
  value = tile::maximum(value, tile::shuffleXor(value, 1));
  return tile::maximum(value, tile::shuffleXor(value, 2));
}
TILE_DEVICE float rowSum(float value) {
  value += tile::shuffleXor(value, 1);
  return value + tile::shuffleXor(value, 2);
}

constexpr float kHidden = -3.4e38f, kLog2E = 1.44269504088896341f;

template <class T>
struct Plain {
  static constexpr const char* name = "plain attention";
  static constexpr int threads = 4 * kWarpRows, blocksPerSM = 4;
  static constexpr int keyAt = kWarpRows * kStride, weightAt = keyAt + kKeys * kStride, valueAt = weightAt + kWarpRows * kStride;
  static constexpr int sharedBytes = (valueAt + kKeys * kSlice) * 4;
  using Arguments = PlainArguments<T>;

  static TILE_DEVICE void run(const Arguments& x) {
    const int slice = tile::blockIndex().y * kSlice, warpOfTile = tile::blockIndex().x % kTileWarps;
    if (tile::blockIndex().x / kTileWarps >= Work::count(x, x.firstHead, x.headsHere)) return;
    const Work work = Work::at(x, x.firstHead, tile::blockIndex().x / kTileWarps);
    const int head = work.head, thread = tile::threadIndex(), row = thread / 4, quarter = thread % 4;
    const auto queryPart = tile::sharedWindow<float>(0, kWarpRows * kStride);
    const auto keyPart = tile::sharedWindow<float>(keyAt * 4, kKeys * kStride);
    const auto weights = tile::sharedWindow<float>(weightAt * 4, kWarpRows * kStride);
    const auto values = tile::sharedWindow<float>(valueAt * 4, kKeys * kSlice);
    const auto positionOf = [&](int r) { return Work::position(work.entry(x, warpOfTile * kWarpRows + r)); };
    const int mine = positionOf(row), columns = x.valueWidth - slice < kSlice ? x.valueWidth - slice : kSlice;
    float out[kSlice / 4], most = kHidden, total = 0;
    TILE_UNROLL
    for (int j = 0; j < kSlice / 4; ++j) out[j] = 0;
    KeyWalk<kKeys> walk(work.cell, x.keys, warpOfTile);
    for (KeyTile keys = walk.next(); keys.keys() > 0; keys = walk.next()) {
      if (keys.idle()) continue;
      float logits[8];
      const auto queryRow = [&](int r) {
        const int position = positionOf(r);
        return position < 0 ? nullptr : x.q + int64_t{head} * x.queryHeadStride + position * x.queryRowStride;
      };
      const auto keyRow = [&](int r) {
        return tile::within(r, keys.keys()) ? x.k + int64_t{head} * x.keyHeadStride + keys.position(r) * x.keyRowStride : nullptr;
      };
      plainLogits<T>(queryPart, keyPart, x.width, queryRow, keyRow, logits);
      for (int at = thread; at < kKeys * kSlice; at += threads) {
        const int r = at / kSlice, column = at % kSlice;
        const bool inside = tile::within(r, keys.keys()) && column < columns;
        values.set(at, inside ? tile::toFloat(x.v[int64_t{head} * x.keyHeadStride + keys.position(r) * x.keyRowStride + slice + column]) : 0.0f);
      }
      float high = most;
      TILE_UNROLL
      for (int j = 0; j < 8; ++j) {
        const int key = quarter + 4 * j;
        logits[j] *= x.scale;
        if (!keys.attends(row, key)) {
          logits[j] = kHidden;
          continue;
        }
        const int position = keys.position(key);
        if (x.keyMask && x.keyMask[position] == 0) {
          logits[j] = kHidden;
        } else if (x.bias && mine >= 0) {
          logits[j] += x.bias[x.bucketOfDistance[position - mine + x.queries - 1] * x.heads + head];
        }
        high = tile::maximum(high, logits[j]);
      }
      high = rowMax(high);
      const float keep = tile::exponential(most - high);
      most = high;
      float sum = 0;
      TILE_UNROLL
      for (int j = 0; j < 8; ++j) {
        const float weight = logits[j] == kHidden ? 0.0f : tile::exponential(logits[j] - high);
        weights.set(row * kStride + quarter + 4 * j, weight);
        sum += weight;
      }
      total = total * keep + rowSum(sum);
      tile::barrier();
      TILE_UNROLL
      for (int j = 0; j < kSlice / 4; ++j) out[j] *= keep;
      for (int key = 0; key < kKeys; ++key) {
        const float weight = weights.get(row * kStride + key);
        TILE_UNROLL
        for (int j = 0; j < kSlice / 4; ++j) out[j] = tile::fma(weight, values.get(key * kSlice + quarter + 4 * j), out[j]);
      }
    }
    if (mine < 0) return;
    const int inTile = warpOfTile * kWarpRows + row, target = work.target(x, x.firstHead, inTile, work.entry(x, inTile));
    const bool shared = (target & kSharedRow) != 0;
    const int64_t toRow = target & ~kSharedRow;
    if ((shared || x.logSumExp) && quarter == 0 && slice == 0)
      *(shared ? x.partials.logSumExp + toRow : x.logSumExp + int64_t{head} * x.queries + mine) = tile::fma(most, kLog2E, tile::logarithm2(total));
    T* to = (shared ? x.partials.out + toRow * x.width : x.out + toRow * x.outRowStride + int64_t{head} * x.outHeadStride) + slice;
    TILE_UNROLL
    for (int j = 0; j < kSlice / 4; ++j) {
      const int column = quarter + 4 * j;
      if (!tile::within(column, columns)) continue;
      const float value = out[j] / total + (x.accumulate && !shared ? tile::toFloat(to[column]) : 0.0f);
      to[column] = tile::fromFloat<T>(value);
    }
  }
};

// A thread block goes over all heads and keys of its 32 queries; each row's four threads own a quarter of the groups in turn.
template <class T>
struct WordMaps {
  static constexpr const char* name = "word maps";
  static constexpr int threads = 4 * kWarpRows, blocksPerSM = 4;
  static constexpr int keyAt = kWarpRows * kStride, weightAt = keyAt + kKeys * kStride, massAt = weightAt + kWarpRows * kStride;
  static constexpr int mostGroups = 512;
  static TILE_SHARED_CODE int sharedBytes(int groups) { return (massAt + groups * kWarpRows) * 4; }
  struct Arguments {
    WordMapJob<T> job;
    float scale;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const WordMapJob<T>& x = a.job;
    const int query0 = tile::blockIndex().x * kWarpRows, thread = tile::threadIndex(), row = thread / 4, quarter = thread % 4;
    const auto queryPart = tile::sharedWindow<float>(0, kWarpRows * kStride);
    const auto keyPart = tile::sharedWindow<float>(keyAt * 4, kKeys * kStride);
    const auto weights = tile::sharedWindow<float>(weightAt * 4, kWarpRows * kStride);
    const auto mass = tile::sharedWindow<float>(massAt * 4, x.groups * kWarpRows);
    for (int i = thread; i < x.groups * kWarpRows; i += threads) mass.set(i, 0.0f);
    const int query = query0 + row;
    for (int head = 0; head < x.heads; ++head) {
      const float logSum = tile::within(query, x.queries) ? x.logSumExp[int64_t{head} * x.queries + query] : 0.0f;
      for (int key0 = 0; key0 < x.keys; key0 += kKeys) {
        float logits[8];
        const auto queryRow = [&](int r) {
          return tile::within(query0 + r, x.queries) ? x.q + (int64_t{head} * x.queries + query0 + r) * x.paddedDim : nullptr;
        };
        const auto keyRow = [&](int r) { return tile::within(key0 + r, x.keys) ? x.k + (int64_t{head} * x.keys + key0 + r) * x.paddedDim : nullptr; };
        plainLogits<T>(queryPart, keyPart, x.paddedDim, queryRow, keyRow, logits);
        TILE_UNROLL
        for (int j = 0; j < 8; ++j) weights.set(row * kStride + quarter + 4 * j, tile::exponential2(tile::fma(logits[j], a.scale, -logSum)));
        tile::barrier();
        for (int key = 0; key < kKeys && tile::within(key0 + key, x.keys); ++key) {
          const int group = x.keyGroup[key0 + key];
          if (group < 0 || group % 4 != quarter) continue;
          mass.set(group * kWarpRows + row, mass.get(group * kWarpRows + row) + weights.get(row * kStride + key));
        }
      }
    }
    tile::barrier();
    for (int i = thread; i < x.groups * kWarpRows; i += threads) {
      const int group = i / kWarpRows, r = i % kWarpRows;
      if (tile::within(query0 + r, x.queries)) x.groupMass[int64_t{group} * x.queries + query0 + r] += mass.get(i) / static_cast<float>(x.heads);
    }
  }
};

// About 0.1 s at the 5 TFLOP/s a small GPU sustains here.
constexpr double kFlopsPerLaunch = 5e11;

template <class T>
void launchPlain(tile::Stream stream, PlainArguments<T> arguments, int firstHead, int heads) {
  arguments.firstHead = firstHead;
  arguments.headsHere = heads;
  const int tiles = heads * (arguments.cells ? arguments.chunks : 1) * tile::divideUp(arguments.queries, kTileRows);
  tile::launch<Plain<T>>(stream, {tiles * kTileWarps, tile::divideUp(arguments.valueWidth, kSlice)}, Plain<T>::sharedBytes, arguments);
}

template <class T>
void plainByHeads(tile::Stream stream, const AttendJob<T>& job, const BetweenLaunches& between) {
  PlainArguments<T> arguments{};
  arguments.q = job.q;
  arguments.k = job.k;
  arguments.v = job.v;
  arguments.queryRowStride = arguments.keyRowStride = job.paddedDim;
  arguments.queryHeadStride = int64_t{job.queries} * job.paddedDim;
  arguments.keyHeadStride = int64_t{job.keys} * job.paddedDim;
  arguments.queries = job.queries;
  arguments.width = job.paddedDim;
  arguments.valueWidth = job.headDim;
  arguments.keys = job.keys;
  arguments.chunks = job.chunks;
  arguments.cells = job.cells;
  arguments.cellFirst = job.cellFirst;
  arguments.order = job.order;
  arguments.ends = job.ends;
  arguments.partials = job.partials;
  arguments.scatter = job.scatter;
  arguments.out = job.out;
  arguments.outRowStride = job.outStride;
  arguments.outHeadStride = job.headDim;
  arguments.scale = static_cast<float>(1 / std::sqrt(static_cast<double>(job.headDim)));
  arguments.logSumExp = job.logSumExp;
  arguments.heads = job.heads;
  arguments.accumulate = job.accumulate;
  byHeads(stream, job, kFlopsPerLaunch, between, [&](int head, int heads) { launchPlain(stream, arguments, head, heads); });
}

}  // namespace

template <class T>
void attendPlain(tile::Stream stream, const AttendJob<T>& job, const BetweenLaunches& between) {
  plainByHeads(stream, job, between);
}

template <class T>
void attendRows(tile::Stream stream, const RowAttention<T>& job, const BetweenLaunches& between) {
  PlainArguments<T> arguments{};
  arguments.q = job.q;
  arguments.k = job.k;
  arguments.v = job.v;
  arguments.queryRowStride = arguments.keyRowStride = job.rowStride;
  arguments.queryHeadStride = arguments.keyHeadStride = job.headStride;
  arguments.queries = job.tokens;
  arguments.width = arguments.valueWidth = job.dim;
  arguments.keys = job.tokens;
  arguments.out = job.out;
  arguments.outRowStride = job.outRowStride;
  arguments.outHeadStride = job.outHeadStride;
  arguments.scale = job.scale;
  arguments.bias = job.bias;
  arguments.bucketOfDistance = job.bucketOfDistance;
  arguments.keyMask = job.keyMask;
  arguments.heads = job.heads;
  const double perHead = 2.0 * job.tokens * job.tokens * job.dim * (tile::divideUp(job.dim, kSlice) + 1);
  const int most = std::clamp(static_cast<int>(kFlopsPerLaunch / perHead), 1, job.heads);
  for (int head = 0; head < job.heads; head += most) {
    launchPlain(stream, arguments, head, std::min(most, job.heads - head));
    if (between) between();
  }
}

template <class T>
void wordMaps(tile::Stream stream, const WordMapJob<T>& job) {
  using Kernel = WordMaps<T>;
  if (job.groups > Kernel::mostGroups) throw Error(ErrorCode::Unsupported, "a prompt of more than 512 words has no word maps on the GPU");
  const float scale = static_cast<float>(1.4426950408889634 / std::sqrt(static_cast<double>(job.headDim)));
  tile::launch<Kernel>(stream, {tile::divideUp(job.queries, kWarpRows)}, Kernel::sharedBytes(job.groups), {job, scale});
}

template void attendPlain<float>(tile::Stream, const AttendJob<float>&, const BetweenLaunches&);
template void attendPlain<Bf16>(tile::Stream, const AttendJob<Bf16>&, const BetweenLaunches&);
template void attendRows<float>(tile::Stream, const RowAttention<float>&, const BetweenLaunches&);
template void attendRows<Bf16>(tile::Stream, const RowAttention<Bf16>&, const BetweenLaunches&);
template void wordMaps<float>(tile::Stream, const WordMapJob<float>&);
template void wordMaps<Bf16>(tile::Stream, const WordMapJob<Bf16>&);

}  // namespace vmoba::cuda
