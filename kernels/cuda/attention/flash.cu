// bf16 attention by mma.sync: four warps of 32 query rows each share tiles of keys and values in shared memory. Each tile of
// keys is fetched while the previous values are multiplied, each tile of values while the logits are computed, so one buffer
// of each is enough and two thread blocks fit a multiprocessor.
#include "kernels/cuda/attention/flash_rows.h"
#include "kernels/cuda/attention/key_tiles.h"

namespace vmoba::cuda {
namespace {

template <int D, int TileKeys, bool Sparse>
struct Flash {
  static constexpr const char* name = Sparse ? "block-sparse attention" : "dense attention";
  static constexpr int threads = kTileRows, blocksPerSM = 1;
  static constexpr int chunks = D / 8;  // 16-byte pieces of a row
  static constexpr int keysAt = kTileRows * D, valuesAt = keysAt + TileKeys * D;
  static constexpr int sharedBytes = (kTileRows + 2 * TileKeys) * D * 2;
  static constexpr int halves = kWarpRows / 16;  // m16 tiles of a warp

  using Arguments = FlashArguments;

  // Element of (row, chunk): rows are rotated so that eight rows' like chunks lie in different banks.
  static TILE_DEVICE int place(int row, int chunk) {
    return row * D + ((D >= 64 ? chunk ^ (row & 7) : chunk ^ (row >> 1 & 3)) << 3);
  }

  /// Every thread copies pieces of like place in every rowsAtOnce-th row, which are rotated alike: all addresses are one and constants.
  static TILE_DEVICE void fetch(tile::Shared<Bf16> to, const Bf16* rows, const KeyTile& keys) {
    const int thread = tile::threadIndex(), chunk = thread % chunks, firstRow = thread / chunks;
    constexpr int rowsAtOnce = threads / chunks;
    static_assert(rowsAtOnce % 8 == 0 && TileKeys % rowsAtOnce == 0);
    const tile::Shared<Bf16> toFirst = to.from(place(firstRow, chunk));
    const Bf16* const from = rows + (int64_t{keys.first} + firstRow) * D + chunk * 8;
    if (keys.count == TileKeys) {
      TILE_UNROLL
      for (int i = 0; i < TileKeys / rowsAtOnce; ++i) tile::copyAsync<16>(toFirst, i * rowsAtOnce * D, from + i * rowsAtOnce * D);
    } else {
      const int64_t secondAt = (int64_t{keys.second} - keys.count - keys.first) * D;  // from where the first run would go on
      const int count = keys.count - firstRow, all = keys.keys() - firstRow;
      TILE_UNROLL_BY(2)
      for (int i = 0; i < TileKeys / rowsAtOnce; ++i) {
        const bool inside = tile::within(i * rowsAtOnce, all);
        const Bf16* source = from + i * rowsAtOnce * D + (i * rowsAtOnce < count ? 0 : secondAt);
        tile::copyAsync<16>(toFirst, i * rowsAtOnce * D, inside ? source : rows, inside ? 16 : 0);
      }
    }
    tile::commitCopies();
  }

  static TILE_DEVICE void run(const Arguments& a) {
    const AttendJob<Bf16>& x = a.job;
    if (tile::blockIndex().x >= Work::count(x, a.firstHead, a.heads)) return;
    Work work = Work::at(x, a.firstHead, tile::blockIndex().x);
    if constexpr (!Sparse) work.cell = nullptr;
    const int lane = tile::laneIndex(), warp = tile::warpIndex(), head = work.head;
    const auto queries = tile::sharedWindow<Bf16>(0, kTileRows * D);
    const auto keys = tile::sharedWindow<Bf16>(keysAt * 2, TileKeys * D);
    const auto values = tile::sharedWindow<Bf16>(valuesAt * 2, TileKeys * D);
    const Bf16* k = x.k + int64_t{head} * x.keys * D;
    const Bf16* v = x.v + int64_t{head} * x.keys * D;
    TILE_UNROLL_BY(2)
    for (int i = 0; i < kTileRows * chunks / threads; ++i) {
      const int at = tile::threadIndex() + i * threads, row = at / chunks, chunk = at % chunks, position = Work::position(work.entry(x, row));
      tile::copyAsync<16>(queries, place(row, chunk), x.q + (int64_t{head} * x.queries + (position < 0 ? 0 : position)) * D + chunk * 8, position < 0 ? 0 : 16);
    }
    KeyWalk<TileKeys> walk(work.cell, x.keys, warp);
    KeyTile current = walk.next();
    fetch(keys, k, current);

    float out[halves][D / 8][4], most[halves][2], total[halves][2];
    TILE_UNROLL
    for (int m = 0; m < halves; ++m) {
      TILE_UNROLL
      for (int n = 0; n < D / 8; ++n)
        TILE_UNROLL
        for (int e = 0; e < 4; ++e) out[m][n][e] = 0;
      most[m][0] = most[m][1] = -3.0e38f;
      total[m][0] = total[m][1] = 0;
    }

    while (current.keys() > 0) {
      tile::waitCopies<0>();
      tile::barrier();
      fetch(values, v, current);
      const bool working = !current.idle();
      float logits[halves][TileKeys / 8][4];
      if (working) {
        const int l = tile::renewed(lane);
        TILE_UNROLL
        for (int m = 0; m < halves; ++m)
          TILE_UNROLL
          for (int n = 0; n < TileKeys / 8; ++n)
            TILE_UNROLL
            for (int e = 0; e < 4; ++e) logits[m][n][e] = 0;
        TILE_UNROLL_BY(2)
        for (int step = 0; step < D / 16; ++step) {
          uint32_t query[halves][4];
          TILE_UNROLL
          for (int m = 0; m < halves; ++m) tile::loadMatrices(query[m], queries, place(warp * kWarpRows + m * 16 + l % 16, step * 2 + l / 16));
          TILE_UNROLL
          for (int n = 0; n < TileKeys / 16; ++n) {
            uint32_t key[4];
            tile::loadMatrices(key, keys, place(n * 16 + l / 16 * 8 + l % 8, step * 2 + l / 8 % 2));
            TILE_UNROLL
            for (int m = 0; m < halves; ++m) {
              tile::multiplyAccumulate(logits[m][2 * n], query[m], key[0], key[1]);
              tile::multiplyAccumulate(logits[m][2 * n + 1], query[m], key[2], key[3]);
            }
          }
        }
        const bool full = current.keys() == TileKeys && current.rows == 0xffffffffu && (current.secondCount == 0 || current.secondRows == 0xffffffffu);
        if (!full) {
          const int group = l / 4, pair = l % 4 * 2;
          TILE_UNROLL
          for (int m = 0; m < halves; ++m)
            TILE_UNROLL
            for (int n = 0; n < TileKeys / 8; ++n)
              TILE_UNROLL
              for (int e = 0; e < 4; ++e)
                if (!current.attends(m * 16 + group + e / 2 * 8, n * 8 + pair + e % 2)) logits[m][n][e] = -3.4e38f;
        }
        TILE_UNROLL
        for (int m = 0; m < halves; ++m)
          TILE_UNROLL
          for (int half = 0; half < 2; ++half) {
            float high = most[m][half];
            TILE_UNROLL
            for (int n = 0; n < TileKeys / 8; ++n) high = tile::maximum(high, tile::maximum(logits[m][n][2 * half], logits[m][n][2 * half + 1]));
            high = tile::maximum(high, tile::shuffleXor(high, 1));
            high = raised(most[m][half], tile::maximum(high, tile::shuffleXor(high, 2)), a.scale);
            const float keep = tile::exponential2((most[m][half] - high) * a.scale), shift = high * a.scale;
            most[m][half] = high;
            float sum = total[m][half] * keep;
            TILE_UNROLL
            for (int n = 0; n < TileKeys / 8; ++n)
              TILE_UNROLL
              for (int e = 0; e < 2; ++e) {
                const float weight = tile::exponential2(tile::fma(logits[m][n][2 * half + e], a.scale, -shift));
                logits[m][n][2 * half + e] = weight;
                sum += weight;
              }
            total[m][half] = sum;
            if (tile::ballot(keep != 1) != 0)
              TILE_UNROLL
              for (int n = 0; n < D / 8; ++n) {
                out[m][n][2 * half] *= keep;
                out[m][n][2 * half + 1] *= keep;
              }
          }
      }
      tile::waitCopies<0>();
      tile::barrier();
      const KeyTile next = walk.next();
      if (next.keys() > 0) fetch(keys, k, next);
      if (working) {
        const int l = tile::renewed(lane);
        TILE_UNROLL
        for (int step = 0; step < TileKeys / 16; ++step) {
          uint32_t weight[halves][4];
          TILE_UNROLL
          for (int m = 0; m < halves; ++m)
            TILE_UNROLL
            for (int j = 0; j < 4; ++j) weight[m][j] = tile::packBf16(logits[m][2 * step + j / 2][j % 2 * 2], logits[m][2 * step + j / 2][j % 2 * 2 + 1]);
          TILE_UNROLL
          for (int n = 0; n < D / 16; ++n) {
            uint32_t value[4];
            tile::loadMatricesTransposed(value, values, place(step * 16 + l % 16, n * 2 + l / 16));
            TILE_UNROLL
            for (int m = 0; m < halves; ++m) {
              tile::multiplyAccumulate(out[m][2 * n], weight[m], value[0], value[1]);
              tile::multiplyAccumulate(out[m][2 * n + 1], weight[m], value[2], value[3]);
            }
          }
        }
      }
      current = next;
    }

    Work ending = Work::at(x, a.firstHead, tile::renewed(tile::blockIndex().x));  // looked up again, for want of registers to keep it in
    if constexpr (!Sparse) ending.cell = nullptr;
    TILE_UNROLL
    for (int m = 0; m < halves; ++m)
      TILE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const int row = warp * kWarpRows + m * 16 + half * 8 + lane / 4;
        finishRow<D>(a, ending.head, static_cast<int>(ending.first) + row, ending.target(x, a.firstHead, row, ending.entry(x, row)), most[m][half], total[m][half],
                     [&](int n, int e) { return out[m][n][2 * half + e]; });
      }
  }
};

// About 0.1 s on the slowest supported GPU (25 TFLOP/s sustained).
constexpr double kFlopsPerLaunch = 2.5e12;

template <int D, int TileKeys>
void launchTile(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  byHeads(stream, job, kFlopsPerLaunch, between, [&](int head, int heads) {
    const int tiles = heads * tile::divideUp(job.queries, kTileRows);
    const FlashArguments arguments = FlashArguments::of(job, head, heads);
    if (job.cells) return tile::launch<Flash<D, TileKeys, true>>(stream, {tiles * job.chunks}, Flash<D, TileKeys, true>::sharedBytes, arguments);  // as many as there can be
    tile::launch<Flash<D, TileKeys, false>>(stream, {tiles}, Flash<D, TileKeys, false>::sharedBytes, arguments);
  });
}

}  // namespace

void attendFlash(tile::Stream stream, const AttendJob<Bf16>& job, const BetweenLaunches& between) {
  // Keys per tile. Width 128: 64 keys would spill registers; 48 fit, but two thread blocks (2 x 56 KB of shared memory) need the
  // 164 KB of an A100, H100 or H200. The 100 KB of consumer GPUs hold two blocks of 32 keys (2 x 48 KB).
  if (job.paddedDim == 32) return launchTile<32, 64>(stream, job, between);
  if (job.paddedDim == 64) return launchTile<64, 64>(stream, job, between);
  if (job.paddedDim == 128 && tile::sharedBytesPerMultiprocessor(stream) >= 160 * 1024) return launchTile<128, 48>(stream, job, between);
  if (job.paddedDim == 128) return launchTile<128, 32>(stream, job, between);
  throw Error(ErrorCode::Unsupported, "attention heads of more than 128 channels are not supported on the GPU");
}

}  // namespace vmoba::cuda
