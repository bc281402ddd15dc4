#include "kernels/cuda/conv3d.h"

#include "kernels/cuda/products.cuh"

namespace vmoba::cuda {
namespace {

/// One output pixel's corner in the input.
struct Corner {
  int frame, row, column;
  bool inside;
};

TILE_DEVICE Corner cornerOf(const ConvShape& s, int64_t pixel) {
  Corner corner{};
  corner.inside = tile::within(pixel, int64_t{s.outFrames} * s.outHeight * s.outWidth);
  const int64_t p = corner.inside ? pixel : 0;
  corner.column = static_cast<int>(p % s.outWidth) * s.strideW - s.padLeft;
  corner.row = static_cast<int>(p / s.outWidth % s.outHeight) * s.strideH - s.padTop;
  corner.frame = static_cast<int>(p / (int64_t{s.outWidth} * s.outHeight)) * s.strideT;
  return corner;
}

/// Index of the first channel of the pixel under tap `tap`, or -1 beyond the image.
TILE_DEVICE int64_t pixelUnder(const ConvShape& s, const Corner& corner, int tap) {
  const int row = corner.row + tap / s.kernelW % s.kernelH, column = corner.column + tap % s.kernelW;
  if (!corner.inside || row < 0 || column < 0 || !tile::within(row, s.height) || !tile::within(column, s.width)) return -1;
  const int frame = corner.frame + tap / (s.kernelW * s.kernelH);
  return ((int64_t{frame} * s.height + row) * s.width + column) * s.channels;
}

/// The gathered matrix [pixels, taps·channels] as a Source of bf16product.
template <bool Aligned>
struct Pixels {
  const Bf16* base;
  ConvShape shape;
  int k;
  Corner corner[2];
  static constexpr bool aligned = Aligned;

  TILE_DEVICE void select(int i, int64_t pixel) { corner[i] = cornerOf(shape, pixel); }
  TILE_DEVICE const Bf16* chunkAt(int i, int at, int& validBytes) const {
    const int tap = at / shape.channels;
    const int64_t pixel = tile::within(at, k) ? pixelUnder(shape, corner[i], tap) : -1;
    validBytes = pixel >= 0 ? 16 : 0;
    return pixel >= 0 ? base + pixel + (at - tap * shape.channels) : base;
  }
  TILE_DEVICE uint32_t bitsAt(int i, int at) const {
    if (!tile::within(at, k)) return 0u;
    const int tap = at / shape.channels;
    const int64_t pixel = pixelUnder(shape, corner[i], tap);
    return pixel >= 0 ? base[pixel + (at - tap * shape.channels)].bits : 0u;
  }
};

struct PixelsF32 {
  const float* base;
  ConvShape shape;
  int k;
  Corner corner;

  TILE_DEVICE float at(int i) const {
    if (!tile::within(i, k)) return 0.0f;
    const int tap = i / shape.channels;
    const int64_t pixel = pixelUnder(shape, corner, tap);
    return pixel >= 0 ? base[pixel + (i - tap * shape.channels)] : 0.0f;
  }
};

template <bool Aligned>
struct ConvBf16 {
  static constexpr const char* name = "conv3d bf16";
  static constexpr int threads = bf16product::threads, blocksPerSM = Aligned ? 2 : 1;  // gathering element by element needs the registers
  struct Arguments {
    const Bf16* x;
    const Bf16* weight;
    ConvShape shape;
    int64_t m;
    int n, k;
    Epilogue<Bf16> epilogue;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    using namespace bf16product;
    const int64_t m0 = int64_t{tile::blockIndex().x} * tileM, n0 = int64_t{tile::blockIndex().y} * tileN;
    Pixels<Aligned> a{p.x, p.shape, p.k, {}};
    MatrixRows<Aligned> w{p.weight, p.n, p.k, {}, {}};
    TILE_UNROLL
    for (int i = 0; i < 2; ++i) {
      a.select(i, m0 + tile::threadIndex() / 4 + 64 * i);
      w.select(i, n0 + tile::threadIndex() / 4 + 64 * i);
    }
    bf16product::run(a, w, m0, n0, p.m, p.n, p.k, p.epilogue);
  }
};

struct ConvF32 {
  static constexpr const char* name = "conv3d f32";
  static constexpr int threads = f32product::threads, blocksPerSM = 4;
  struct Arguments {
    const float* x;
    const float* weight;
    ConvShape shape;
    int64_t m;
    int n, k;
    Epilogue<float> epilogue;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    using namespace f32product;
    const int64_t m0 = int64_t{tile::blockIndex().x} * tileM, n0 = int64_t{tile::blockIndex().y} * tileN;
    const PixelsF32 a{p.x, p.shape, p.k, cornerOf(p.shape, m0 + tile::threadIndex())};
    MatrixRows w{p.weight, p.n, p.k, nullptr, false};
    w.select(n0 + tile::threadIndex());
    f32product::run(a, w, m0, n0, p.m, p.n, p.k, p.epilogue);
  }
};

template <class From, class To>
struct ArrangeConvWeight {
  static constexpr const char* name = "conv weight";
  static constexpr int threads = 256, blocksPerSM = 4;
  struct Arguments {
    const From* source;
    To* destination;
    int64_t count;
    int inputs, taps;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (!tile::within(i, p.count)) return;
    const int64_t input = i % p.inputs, tap = i / p.inputs % p.taps, output = i / (int64_t{p.inputs} * p.taps);
    p.destination[i] = tile::fromFloat<To>(loadOne(p.source + (output * p.inputs + input) * p.taps + tap));
  }
};

template <class From, class To>
void arrange(const void* source, void* destination, int64_t count, int64_t inputs, int64_t taps, tile::Stream stream) {
  tile::launch<ArrangeConvWeight<From, To>>(stream, {tile::divideUp(count, 256)}, 0,
                                            {static_cast<const From*>(source), static_cast<To*>(destination), count, static_cast<int>(inputs), static_cast<int>(taps)});
}

template <class To>
void arrangeTo(const void* source, DType sourceType, void* destination, int64_t count, int64_t inputs, int64_t taps, tile::Stream stream) {
  if (sourceType == DType::F32) return arrange<float, To>(source, destination, count, inputs, taps, stream);
  if (sourceType == DType::BF16) return arrange<Bf16, To>(source, destination, count, inputs, taps, stream);
  if (sourceType == DType::F16) return arrange<F16, To>(source, destination, count, inputs, taps, stream);
  throw Error(ErrorCode::Unsupported, std::string("convolution weights of type ") + dtypeName(sourceType) + " are not supported on the GPU");
}

}  // namespace

void conv3d(const ConvJob& job, tile::Stream stream) {
  const ConvShape& s = job.shape;
  const int64_t m = int64_t{s.outFrames} * s.outHeight * s.outWidth;
  const int k = s.kernelT * s.kernelH * s.kernelW * s.channels;
  if (job.type == DType::F32) {
    const Epilogue<float> epilogue{job.bias, static_cast<const float*>(job.residual), static_cast<float*>(job.out), Function::None, false};
    tile::launch<ConvF32>(stream, {tile::divideUp(m, f32product::tileM), tile::divideUp(job.outChannels, f32product::tileN)}, f32product::sharedBytes,
                          {static_cast<const float*>(job.x), static_cast<const float*>(job.weight), s, m, job.outChannels, k, epilogue});
    return;
  }
  const auto* x = static_cast<const Bf16*>(job.x);
  const auto* weight = static_cast<const Bf16*>(job.weight);
  auto* out = static_cast<Bf16*>(job.out);
  const Epilogue<Bf16> epilogue{job.bias, static_cast<const Bf16*>(job.residual), out, Function::None, job.outChannels % 4 == 0 && alignedForFour(out)};
  const tile::Extent grid{tile::divideUp(m, bf16product::tileM), tile::divideUp(job.outChannels, bf16product::tileN)};
  if (s.channels % bf16product::chunk == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0) {
    tile::launch<ConvBf16<true>>(stream, grid, bf16product::sharedBytes, {x, weight, s, m, job.outChannels, k, epilogue});
  } else {
    tile::launch<ConvBf16<false>>(stream, grid, bf16product::sharedBytes, {x, weight, s, m, job.outChannels, k, epilogue});
  }
}

void arrangeConvWeight(const void* source, DType sourceType, void* destination, DType type, int64_t outputs, int64_t inputs, int64_t taps, tile::Stream stream) {
  const int64_t count = outputs * inputs * taps;
  if (type == DType::BF16) return arrangeTo<Bf16>(source, sourceType, destination, count, inputs, taps, stream);
  arrangeTo<float>(source, sourceType, destination, count, inputs, taps, stream);
}

}  // namespace vmoba::cuda
