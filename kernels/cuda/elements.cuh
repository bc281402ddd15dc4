// Four neighbouring elements of any storage type as floats: the unit of memory-bound kernels (16 bytes of f32, 8 of bf16).
#pragma once
#include "kernels/cuda/functions.h"
#include "kernels/cuda/tile/tile.h"

// A loop to keep rolled: its body is long and its indices need not be constants.
#ifdef __CUDACC__
#define TILE_ROLLED _Pragma("unroll 1")
#else
#define TILE_ROLLED
#endif

namespace vmoba::cuda {

struct E4m3 {
  uint8_t bits;
};

struct Four {
  float at[4];
};

/// f16 bits to float, subnormals included.
TILE_DEVICE float halfToFloat(uint32_t bits) {
  const uint32_t sign = (bits & 0x8000u) << 16, exponent = (bits >> 10) & 0x1fu, mantissa = bits & 0x3ffu;
  if (exponent == 0x1fu) return tile::floatOfBits(sign | 0x7f800000u | (mantissa << 13));
  if (exponent != 0) return tile::floatOfBits(sign | ((exponent + 112u) << 23) | (mantissa << 13));
  const float magnitude = static_cast<float>(mantissa) * 5.9604644775390625e-8f;  // 2^-24
  return sign != 0 ? -magnitude : magnitude;
}

/// F8 E4M3 (no infinities; 0x7f and 0xff are NaN) to float.
TILE_DEVICE float e4m3ToFloat(uint32_t bits) {
  const uint32_t sign = (bits & 0x80u) << 24, exponent = (bits >> 3) & 0xfu, mantissa = bits & 7u;
  if (exponent == 0xfu && mantissa == 7u) return tile::floatOfBits(sign | 0x7fc00000u);
  if (exponent != 0) return tile::floatOfBits(sign | ((exponent + 120u) << 23) | (mantissa << 20));
  const float magnitude = static_cast<float>(mantissa) * 0.001953125f;  // 2^-9
  return sign != 0 ? -magnitude : magnitude;
}

TILE_DEVICE bool isFinite(float value) { return (tile::bitsOfFloat(value) & 0x7f800000u) != 0x7f800000u; }

/// To the nearest E4M3, ties to even; beyond ±448 the largest there is.
TILE_DEVICE uint32_t floatToE4m3(float value) {
  const uint32_t bits = tile::bitsOfFloat(value), sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return sign | 0x7fu;
  if (magnitude >= 0x43e00000u) return sign | 0x7eu;
  if (magnitude < 0x3c800000u) return sign | (tile::bitsOfFloat(tile::floatOfBits(magnitude) + 16384.0f) - 0x46800000u);  // multiples of 2^-9, as those at 2^14
  return sign | (((magnitude + 0x7ffffu + ((magnitude >> 20) & 1u)) >> 20) - (120u << 3));
}

TILE_DEVICE float loadOne(const float* from) { return *from; }
TILE_DEVICE float loadOne(const Bf16* from) { return tile::toFloat(*from); }
TILE_DEVICE float loadOne(const F16* from) { return halfToFloat(from->bits); }
TILE_DEVICE float loadOne(const E4m3* from) { return e4m3ToFloat(from->bits); }

TILE_DEVICE Four loadFour(const float* from) {
  const auto values = *reinterpret_cast<const tile::Floats4*>(from);
  return {{values.at[0], values.at[1], values.at[2], values.at[3]}};
}
TILE_DEVICE Four loadFour(const Bf16* from) {
  const auto pairs = *reinterpret_cast<const tile::Words2*>(from);
  return {{tile::lowFloat(pairs.word[0]), tile::highFloat(pairs.word[0]), tile::lowFloat(pairs.word[1]), tile::highFloat(pairs.word[1])}};
}
TILE_DEVICE Four loadFour(const F16* from) {
  const auto pairs = *reinterpret_cast<const tile::Words2*>(from);
  return {{halfToFloat(pairs.word[0] & 0xffffu), halfToFloat(pairs.word[0] >> 16), halfToFloat(pairs.word[1] & 0xffffu), halfToFloat(pairs.word[1] >> 16)}};
}
TILE_DEVICE void storeFour(float* to, const Four& v) {
  *reinterpret_cast<tile::Floats4*>(to) = {{v.at[0], v.at[1], v.at[2], v.at[3]}};
}
TILE_DEVICE void storeFour(Bf16* to, const Four& v) {
  *reinterpret_cast<tile::Words2*>(to) = {{tile::packBf16(v.at[0], v.at[1]), tile::packBf16(v.at[2], v.at[3])}};
}

/// Elements i..i+3 of `from`, zero from `count` on. `vector`: the address is aligned for a vector load of all four.
template <class T>
TILE_DEVICE Four loadFour(const T* from, int64_t i, int64_t count, bool vector) {
  if (vector && tile::within(i + 3, count)) return loadFour(from + i);
  Four v{};
  for (int j = 0; j < 4; ++j)
    if (tile::within(i + j, count)) v.at[j] = loadOne(from + i + j);
  return v;
}
template <class T>
TILE_DEVICE void storeFour(T* to, int64_t i, int64_t count, bool vector, const Four& v) {
  if (vector && tile::within(i + 3, count)) return storeFour(to + i, v);
  for (int j = 0; j < 4; ++j)
    if (tile::within(i + j, count)) to[i + j] = tile::fromFloat<T>(v.at[j]);
}

TILE_DEVICE float apply(Function function, float x) {
  switch (function) {
    case Function::GeluTanh: return 0.5f * x * (1.0f + tile::hyperbolicTangent(0.7978845608028654f * (x + 0.044715f * x * x * x)));
    case Function::GeluErf: return 0.5f * x * (1.0f + tile::errorFunction(x * 0.7071067811865476f));
    case Function::Silu: return x / (1.0f + tile::exponential(-x));
    case Function::None: break;
  }
  return x;
}

/// Host side: whether all the addresses allow loads and stores of four elements (null ones do not matter).
template <class... T>
bool alignedForFour(const T*... addresses) {
  return ((reinterpret_cast<uintptr_t>(addresses) % (4 * sizeof(T)) == 0) && ...);
}

}  // namespace vmoba::cuda
