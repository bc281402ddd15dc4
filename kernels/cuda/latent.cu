#include "kernels/cuda/latent.h"

#include "kernels/cuda/elements.cuh"

namespace vmoba::cuda {
namespace {

constexpr int threadsPerBlock = 256;

/// Where double runs at 1/64 of f32 the arithmetic takes about as long as the memory: a fraction of a millisecond at the largest sizes.
struct Combine {
  static constexpr const char* name = "combination of latents";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const float* x[4];
    double coefficient[4];
    int terms;
    float* out;
    int64_t count;
    bool vector;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = (int64_t{tile::blockIndex().x} * threads + tile::threadIndex()) * 4;
    if (!tile::within(i, p.count)) return;
    double sum[4] = {};
    TILE_UNROLL
    for (int t = 0; t < 4; ++t) {
      if (t >= p.terms) break;
      const Four v = loadFour(p.x[t], i, p.count, p.vector);
      TILE_UNROLL
      for (int j = 0; j < 4; ++j) {
        const double product = p.coefficient[t] * static_cast<double>(v.at[j]);
        sum[j] = t == 0 ? product : sum[j] + product;
      }
    }
    Four rounded;
    TILE_UNROLL
    for (int j = 0; j < 4; ++j) rounded.at[j] = static_cast<float>(sum[j]);
    storeFour(p.out, i, p.count, p.vector, rounded);
  }
};

/// One thread per output: its neighbours read the same few channels.
struct ProjectChannels {
  static constexpr const char* name = "projection of channels";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const float* x;
    const float* factors;
    const float* offset;
    float* out;
    int64_t positions;
    int channels, columns;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (!tile::within(i, p.positions * p.columns)) return;
    const int column = static_cast<int>(i % p.columns);
    float value = p.offset[column];
    for (int c = 0; c < p.channels; ++c) value = value + p.x[c * p.positions + i / p.columns] * p.factors[c * p.columns + column];
    p.out[i] = value;
  }
};

struct FindNotFinite {
  static constexpr const char* name = "search for NaN";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const float* x;
    int64_t count;
    uint32_t* found;
    bool vector;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = (int64_t{tile::blockIndex().x} * threads + tile::threadIndex()) * 4;
    const Four v = loadFour(p.x, i, p.count, p.vector);  // zeros behind the end
    bool finite = true;
    for (int j = 0; j < 4; ++j) finite = finite && isFinite(v.at[j]);
    if (!finite) tile::atomicOr(p.found, 1u);
  }
};

}  // namespace

void combine(const Combination& job, tile::Stream stream) {
  Combine::Arguments arguments{};
  bool vector = alignedForFour(job.out);
  for (size_t t = 0; t < job.x.size(); ++t) {
    arguments.x[t] = job.x[t];
    arguments.coefficient[t] = job.coefficient[t];
    vector = vector && alignedForFour(job.x[t]);
  }
  arguments.terms = job.terms;
  arguments.out = job.out;
  arguments.count = job.count;
  arguments.vector = vector;
  tile::launch<Combine>(stream, {tile::divideUp(job.count, threadsPerBlock * 4)}, 0, arguments);
}

void projectChannels(const float* x, const float* factors, const float* offset, float* out, int64_t positions, int32_t channels, int32_t columns, tile::Stream stream) {
  tile::launch<ProjectChannels>(stream, {tile::divideUp(positions * columns, threadsPerBlock)}, 0, {x, factors, offset, out, positions, channels, columns});
}

void findNotFinite(const float* x, int64_t count, uint32_t* found, tile::Stream stream) {
  tile::launch<FindNotFinite>(stream, {tile::divideUp(count, threadsPerBlock * 4)}, 0, {x, count, found, alignedForFour(x)});
}

}  // namespace vmoba::cuda
