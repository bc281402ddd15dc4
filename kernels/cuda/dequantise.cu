// One thread per value: the products that follow cost orders of magnitude more (a video has thousands of rows per weight).
#include "kernels/cuda/dequantise.h"

#include "kernels/cuda/elements.cuh"

namespace vmoba::cuda {
namespace {

constexpr int threadsPerBlock = 256;

template <class In, class Out>
struct DequantiseScaled {
  static constexpr const char* name = "dequantise";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const In* x;
    Out* out;
    float scale;
    int64_t count;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (tile::within(i, p.count)) p.out[i] = tile::fromFloat<Out>(loadOne(p.x + i) * p.scale);
  }
};

TILE_DEVICE float halfAt(const uint8_t* bytes) { return halfToFloat(static_cast<uint32_t>(bytes[0]) | (static_cast<uint32_t>(bytes[1]) << 8)); }

template <Quantisation Kind>
TILE_DEVICE float valueOf(const uint8_t* block, int i) {
  if constexpr (Kind == Quantisation::Q8_0) {
    return halfAt(block) * static_cast<float>(static_cast<int8_t>(block[2 + i]));
  } else if constexpr (Kind == Quantisation::Q4_0) {
    const int byte = block[2 + i % 16];
    return halfAt(block) * static_cast<float>((i < 16 ? byte & 0xf : byte >> 4) - 8);
  } else {
    // Groups of 32; groups 0-3 keep 6 bits of scale and minimum whole, 4-7 keep the low 4 bits together and the high 2 in the former.
    const uint8_t* packed = block + 4;
    const int group = i / 32;
    const int scale = group < 4 ? packed[group] & 63 : (packed[group + 4] & 0xf) | (packed[group - 4] >> 6 << 4);
    const int minimum = group < 4 ? packed[group + 4] & 63 : (packed[group + 4] >> 4) | (packed[group] >> 6 << 4);
    const int byte = block[16 + i / 64 * 32 + i % 32];
    const int q = group % 2 == 0 ? byte & 0xf : byte >> 4;
    return halfAt(block) * static_cast<float>(scale) * static_cast<float>(q) - halfAt(block + 2) * static_cast<float>(minimum);
  }
}

template <Quantisation Kind, class Out>
struct DequantiseBlocks {
  static constexpr const char* name = "dequantise blocks";
  static constexpr int threads = threadsPerBlock, blocksPerSM = 4;
  struct Arguments {
    const uint8_t* x;
    Out* out;
    int64_t count;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    const int64_t i = int64_t{tile::blockIndex().x} * threads + tile::threadIndex();
    if (!tile::within(i, p.count)) return;
    p.out[i] = tile::fromFloat<Out>(valueOf<Kind>(p.x + i / blockValues(Kind) * blockBytes(Kind), static_cast<int>(i % blockValues(Kind))));
  }
};

template <class In>
void scaledFrom(const void* x, float scale, void* out, DType outType, int64_t count, tile::Stream stream) {
  const tile::Extent grid{tile::divideUp(count, threadsPerBlock)};
  const auto* from = static_cast<const In*>(x);
  if (outType == DType::BF16) {
    tile::launch<DequantiseScaled<In, Bf16>>(stream, grid, 0, {from, static_cast<Bf16*>(out), scale, count});
  } else {
    tile::launch<DequantiseScaled<In, float>>(stream, grid, 0, {from, static_cast<float*>(out), scale, count});
  }
}

template <Quantisation Kind>
void blocksOf(const void* x, void* out, DType outType, int64_t count, tile::Stream stream) {
  const tile::Extent grid{tile::divideUp(count, threadsPerBlock)};
  const auto* from = static_cast<const uint8_t*>(x);
  if (outType == DType::BF16) {
    tile::launch<DequantiseBlocks<Kind, Bf16>>(stream, grid, 0, {from, static_cast<Bf16*>(out), count});
  } else {
    tile::launch<DequantiseBlocks<Kind, float>>(stream, grid, 0, {from, static_cast<float*>(out), count});
  }
}

}  // namespace

void dequantiseScaled(const void* x, DType xType, float scale, void* out, DType outType, int64_t count, tile::Stream stream) {
  switch (xType) {
    case DType::F32: return scaledFrom<float>(x, scale, out, outType, count, stream);
    case DType::F16: return scaledFrom<F16>(x, scale, out, outType, count, stream);
    case DType::BF16: return scaledFrom<Bf16>(x, scale, out, outType, count, stream);
    case DType::F8E4M3: return scaledFrom<E4m3>(x, scale, out, outType, count, stream);
    default: throw Error(ErrorCode::Unsupported, std::string("weights of type ") + dtypeName(xType) + " are not supported on the GPU");
  }
}

void dequantiseBlocks(const void* x, Quantisation quantisation, void* out, DType outType, int64_t count, tile::Stream stream) {
  switch (quantisation) {
    case Quantisation::Q8_0: return blocksOf<Quantisation::Q8_0>(x, out, outType, count, stream);
    case Quantisation::Q4_0: return blocksOf<Quantisation::Q4_0>(x, out, outType, count, stream);
    case Quantisation::Q4_K: return blocksOf<Quantisation::Q4_K>(x, out, outType, count, stream);
  }
}

}  // namespace vmoba::cuda
