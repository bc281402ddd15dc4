// Memory-bound: each row is read from device memory once (later passes over it hit the cache) and written once.
#include "kernels/cuda/rows.h"

#include <cmath>

#include "kernels/cuda/elements.cuh"

namespace vmoba::cuda {
namespace {

constexpr int rowThreads = 128, rowWarps = rowThreads / tile::warpLanes;

/// The row-wise norms of f32 rows: one block per row. `Centred` subtracts the mean (layer norm); otherwise RMS.
template <class Out, bool Centred>
struct NormRows {
  static constexpr const char* name = Centred ? "layer norm" : "RMS norm";
  static constexpr int threads = rowThreads, blocksPerSM = 8;
  struct Arguments {
    const float* x;
    const float* gain;
    const float* offset;
    Out* out;
    float base, eps;   // factor = base + gain
    int width;
    bool vector;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const tile::Shared<float> scratch = tile::sharedWindow<float>(0, rowWarps);
    const int64_t row = int64_t{tile::blockIndex().x} * p.width;
    const int first = tile::threadIndex() * 4;
    float mean = 0;
    if constexpr (Centred) {
      float sum = 0;
      for (int i = first; i < p.width; i += threads * 4) {
        const Four v = loadFour(p.x + row, i, p.width, p.vector);
        sum += (v.at[0] + v.at[1]) + (v.at[2] + v.at[3]);
      }
      mean = tile::blockSum(sum, scratch, rowWarps) / static_cast<float>(p.width);
    }
    float squares = 0;
    for (int i = first; i < p.width; i += threads * 4) {
      const Four v = loadFour(p.x + row, i, p.width, p.vector);
      for (int j = 0; j < 4; ++j) {
        const float d = tile::within(i + j, p.width) ? v.at[j] - mean : 0.0f;
        squares = tile::fma(d, d, squares);
      }
    }
    const float factor = 1.0f / tile::squareRoot(tile::blockSum(squares, scratch, rowWarps) / static_cast<float>(p.width) + p.eps);
    for (int i = first; i < p.width; i += threads * 4) {
      Four v = loadFour(p.x + row, i, p.width, p.vector);
      const Four gain = p.gain != nullptr ? loadFour(p.gain, i, p.width, p.vector) : Four{};
      const Four offset = p.offset != nullptr ? loadFour(p.offset, i, p.width, p.vector) : Four{};
      for (int j = 0; j < 4; ++j) v.at[j] = (v.at[j] - mean) * factor * (p.base + gain.at[j]) + offset.at[j];
      storeFour(p.out + row, i, p.width, p.vector, v);
    }
  }
};

/// One warp per pixel: the VAE has 96 to 384 channels.
template <class T>
struct NormChannels {
  static constexpr const char* name = "channel norm";
  static constexpr int threads = 128, blocksPerSM = 8;
  struct Arguments {
    const T* x;
    const float* gamma;
    T* out;
    int64_t pixels;
    int channels;
    bool silu, vector;
    float scale;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t pixel = int64_t{tile::blockIndex().x} * (threads / tile::warpLanes) + tile::warpIndex();
    if (!tile::within(pixel, p.pixels)) return;  // whole warps leave together
    const T* from = p.x + pixel * p.channels;
    const int first = tile::laneIndex() * 4;
    float squares = 0;
    for (int i = first; i < p.channels; i += tile::warpLanes * 4) {
      const Four v = loadFour(from, i, p.channels, p.vector);
      for (int j = 0; j < 4; ++j) squares = tile::fma(v.at[j], v.at[j], squares);
    }
    const float factor = p.scale / tile::maximum(tile::squareRoot(tile::warpSum(squares)), 1e-12f);
    for (int i = first; i < p.channels; i += tile::warpLanes * 4) {
      Four v = loadFour(from, i, p.channels, p.vector);
      const Four gamma = loadFour(p.gamma, i, p.channels, p.vector);
      for (int j = 0; j < 4; ++j) {
        v.at[j] = v.at[j] * factor * gamma.at[j];
        if (p.silu) v.at[j] = apply(Function::Silu, v.at[j]);
      }
      storeFour(p.out + pixel * p.channels, i, p.channels, p.vector, v);
    }
  }
};

template <class Y>
struct AddGated {
  static constexpr const char* name = "gated add";
  static constexpr int threads = 256, blocksPerSM = 8;
  struct Arguments {
    float* x;
    const Y* y;
    const float* gate;
    int64_t count;
    int width;
    bool vector;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = (int64_t{tile::blockIndex().x} * threads + tile::threadIndex()) * 4;
    if (!tile::within(i, p.count)) return;
    Four x = loadFour(p.x, i, p.count, p.vector);
    const Four y = loadFour(p.y, i, p.count, p.vector);
    for (int j = 0; j < 4; ++j) x.at[j] += y.at[j] * (p.gate != nullptr ? p.gate[(i + j) % p.width] : 1.0f);
    storeFour(p.x, i, p.count, p.vector, x);
  }
};

template <class Out>
void layerNormTo(const LayerNormJob& j, tile::Stream stream) {
  auto* out = static_cast<Out*>(j.out);
  const float base = j.gain == nullptr || j.gainPlusOne ? 1.0f : 0.0f;
  tile::launch<NormRows<Out, true>>(stream, {static_cast<int>(j.rows)}, rowWarps * 4,
                                    {j.x, j.gain, j.offset, out, base, j.eps, j.width, j.width % 4 == 0 && alignedForFour(j.x, j.gain, j.offset, out)});
}

template <class Out>
void rmsNormTo(const RmsNormJob& j, tile::Stream stream) {
  auto* out = static_cast<Out*>(j.out);
  tile::launch<NormRows<Out, false>>(stream, {static_cast<int>(j.rows)}, rowWarps * 4,
                                     {j.x, j.weight, nullptr, out, 0.0f, j.eps, j.width, j.width % 4 == 0 && alignedForFour(j.x, j.weight, out)});
}

template <class T>
void channelNormOf(const ChannelNormJob& j, tile::Stream stream) {
  using Kernel = NormChannels<T>;
  const auto* x = static_cast<const T*>(j.x);
  auto* out = static_cast<T*>(j.out);
  const float scale = std::sqrt(static_cast<float>(j.channels));
  tile::launch<Kernel>(stream, {tile::divideUp(j.pixels, Kernel::threads / tile::warpLanes)}, 0,
                       {x, j.gamma, out, j.pixels, j.channels, j.silu, j.channels % 4 == 0 && alignedForFour(x, j.gamma, out), scale});
}

template <class Y>
void addGatedFrom(const AddGatedJob& j, tile::Stream stream) {
  using Kernel = AddGated<Y>;
  const auto* y = static_cast<const Y*>(j.y);
  const int64_t count = j.rows * j.width;
  tile::launch<Kernel>(stream, {tile::divideUp(count, Kernel::threads * 4)}, 0, {j.x, y, j.gate, count, j.width, alignedForFour(j.x, y)});
}

}  // namespace

void layerNorm(const LayerNormJob& job, tile::Stream stream) { job.outType == DType::BF16 ? layerNormTo<Bf16>(job, stream) : layerNormTo<float>(job, stream); }
void rmsNorm(const RmsNormJob& job, tile::Stream stream) { job.outType == DType::BF16 ? rmsNormTo<Bf16>(job, stream) : rmsNormTo<float>(job, stream); }
void channelNorm(const ChannelNormJob& job, tile::Stream stream) { job.type == DType::BF16 ? channelNormOf<Bf16>(job, stream) : channelNormOf<float>(job, stream); }
void addGated(const AddGatedJob& job, tile::Stream stream) { job.yType == DType::BF16 ? addGatedFrom<Bf16>(job, stream) : addGatedFrom<float>(job, stream); }

}  // namespace vmoba::cuda
