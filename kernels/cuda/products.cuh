// The main loops of matrix products, shared by linear layers and implicit-GEMM convolutions: out[m, n] = f(sum_k A[m, k]·W[n, k]
// + bias[n]) (+ residual). A comes from a Source (rows of a matrix, or gathered pixels of an image); W is row-major [N, K].
//
// bf16: 128×128 tiles, k in steps of 32, three stages of asynchronous copies, 8 warps of 64×32 with mma m16n8k16. 48 KB of
// shared memory and at most 128 registers: two blocks on every GPU from sm_80. Rows of 64 bytes are swizzled by 16-byte
// chunks so that the eight rows of an ldmatrix lie in different banks.
// f32 (strict, for verification): 64×64 tiles, 64 threads of 8×8 fused multiply-adds, k in order: the plain sum, every bit the same
// on every run.
#pragma once
#include "kernels/cuda/elements.cuh"

namespace vmoba::cuda {

template <class Out>
struct Epilogue {
  const float* bias = nullptr;      ///< [N] or null
  const Out* residual = nullptr;    ///< [M, N] or null, added last
  Out* out = nullptr;               ///< [M, N]
  Function function = Function::None;
  bool vector = false;              ///< n and the addresses allow four elements at once

  TILE_DEVICE float finish(float sum, int64_t at, int n) const {
    if (bias != nullptr) sum += bias[n];
    sum = apply(function, sum);
    return residual != nullptr ? sum + loadOne(residual + at) : sum;
  }
};

namespace bf16product {

constexpr int tileM = 128, tileN = 128, tileK = 32, stages = 3, threads = 256;
constexpr int chunk = 8;  // bf16 in 16 bytes
constexpr int stageElements = (tileM + tileN) * tileK;
constexpr int sharedBytes = stages * stageElements * 2;
constexpr int sumStride = 36;  // floats per row of sums: whole vectors, and eight rows in different banks
static_assert(threads / 32 * 32 * sumStride * 4 <= sharedBytes);

TILE_DEVICE int place(int row, int chunkIndex) { return row * tileK + (chunkIndex ^ ((row >> 1) & 3)) * chunk; }

/// W [N, K] as a Source; also A for linear layers.
template <bool Aligned>
struct MatrixRows {
  const Bf16* base;
  int64_t rows, k;
  const Bf16* row[2];
  bool inside[2];

  TILE_DEVICE void select(int i, int64_t r) {
    inside[i] = tile::within(r, rows);
    row[i] = base + (inside[i] ? r : 0) * k;
  }
  /// 16 bytes from column `at` of selected row i: address and how many bytes are there.
  TILE_DEVICE const Bf16* chunkAt(int i, int at, int& validBytes) const {
    const int64_t left = inside[i] ? k - at : 0;
    validBytes = left >= chunk ? 16 : left > 0 ? static_cast<int>(left) * 2 : 0;
    return validBytes > 0 ? row[i] + at : base;
  }
  TILE_DEVICE uint32_t bitsAt(int i, int at) const { return inside[i] && tile::within(int64_t{at}, k) ? row[i][at].bits : 0u; }
  static constexpr bool aligned = Aligned;
};

template <class Source>
TILE_DEVICE void loadTile(const tile::Shared<Bf16>& window, const Source& source, int k0) {
  const int thread = tile::threadIndex(), c = thread % 4;
  TILE_UNROLL
  for (int i = 0; i < 2; ++i) {
    const int at = place(thread / 4 + 64 * i, c), k = k0 + c * chunk;
    if constexpr (Source::aligned) {
      int valid;
      const Bf16* from = source.chunkAt(i, k, valid);
      tile::copyAsync<16>(window, at, from, valid);
    } else {
      tile::Words4 words;
      TILE_UNROLL
      for (int pair = 0; pair < 4; ++pair) words.word[pair] = source.bitsAt(i, k + 2 * pair) | (source.bitsAt(i, k + 2 * pair + 1) << 16);
      window.template setAs<tile::Words4>(at / chunk, words);
    }
  }
}

/// One block's tile at (m0, n0). Both sources have their two rows selected.
template <class A, class W, class Out>
TILE_DEVICE void run(const A& a, const W& w, int64_t m0, int64_t n0, int64_t m, int n, int k, const Epilogue<Out>& epilogue) {
  const tile::Shared<Bf16> shared = tile::sharedWindow<Bf16>(0, stages * stageElements);
  const int lane = tile::laneIndex(), warp = tile::warpIndex();
  const int warpM = warp / 4 * 64, warpN = warp % 4 * 32;
  const int steps = (k + tileK - 1) / tileK;

  const auto load = [&](int step) {
    const int base = step % stages * stageElements;
    loadTile(shared.from(base), a, step * tileK);
    loadTile(shared.from(base + tileM * tileK), w, step * tileK);
  };

  float sum[4][4][4] = {};
  TILE_UNROLL
  for (int s = 0; s < stages - 1; ++s) {
    if (s < steps) load(s);
    tile::commitCopies();
  }
  for (int step = 0; step < steps; ++step) {
    tile::waitCopies<stages - 2>();
    tile::barrier();  // the stage is filled by all threads, and the one refilled below has been read by all
    if (step + stages - 1 < steps) load(step + stages - 1);
    tile::commitCopies();

    const int base = step % stages * stageElements;
    const tile::Shared<Bf16> tileA = shared.from(base), tileW = shared.from(base + tileM * tileK);
    TILE_UNROLL
    for (int half = 0; half < tileK / 16; ++half) {
      uint32_t fragmentA[4][4], fragmentW[2][4];
      TILE_UNROLL
      for (int i = 0; i < 4; ++i) tile::loadMatrices(fragmentA[i], tileA, place(warpM + 16 * i + lane % 16, 2 * half + lane / 16));
      TILE_UNROLL
      for (int j = 0; j < 2; ++j) tile::loadMatrices(fragmentW[j], tileW, place(warpN + 16 * j + lane / 16 * 8 + lane % 8, 2 * half + lane / 8 % 2));
      TILE_UNROLL
      for (int i = 0; i < 4; ++i)
        TILE_UNROLL
      for (int j = 0; j < 4; ++j) tile::multiplyAccumulate(sum[i][j], fragmentA[i], fragmentW[j / 2][j % 2 * 2], fragmentW[j / 2][j % 2 * 2 + 1]);
    }
  }

  // Each warp passes its 64×32 sums through shared memory, 32 rows at a time, so that it writes whole lines and the element
  // function is compiled once instead of 64 times.
  tile::waitCopies<0>();
  tile::barrier();
  const tile::Shared<float> mine = tile::sharedWindow<float>(warp * 32 * sumStride * 4, 32 * sumStride);
  const int column = static_cast<int>(n0) + warpN + lane % 8 * 4;
  TILE_UNROLL
  for (int part = 0; part < 2; ++part) {
    TILE_UNROLL
    for (int i = 0; i < 2; ++i)
      TILE_UNROLL
    for (int j = 0; j < 4; ++j)
      TILE_UNROLL
    for (int half = 0; half < 2; ++half) {
      const auto& c = sum[2 * part + i][j];
      mine.template setAs<tile::Floats2>(((16 * i + 8 * half + lane / 4) * sumStride + 8 * j + lane % 4 * 2) / 2, {{c[2 * half], c[2 * half + 1]}});
    }
    tile::warpBarrier();
    TILE_ROLLED
    for (int r = lane / 8; r < 32; r += 4) {
      const int64_t row = m0 + warpM + 32 * part + r;
      if (!tile::within(row, m)) break;
      const auto sums = mine.template getAs<tile::Floats4>((r * sumStride + lane % 8 * 4) / 4);
      Four v{};
      for (int j = 0; j < 4; ++j)
        if (tile::within(column + j, n)) v.at[j] = epilogue.finish(sums.at[j], row * n + column + j, column + j);
      storeFour(epilogue.out + row * n, column, n, epilogue.vector, v);
    }
    tile::warpBarrier();
  }
}

}  // namespace bf16product

namespace f32product {

constexpr int tileM = 64, tileN = 64, tileK = 16, threads = 64, side = 8;
constexpr int stride = tileM + 4;  // keeps vector reads aligned and spreads the transposing writes over the banks
constexpr int sharedBytes = 2 * tileK * stride * 4;
static_assert(tileK * stride >= threads * side);

/// A matrix [rows, k] as a Source; every thread fetches its own row.
struct MatrixRows {
  const float* base;
  int64_t rows, k;
  const float* row;
  bool inside;

  TILE_DEVICE void select(int64_t r) {
    inside = tile::within(r, rows);
    row = base + (inside ? r : 0) * k;
  }
  TILE_DEVICE float at(int i) const { return inside && tile::within(int64_t{i}, k) ? row[i] : 0.0f; }
};

template <class A, class W>
TILE_DEVICE void run(const A& a, const W& w, int64_t m0, int64_t n0, int64_t m, int n, int k, const Epilogue<float>& epilogue) {
  const tile::Shared<float> tileA = tile::sharedWindow<float>(0, tileK * stride), tileW = tile::sharedWindow<float>(tileK * stride * 4, tileK * stride);
  const int thread = tile::threadIndex(), rowOf = thread / 8 * side, columnOf = thread % 8 * side;
  float sum[side][side] = {};
  for (int k0 = 0; k0 < k; k0 += tileK) {
    for (int i = 0; i < tileK; ++i) {
      tileA.set(i * stride + thread, a.at(k0 + i));
      tileW.set(i * stride + thread, w.at(k0 + i));
    }
    tile::barrier();
    const int count = k - k0 < tileK ? k - k0 : tileK;
    for (int i = 0; i < count; ++i) {
      float left[side], right[side];
      TILE_UNROLL
      for (int half = 0; half < 2; ++half) {
        const auto l = tileA.template getAs<tile::Floats4>((i * stride + rowOf) / 4 + half), r = tileW.template getAs<tile::Floats4>((i * stride + columnOf) / 4 + half);
        TILE_UNROLL
        for (int j = 0; j < 4; ++j) {
          left[4 * half + j] = l.at[j];
          right[4 * half + j] = r.at[j];
        }
      }
      TILE_UNROLL
      for (int x = 0; x < side; ++x)
        TILE_UNROLL
      for (int y = 0; y < side; ++y) sum[x][y] = tile::fma(left[x], right[y], sum[x][y]);
    }
    tile::barrier();
  }
  // Through shared memory (each thread its own words), so that the element function is compiled 8 times instead of 64.
  const tile::Shared<float> mine = tileA.from(thread * side);
  TILE_UNROLL
  for (int x = 0; x < side; ++x) {
    TILE_UNROLL
    for (int y = 0; y < side; ++y) mine.set(y, sum[x][y]);
    const int64_t row = m0 + rowOf + x;
    TILE_ROLLED
    for (int y = 0; y < side; ++y) {
      const int column = static_cast<int>(n0) + columnOf + y;
      if (tile::within(row, m) && tile::within(column, n)) epilogue.out[row * n + column] = epilogue.finish(mine.get(y), row * n + column, column);
    }
  }
}

}  // namespace f32product
}  // namespace vmoba::cuda
