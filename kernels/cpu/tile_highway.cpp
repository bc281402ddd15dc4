// The tile kernel in f32 on every instruction set Highway knows of: compiled once per target, chosen at run time.
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "kernels/cpu/tile_highway.cpp"
#define HWY_DISABLED_TARGETS (HWY_SSSE3 | HWY_AVX3_DL | HWY_SVE | HWY_SVE2 | HWY_SVE_256 | HWY_SVE2_128)
#include <hwy/foreach_target.h>
// After foreach_target.h.
#include <hwy/highway.h>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/tile.h"

HWY_BEFORE_NAMESPACE();
namespace vmoba::cpu {
namespace HWY_NAMESPACE {
namespace {

namespace hn = hwy::HWY_NAMESPACE;
constexpr int64_t kChunkBytes = 128 << 10;

struct Arithmetic {
  using Tag = hn::ScalableTag<float>;
  using Vector = hn::Vec<Tag>;
  using Words = Vector;
  using Element = float;
  static constexpr int32_t kLanes = static_cast<int32_t>(hn::MaxLanes(Tag())), kStep = 1;
  // The tile fills the register file: 24 of 32 registers on AVX-512 and NEON, 12 of 16 elsewhere.
  static constexpr int32_t kVectors = HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_NEON ? 4 : 2, kRows = 6;

  static HWY_INLINE Vector zero() { return hn::Zero(Tag()); }
  static HWY_INLINE Vector set(float x) { return hn::Set(Tag(), x); }
  static HWY_INLINE Vector load(const float* from) { return hn::LoadU(Tag(), from); }
  static HWY_INLINE void store(Vector x, float* to) { hn::StoreU(x, Tag(), to); }
  static HWY_INLINE Vector add(Vector a, Vector b) { return hn::Add(a, b); }
  static HWY_INLINE Vector mul(Vector a, Vector b) { return hn::Mul(a, b); }
  static HWY_INLINE Vector max(Vector a, Vector b) { return hn::Max(a, b); }
  static HWY_INLINE Vector mulAdd(Vector a, Vector b, Vector c) { return hn::MulAdd(a, b, c); }
  static HWY_INLINE Vector mulSub(Vector a, Vector b, Vector c) { return hn::MulSub(a, b, c); }
  static HWY_INLINE bool anyGreater(Vector a, Vector b) { return !hn::AllFalse(Tag(), hn::Gt(a, b)); }
  static HWY_INLINE float reduceMax(Vector x) { return hn::GetLane(hn::MaxOfLanes(Tag(), x)); }
  static HWY_INLINE float reduceSum(Vector x) { return hn::GetLane(hn::SumOfLanes(Tag(), x)); }
  static HWY_INLINE Vector keepFirst(int32_t count, Vector x) {
    return hn::IfThenElse(hn::FirstN(Tag(), static_cast<size_t>(count < 0 ? 0 : count)), x, set(-__builtin_inff()));
  }
  static HWY_INLINE Words loadWords(const Element* from) { return load(from); }
  static HWY_INLINE Words broadcastWord(const Element* from) { return set(*from); }
  static HWY_INLINE Vector dot(Words a, Words b, Vector sum) { return hn::MulAdd(a, b, sum); }

  /// 2^x by the nearest integer and a polynomial of degree 6 (relative error below 1e-7); below 2^-126 it stays there, which
  /// is nothing beside a denominator of at least 2^-8.
  static HWY_INLINE Vector exp2(Vector x) {
    const hn::RebindToSigned<Tag> integers;
    x = hn::Max(set(-126.0f), x);  // in this order x86 keeps a NaN, which finish() must see
    const auto whole = hn::NearestInt(x);
    const Vector f = hn::Sub(x, hn::ConvertTo(Tag(), whole));
    Vector p = set(1.535336188319500e-4f);
    p = hn::MulAdd(p, f, set(1.339887440266574e-3f));
    p = hn::MulAdd(p, f, set(9.618437357674640e-3f));
    p = hn::MulAdd(p, f, set(5.550332471162809e-2f));
    p = hn::MulAdd(p, f, set(2.402264791363012e-1f));
    p = hn::MulAdd(p, f, set(6.931472028550421e-1f));
    p = hn::MulAdd(p, f, set(1.0f));
    return hn::BitCast(Tag(), hn::Add(hn::BitCast(integers, p), hn::ShiftLeft<23>(whole)));
  }
  template <int M>
  static HWY_INLINE void storeWeights(const Vector (&weight)[M], Element* to) {
#pragma GCC unroll 4
    for (int n = 0; n < M; ++n) store(weight[n], to + n * kLanes);
  }
};

#include "kernels/cpu/tile-inl.h"

constexpr const char* kName = HWY_TARGET == HWY_AVX3 ? "avx512" : HWY_TARGET == HWY_AVX2 ? "avx2" : HWY_TARGET == HWY_NEON ? "neon" : HWY_TARGET == HWY_SSE4 ? "sse4" : "scalar";

}  // namespace

extern const TileKernel kernel;
const TileKernel kernel{kName, DType::F32, Arithmetic::kLanes, Arithmetic::kStep, kSumBytes, Tile<Arithmetic>::scratchBytes, Tile<Arithmetic>::run, Tile<Arithmetic>::finish, Tile<Arithmetic>::gateScratchBytes, Tile<Arithmetic>::gate};

}  // namespace HWY_NAMESPACE
}  // namespace vmoba::cpu
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
#include <vector>

#include "kernels/cpu/tile_targets.h"

namespace vmoba::cpu {

std::vector<const TileKernel*> highwayKernels() {
  std::vector<const TileKernel*> kernels;
  [[maybe_unused]] const int64_t supported = hwy::SupportedTargets();
#if HWY_TARGETS & HWY_AVX3
  if (supported & HWY_AVX3) kernels.push_back(&N_AVX3::kernel);
#endif
#if HWY_TARGETS & HWY_AVX2
  if (supported & HWY_AVX2) kernels.push_back(&N_AVX2::kernel);
#endif
#if HWY_TARGETS & HWY_NEON
  if (supported & HWY_NEON) kernels.push_back(&N_NEON::kernel);
#endif
#if HWY_TARGETS & HWY_SSE4
  if (supported & HWY_SSE4) kernels.push_back(&N_SSE4::kernel);
#endif
#if HWY_TARGETS & (HWY_SCALAR | HWY_EMU128)
  if (kernels.empty()) kernels.push_back(&HWY_STATIC_DISPATCH(kernel));
#endif
  return kernels;
}

}  // namespace vmoba::cpu
#endif
