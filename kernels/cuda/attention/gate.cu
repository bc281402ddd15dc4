#include "kernels/cuda/attention/gate.h"

#include "kernels/cuda/elements.cuh"
#include "kernels/cuda/tile/launch.h"

#include <algorithm>
#include <type_traits>

namespace vmoba::cuda {
namespace {

template <class T>
struct GateArguments {
  PlanView plan;
  const T* q;
  const float* means;
  float* gate;
  int32_t paddedDim, tiles;
};

// 64 queries by 64 blocks per thread block, 4 by 4 per thread, sixteen channels at a time.
struct Gate {
  static constexpr const char* name = "gate";
  static constexpr int threads = 256, blocksPerSM = 2, side = 64, depth = 16, stride = side + 1;
  static constexpr int sharedBytes = 2 * depth * stride * 4;
  using Arguments = GateArguments<float>;
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
        queries.set(i * stride + row, hasQuery ? a.q[(int64_t{head} * a.plan.tokens + query0 + row) * a.paddedDim + i0 + i] : 0.0f);
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

// A mean as three bf16, whose sum it is to the last bit.
constexpr int kTerms = 3;

// On the tensor cores: blocks are the rows, queries the columns. The order of channels does not matter to a product as long as both sides agree, so
// each lane takes eight neighbours of 32 channels (16 bytes) as its share of two products: queries go from memory straight to the registers
// that the products take, and are read once. The means of up to six tiles of sixteen blocks lie in shared memory, split and in the products' order.
template <int Groups>  // of 32 channels
struct GateTiles {
  static constexpr const char* name = "gate, bf16";
  static constexpr int threads = 256, blocksPerSM = 2, warpQueries = 32, queries = threads / tile::warpLanes * warpQueries, rounds = 2;
  static constexpr int tileBlocks = 16, mostTiles = 6, steps = 2 * Groups, tilePieces = kTerms * steps * tile::warpLanes;
  static int sharedBytes(int tiles) { return tiles * tilePieces * 16; }
  using Arguments = GateArguments<Bf16>;

  static TILE_DEVICE void run(const Arguments& a) {
    constexpr int depth = Groups * 32;
    const int head = tile::blockIndex().z, block0 = tile::blockIndex().x * a.tiles * tileBlocks, lane = tile::laneIndex(), four = lane / 4;
    const bool vector = a.plan.tokens % 4 == 0;
    const auto pieces = tile::sharedWindow<tile::Words4>(0, a.tiles * tilePieces);
    const Bf16* q = a.q + int64_t{head} * a.plan.tokens * depth + lane % 4 * 8;
    float* gate = a.gate + int64_t{head} * a.plan.blocks * a.plan.tokens;
    TILE_ROLLED
    for (int round = 0; round < rounds; ++round) {
      const int query0 = (tile::blockIndex().y * rounds + round) * queries + tile::warpIndex() * warpQueries;
      // Column 2t + e of product n is query 16(n/2) + 4t + 2(n%2) + e: of two products a lane gets four neighbours.
      tile::Words4 columns[4][Groups];
      TILE_UNROLL
      for (int n = 0; n < 4; ++n) {
        const int query = query0 + n / 2 * 16 + four / 2 * 4 + n % 2 * 2 + four % 2;
        const bool present = tile::within(query, a.plan.tokens);
        TILE_UNROLL
        for (int g = 0; g < Groups; ++g) {
          columns[n][g] = {};
          if (present) columns[n][g] = *reinterpret_cast<const tile::Words4*>(q + int64_t{query} * depth + g * 32);
        }
      }
      if (round == 0) {
        splitMeans(a, pieces, a.means + int64_t{head} * a.plan.blocks * depth, block0);
        tile::barrier();
      }
      for (int t = 0; t < a.tiles && block0 + t * tileBlocks < a.plan.blocks; ++t) {
        float sum[4][4] = {};
        TILE_UNROLL
        for (int term = kTerms - 1; term >= 0; --term)  // the least first
          TILE_UNROLL
          for (int step = 0; step < steps; ++step) {
            const tile::Words4 means = pieces.get(((t * kTerms + term) * steps + step) * tile::warpLanes + lane);
            TILE_UNROLL
            for (int n = 0; n < 4; ++n)
              tile::multiplyAccumulate(sum[n], means.word, columns[n][step / 2].word[step % 2 * 2], columns[n][step / 2].word[step % 2 * 2 + 1]);
          }
        TILE_UNROLL
        for (int row = 0; row < 2; ++row) {
          const int block = block0 + t * tileBlocks + row * 8 + four;
          if (!tile::within(block, a.plan.blocks)) continue;
          TILE_UNROLL
          for (int n = 0; n < 4; n += 2) {
            const tile::Floats4 values = {{sum[n][2 * row], sum[n][2 * row + 1], sum[n + 1][2 * row], sum[n + 1][2 * row + 1]}};
            const int query = query0 + n * 8 + lane % 4 * 4;
            float* to = gate + int64_t{block} * a.plan.tokens + query;
            if (vector && tile::within(query + 3, a.plan.tokens)) {
              *reinterpret_cast<tile::Floats4*>(to) = values;
            } else {
              TILE_UNROLL
              for (int i = 0; i < 4; ++i)
                if (tile::within(query + i, a.plan.tokens)) to[i] = values.at[i];
            }
          }
        }
      }
    }
  }

 private:
  // Piece (tile, term, step, lane) of blocks lane/4 and 8 further of the tile, channels 16(step - step%2) + 8(lane%4) + 4(step%2) and the next three.
  static TILE_DEVICE void splitMeans(const Arguments& a, tile::Shared<tile::Words4> pieces, const float* means, int block0) {
    for (int i = tile::threadIndex(); i < a.tiles * steps * tile::warpLanes; i += threads) {
      const int lane = i % tile::warpLanes, step = i / tile::warpLanes % steps, tileIndex = i / (tile::warpLanes * steps);
      tile::Floats4 rest[2] = {};
      TILE_UNROLL
      for (int row = 0; row < 2; ++row) {
        const int block = block0 + tileIndex * tileBlocks + row * 8 + lane / 4;
        if (tile::within(block, a.plan.blocks))
          rest[row] = *reinterpret_cast<const tile::Floats4*>(means + int64_t{block} * Groups * 32 + step / 2 * 32 + lane % 4 * 8 + step % 2 * 4);
      }
      TILE_UNROLL
      for (int term = 0; term < kTerms; ++term) {
        tile::Words4 words;
        TILE_UNROLL
        for (int w = 0; w < 4; ++w) {
          float &low = rest[w % 2].at[w / 2 * 2], &high = rest[w % 2].at[w / 2 * 2 + 1];
          words.word[w] = tile::packBf16(low, high);
          low -= tile::lowFloat(words.word[w]);
          high -= tile::highFloat(words.word[w]);
        }
        pieces.set(((tileIndex * kTerms + term) * steps + step) * tile::warpLanes + lane, words);
      }
    }
  }
};

template <int Groups>
void gateTiles(tile::Stream stream, GateArguments<Bf16> arguments, int32_t heads) {
  using Kernel = GateTiles<Groups>;
  const int tiles = tile::divideUp(arguments.plan.blocks, Kernel::tileBlocks), parts = tile::divideUp(tiles, Kernel::mostTiles);
  arguments.tiles = tile::divideUp(tiles, parts);
  tile::launch<Kernel>(stream, {parts, tile::divideUp(arguments.plan.tokens, Kernel::queries * Kernel::rounds), heads}, Kernel::sharedBytes(arguments.tiles), arguments);
}

}  // namespace

template <class T>
void gate(tile::Stream stream, const PlanView& plan, const T* q, const float* means, int32_t heads, int32_t paddedDim, float* out) {
  const GateArguments<T> arguments{plan, q, means, out, paddedDim, 0};
  if constexpr (std::is_same_v<T, Bf16>) {
    paddedDim == 32 ? gateTiles<1>(stream, arguments, heads) : paddedDim == 64 ? gateTiles<2>(stream, arguments, heads) : gateTiles<4>(stream, arguments, heads);
  } else {
    tile::launch<Gate>(stream, {tile::divideUp(plan.tokens, Gate::side), tile::divideUp(plan.blocks, Gate::side), heads}, Gate::sharedBytes, arguments);
  }
}

template void gate<float>(tile::Stream, const PlanView&, const float*, const float*, int32_t, int32_t, float*);
template void gate<Bf16>(tile::Stream, const PlanView&, const Bf16*, const float*, int32_t, int32_t, float*);

}  // namespace vmoba::cuda
