#include "kernels/cuda/elements.h"

#include "kernels/cuda/elements.cuh"

namespace vmoba::cuda {
namespace {

constexpr int threadsPerBlock = 256;

template <class In, class Out>
struct Map {
  static constexpr const char* name = "element function";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const In* x;
    Out* out;
    int64_t count;
    Function function;
    bool vector;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = (int64_t{tile::blockIndex().x} * threads + tile::threadIndex()) * 4;
    if (!tile::within(i, p.count)) return;
    Four v = loadFour(p.x, i, p.count, p.vector);
    for (int j = 0; j < 4; ++j) v.at[j] = apply(p.function, v.at[j]);
    storeFour(p.out, i, p.count, p.vector, v);
  }
};

struct AddRepeated {
  static constexpr const char* name = "repeated add";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const float* a;
    const float* b;
    float* out;
    int64_t count, period;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (tile::within(i, p.count)) p.out[i] = p.a[i] + p.b[i % p.period];
  }
};

/// Both directions walk the latent; only the place within the token's row differs.
template <class Rows, bool ToRows>
struct Patches {
  static constexpr const char* name = ToRows ? "patchify" : "unpatchify";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const float* from;
    Rows* to;
    PatchShape shape;
    int64_t count;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (!tile::within(i, p.count)) return;
    const PatchShape& s = p.shape;
    const int column = static_cast<int>(i % s.width), row = static_cast<int>(i / s.width % s.height);
    const int frame = static_cast<int>(i / (int64_t{s.width} * s.height) % s.frames), channel = static_cast<int>(i / (int64_t{s.width} * s.height * s.frames));
    const int64_t token = (int64_t{frame / s.patchT} * (s.height / s.patchH) + row / s.patchH) * (s.width / s.patchW) + column / s.patchW;
    const int volume = s.patchT * s.patchH * s.patchW;
    const int within = (frame % s.patchT * s.patchH + row % s.patchH) * s.patchW + column % s.patchW;
    const int64_t base = token * s.channels * volume;
    if constexpr (ToRows) {
      p.to[base + channel * volume + within] = tile::fromFloat<Rows>(p.from[i]);
    } else {
      p.to[i] = p.from[base + within * s.channels + channel];
    }
  }
};

template <class Unit>
struct Upsample2x {
  static constexpr const char* name = "upsample";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const Unit* x;
    Unit* out;
    int64_t count;   ///< units of out
    int width, units;  ///< input columns, units per pixel
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (!tile::within(i, p.count)) return;
    const int64_t line = i / (int64_t{2} * p.width * p.units);
    const int unit = static_cast<int>(i % p.units), column = static_cast<int>(i / p.units % (2 * p.width));
    p.out[i] = p.x[(line / 2 * p.width + column / 2) * p.units + unit];
  }
};

template <class Unit>
struct ChannelsToFrames {
  static constexpr const char* name = "channels to frames";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const Unit* x;
    Unit* out;
    int64_t count, pixels;
    int units;  ///< per output pixel
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (!tile::within(i, p.count)) return;
    const int64_t unit = i % p.units, pixel = i / p.units % p.pixels, frame = i / (p.units * p.pixels);
    p.out[i] = p.x[((frame / 2 * p.pixels + pixel) * 2 + frame % 2) * p.units + unit];
  }
};

template <class In, class Out>
void map(const void* x, void* out, Function function, int64_t count, tile::Stream stream) {
  const auto* from = static_cast<const In*>(x);
  auto* to = static_cast<Out*>(out);
  tile::launch<Map<In, Out>>(stream, {tile::divideUp(count, threadsPerBlock * 4)}, 0, {from, to, count, function, alignedForFour(from, to)});
}

template <class In>
void mapFrom(const void* x, void* out, DType outType, Function function, int64_t count, tile::Stream stream) {
  outType == DType::BF16 ? map<In, Bf16>(x, out, function, count, stream) : map<In, float>(x, out, function, count, stream);
}

/// Copies move the widest unit that divides a pixel and fits the addresses.
template <class Visit>
void withUnit(const void* x, const void* out, int64_t pixelBytes, const Visit& visit) {
  const auto addresses = reinterpret_cast<uintptr_t>(x) | reinterpret_cast<uintptr_t>(out) | static_cast<uintptr_t>(pixelBytes);
  if (addresses % 16 == 0) return visit(tile::Words4{});
  if (addresses % 4 == 0) return visit(uint32_t{});
  visit(uint16_t{});
}

struct ZeroWords {
  static constexpr const char* name = "zero words";
  static constexpr int threads = 256, blocksPerSM = 4;
  struct Arguments {
    uint32_t* words;
    int64_t count;
  };
  static TILE_DEVICE void run(const Arguments& a) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (i < a.count) a.words[i] = 0;
  }
};

}  // namespace

void zeroWords(tile::Stream stream, uint32_t* words, int64_t count) {
  tile::launch<ZeroWords>(stream, {tile::divideUp(count, ZeroWords::threads)}, 0, {words, count});
}

void mapElements(const void* x, DType xType, void* out, DType outType, Function function, int64_t count, tile::Stream stream) {
  if (xType == DType::BF16) return mapFrom<Bf16>(x, out, outType, function, count, stream);
  if (xType == DType::F16) return mapFrom<F16>(x, out, outType, function, count, stream);
  mapFrom<float>(x, out, outType, function, count, stream);
}

void addRepeated(const float* a, const float* b, float* out, int64_t count, int64_t period, tile::Stream stream) {
  tile::launch<AddRepeated>(stream, {tile::divideUp(count, threadsPerBlock)}, 0, {a, b, out, count, period});
}

void patchify(const float* latent, void* rows, DType type, const PatchShape& shape, tile::Stream stream) {
  const int64_t count = int64_t{shape.channels} * shape.frames * shape.height * shape.width;
  const tile::Extent grid{tile::divideUp(count, threadsPerBlock)};
  if (type == DType::BF16) {
    tile::launch<Patches<Bf16, true>>(stream, grid, 0, {latent, static_cast<Bf16*>(rows), shape, count});
  } else {
    tile::launch<Patches<float, true>>(stream, grid, 0, {latent, static_cast<float*>(rows), shape, count});
  }
}

void unpatchify(const float* rows, float* latent, const PatchShape& shape, tile::Stream stream) {
  const int64_t count = int64_t{shape.channels} * shape.frames * shape.height * shape.width;
  tile::launch<Patches<float, false>>(stream, {tile::divideUp(count, threadsPerBlock)}, 0, {rows, latent, shape, count});
}

void upsample2x(const void* x, void* out, int elementSize, int64_t framesTimesHeight, int32_t width, int32_t channels, tile::Stream stream) {
  const int64_t pixelBytes = int64_t{channels} * elementSize;
  withUnit(x, out, pixelBytes, [&](auto unit) {
    using Unit = decltype(unit);
    const int64_t units = pixelBytes / static_cast<int64_t>(sizeof(Unit)), count = framesTimesHeight * 4 * width * units;
    tile::launch<Upsample2x<Unit>>(stream, {tile::divideUp(count, threadsPerBlock)}, 0,
                                   {static_cast<const Unit*>(x), static_cast<Unit*>(out), count, width, static_cast<int>(units)});
  });
}

void channelsToFrames(const void* x, void* out, int elementSize, int64_t frames, int64_t pixels, int32_t channels, tile::Stream stream) {
  const int64_t pixelBytes = int64_t{channels} * elementSize;
  withUnit(x, out, pixelBytes, [&](auto unit) {
    using Unit = decltype(unit);
    const int64_t units = pixelBytes / static_cast<int64_t>(sizeof(Unit)), count = 2 * frames * pixels * units;
    tile::launch<ChannelsToFrames<Unit>>(stream, {tile::divideUp(count, threadsPerBlock)}, 0,
                                         {static_cast<const Unit*>(x), static_cast<Unit*>(out), count, pixels, static_cast<int>(units)});
  });
}

}  // namespace vmoba::cuda
