// The tile kernel on Intel's matrix unit (AMX, tdpbf16ps: 16 x 16 sums of 32 products each). Compiled with its own flags; nothing in
// it may run before the dispatcher has seen the processor and the system has granted the tile registers.
//
// A unit is 32 rows against a chunk of keys: logits (matrix unit), softmax (vector unit), values (matrix unit). So that both units
// of the processor work at once, every step of the matrix unit is followed by a row of the softmax of the span of keys before:
//
//   matrix unit   values of the unit before, a piece of channels | logits of the next span
//   vector unit   softmax of this span, row by row; sums of the piece before
//
// The line runs on from visit to visit and drains at the end of the call.
//
// Easy to get wrong:
// - values of a unit are added after later softmaxes have begun: what rescales the sums travels with the unit (`factor`);
// - a rescaling reaches the row's weights already in memory and no other row (they fall by at least 2^kSlack: rounding them anew is harmless);
// - products are added 32 at a time: chunks and spans are cut by the keys alone, or a row's bits would depend on its neighbours.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <utility>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/tile.h"
#include "kernels/cpu/tile_targets.h"

namespace vmoba::cpu::amx {
namespace {

#include "kernels/cpu/amx-inl.h"
#include "kernels/cpu/avx512bf16-inl.h"

using V = Arithmetic;
using Vector = V::Vector;
constexpr int32_t kLanes = V::kLanes, kRows = 32;
constexpr int32_t kPanel = 32;                   ///< keys of one step: two groups of logits, one depth of values
constexpr int32_t kSpan = 4 * kPanel;            ///< keys of one softmax
constexpr int32_t kChunk = kMostChunkKeys;       ///< keys of a unit
constexpr int32_t kSpanStride = kSpan + kLanes;  ///< odd in cache lines, so that rows do not meet in one set; likewise below
constexpr int32_t kChunkStride = kChunk + 2 * kLanes;
constexpr int32_t kPieceStride = kPanel + kLanes;
constexpr float kSlack = 8;

/// Rows of one group against one chunk of a visit's keys.
struct Unit {
  const uint16_t* rows = nullptr;
  int32_t rowCount = 0, keys = 0;      ///< of the chunk, which begins at `keyGroups` and `valueGroups`
  const uint16_t *keyGroups = nullptr, *valueGroups = nullptr;
  const uint16_t* lastValues = nullptr;  ///< the last panel's values where only its first group exists, or null
  uint16_t* weights = nullptr;           ///< [kRows, kChunkStride]
  float factor[kRows];                   ///< what the rows' sums must be multiplied by before this unit's values are added

  int32_t groups() const { return (keys + kLanes - 1) / kLanes; }
  int32_t panels() const { return (keys + kPanel - 1) / kPanel; }
  int32_t spans() const { return (keys + kSpan - 1) / kSpan; }
  int32_t spanStart(int32_t span) const { return panels() * span / spans(); }
};

/// Hands out scratch on cache lines. No Arena: its errors are strings, whose code this file's flags must not touch.
struct Carver {
  std::byte* base;
  int64_t used = 0;

  template <class T>
  T* take(int64_t count) {
    T* taken = base != nullptr ? reinterpret_cast<T*>(base + used) : nullptr;
    used += (count * int64_t{sizeof(T)} + 63) / 64 * 64;
    return taken;
  }
};

class Line {
 public:
  Line(const TileJob& job, std::span<const TileVisit> visits, Carver& scratch)
      : job_(job),
        visits_(visits),
        pieces_((job.valueWidth + kPanel - 1) / kPanel),
        queryStride_(job.depth + 2 * kLanes),
        queries_(scratch.take<uint16_t>(kRows * queryStride_)),
        logits_{scratch.take<float>(kRows * kSpanStride), scratch.take<float>(kRows * kSpanStride)},
        piece_(scratch.take<float>(kRows * kPieceStride)),
        lastValues_{scratch.take<uint16_t>(int64_t{kPanel} * job.valueWidth), scratch.take<uint16_t>(int64_t{kPanel} * job.valueWidth)} {
    for (Unit& unit : units_) unit.weights = scratch.take<uint16_t>(kRows * kChunkStride);
  }

  void run() {
    Unit *unit = &units_[0], *other = &units_[1];  // other: the unit before, until its values are added; then the next
    int parity = 0;
    bool before = false;
    begin(*unit);
    score(*unit, 0, logits_[0]);
    for (bool more = true; more; std::swap(unit, other), before = true) {
      const int32_t spans = unit->spans();
      for (int32_t span = 0; span < spans; ++span, parity ^= 1) {
        softUnit_ = unit;
        softRow_ = 0;
        softSpan_ = span;
        softLogits_ = logits_[parity];
        for (int32_t piece = pieces_ * span / spans; before && piece < pieces_ * (span + 1) / spans; ++piece) multiplyValues(*other, piece);
        if (span + 1 < spans) {
          score(*unit, span + 1, logits_[1 - parity]);
        } else {
          finishPiece();
          more = begin(*other);
          if (more) score(*other, 0, logits_[1 - parity]);
        }
        while (softRow_ < unit->rowCount) softmaxNextRow();
      }
    }
    softUnit_ = nullptr;
    for (int32_t piece = 0; piece < pieces_; ++piece) multiplyValues(*other, piece);
    finishPiece();
  }

 private:
  /// The next unit; false at the end. Row groups vary fastest: they share the chunk while it is in the cache.
  bool begin(Unit& unit) {
    if (visit_ == visits_.size()) return false;
    const TileVisit& visit = visits_[visit_];
    const int32_t panels = panelsOf(visit), chunks = chunksOf(visit), from = panels * chunk_ / chunks, to = panels * (chunk_ + 1) / chunks;
    unit.rows = visit.rows + row_;
    unit.rowCount = std::min(kRows, visit.rowCount - row_);
    unit.keys = std::min(visit.keys, to * kPanel) - from * kPanel;
    unit.keyGroups = static_cast<const uint16_t*>(visit.keyGroups) + int64_t{from} * kPanel * job_.depth;
    unit.valueGroups = static_cast<const uint16_t*>(visit.valueGroups) + int64_t{from} * kPanel * job_.valueWidth;
    unit.lastValues = unit.groups() % 2 != 0 ? lastValues_[visit_ % 2] : nullptr;
    if (unit.lastValues != nullptr && row_ == 0) padLastValues(unit, lastValues_[visit_ % 2]);
    std::fill_n(unit.factor, kRows, 1.0f);
    for (int32_t r = 0; r < unit.rowCount; ++r) {
      const uint16_t* query = static_cast<const uint16_t*>(job_.queries) + int64_t{unit.rows[r]} * job_.depth;
      for (int32_t i = 0; i < job_.depth; i += 32) _mm512_store_si512(queries_ + r * queryStride_ + i, _mm512_loadu_si512(query + i));
    }
    if (row_ == std::min(kRows, (visit.rowCount - 1) / kRows * kRows)) planAhead(chunk_ + 1 < chunks ? visit_ : visit_ + 1, chunk_ + 1 < chunks ? chunk_ + 1 : 0);
    if ((row_ += kRows) < visit.rowCount) return true;
    row_ = 0;
    if (++chunk_ < chunks) return true;
    chunk_ = 0;
    ++visit_;
    return true;
  }
  static int32_t panelsOf(const TileVisit& visit) { return (visit.keys + kPanel - 1) / kPanel; }
  static int32_t chunksOf(const TileVisit& visit) { return (panelsOf(visit) * kPanel + kChunk - 1) / kChunk; }
  /// From the second unit of a chunk on, the next chunk comes into the second-level cache: its first unit would wait for it.
  void planAhead(size_t next, int32_t chunk) {
    if (next == visits_.size()) return;
    const TileVisit& visit = visits_[next];
    const int64_t panels = panelsOf(visit), chunks = chunksOf(visit);
    const int64_t from = panels * chunk / chunks * kPanel, to = std::min<int64_t>(visit.keys, panels * (chunk + 1) / chunks * kPanel);
    const auto *keys = static_cast<const uint16_t*>(visit.keyGroups), *values = static_cast<const uint16_t*>(visit.valueGroups);
    ahead_ = {keys + from * job_.depth, keys + to * job_.depth};
    aheadValues_ = {values + from * job_.valueWidth, values + to * job_.valueWidth};
  }
  __attribute__((noinline)) void fetchAhead() {
    constexpr int kLines = 8, kLine = 32;  // of 32 elements
    for (int i = 0; i < kLines; ++i) _mm_prefetch(reinterpret_cast<const char*>(ahead_.at + i * kLine), _MM_HINT_T1);
    ahead_.at += kLines * kLine;
    if (ahead_.at >= ahead_.end) ahead_ = std::exchange(aheadValues_, {});
  }
  void padLastValues(const Unit& unit, uint16_t* to) const {
    const int64_t group = int64_t{kLanes} * job_.valueWidth;
    std::memcpy(to, unit.valueGroups + (unit.groups() - 1) * group, static_cast<size_t>(group) * 2);
    std::memset(to + group, 0, static_cast<size_t>(group) * 2);
  }

  /// The vector unit's part, after a step of the matrix unit.
  void interleave() {
    if (__builtin_expect(ahead_.at != nullptr, 0)) fetchAhead();
    if (pieceUnit_ != nullptr) addPieceRows(4);
    if (softUnit_ != nullptr && softRow_ < softUnit_->rowCount) softmaxNextRow();
  }

  // Logits ---------------------------------------------------------------------------------------------------------------------------

  void score(const Unit& unit, int32_t span, float* logits) {
    const int64_t group = int64_t{kLanes} * job_.depth;
    for (int32_t panel = unit.spanStart(span); panel < unit.spanStart(span + 1); ++panel, logits += kPanel)
      byShape(unit.rowCount > 16, 2 * panel + 1 < unit.groups(), [&]<int H, int W>() {
        const uint16_t* keys = unit.keyGroups + 2 * panel * group;
        zeroSums<H, W>();
        for (int32_t channel = 0; channel < job_.depth; channel += 32) {
          multiplySums<H, W, kStreamRight>(queries_ + channel, queryStride_, keys + int64_t{channel} * kLanes, group, 2 * kLanes);
          interleave();
        }
        storeSums<H, W>(logits, kSpanStride);
      });
  }

  // Softmax --------------------------------------------------------------------------------------------------------------------------

  void softmaxNextRow() {
    switch (std::min(2 * softUnit_->spanStart(softSpan_ + 1), softUnit_->groups()) - 2 * softUnit_->spanStart(softSpan_)) {
      case 1: return softmaxRow<1>();
      case 2: return softmaxRow<2>();
      case 3: return softmaxRow<3>();
      case 4: return softmaxRow<4>();
      case 5: return softmaxRow<5>();
      case 6: return softmaxRow<6>();
      case 7: return softmaxRow<7>();
      default: return softmaxRow<8>();
    }
  }
  /// N: groups of the span.
  template <int N>
  void softmaxRow() {
    Unit& unit = *softUnit_;
    const int32_t r = softRow_++, row = unit.rows[r], at = unit.spanStart(softSpan_) * kPanel, keys = unit.keys - at;
    const float* logits = softLogits_ + r * kSpanStride;
    Vector x[N];
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) x[n] = V::load(logits + n * kLanes);
    if (keys < N * kLanes) {
#pragma GCC unroll 8
      for (int n = 0; n < N; ++n) x[n] = V::keepFirst(keys - n * kLanes, x[n]);
    }
    Vector most = x[0];
#pragma GCC unroll 8
    for (int n = 1; n < N; ++n) most = V::max(most, x[n]);
    if (__builtin_expect(V::anyGreater(most, V::set(job_.state.limit[row])), 0)) rescale(unit, r, V::reduceMax(most), at);
    const Vector scale = V::set(job_.logitScale), exponent = V::set(job_.state.exponent[row]);
#pragma GCC unroll 8
    for (int n = 0; n < N; ++n) x[n] = V::exp2(V::mulSub(x[n], scale, exponent));
    float* denominator = job_.state.denominator + int64_t{row} * kLanes;
    Vector total = V::load(denominator);
#pragma GCC unroll 8
    for (int n = 0; n + 1 < N; n += 2) total = V::add(total, V::add(x[n], x[n + 1]));
    if constexpr (N % 2 != 0) total = V::add(total, x[N - 1]);
    V::store(total, denominator);
    uint16_t* weights = unit.weights + r * kChunkStride + at;
    V::storeWeights<N>(x, weights);
    if constexpr (N % 2 != 0) _mm256_store_si256(reinterpret_cast<__m256i*>(weights + N * kLanes), _mm256_setzero_si256());  // the panel's other group
  }
  __attribute__((noinline)) void rescale(Unit& unit, int32_t r, float largest, int32_t at) const {
    const TileState& state = job_.state;
    const int32_t row = unit.rows[r];
    const float exponent = largest * job_.logitScale;
    const Vector factor = V::exp2(V::set(state.exponent[row] - exponent));  // exp2(-inf) at the first visit
    unit.factor[r] *= _mm512_cvtss_f32(factor);
    float* denominator = state.denominator + int64_t{row} * kLanes;
    V::store(V::mul(V::load(denominator), factor), denominator);
    uint16_t* weights = unit.weights + r * kChunkStride;
    for (int32_t i = 0; i < at; i += kLanes) {
      const __m512i wide = _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(weights + i))), 16);
      const Vector weight[1] = {V::mul(_mm512_castsi512_ps(wide), factor)};
      V::storeWeights<1>(weight, weights + i);
    }
    state.exponent[row] = exponent;
    state.limit[row] = largest + kSlack / job_.logitScale;
  }

  // Values ---------------------------------------------------------------------------------------------------------------------------

  void multiplyValues(const Unit& unit, int32_t piece) {
    const int64_t panelValues = int64_t{kPanel} * job_.valueWidth, rowWords = int64_t{2} * job_.valueWidth;
    byShape(unit.rowCount > 16, (piece + 1) * kPanel <= job_.valueWidth, [&]<int H, int W>() {
      const int32_t panels = unit.panels();
      zeroSums<H, W>();
      for (int32_t panel = 0; panel < panels; ++panel) {
        const uint16_t* values = unit.lastValues != nullptr && panel + 1 == panels ? unit.lastValues : unit.valueGroups + panel * panelValues;
        multiplySums<H, W, kStreamRight>(unit.weights + panel * kPanel, kChunkStride, values + int64_t{piece} * 2 * kPanel, 2 * kLanes, rowWords);
        interleave();
      }
      finishPiece();
      storeSums<H, W>(piece_, kPieceStride);
    });
    pieceUnit_ = &unit;
    pieceRow_ = 0;
    pieceChannel_ = piece * kPanel;
  }
  void addPieceRows(int32_t count) {
    const int32_t end = std::min(pieceRow_ + count, pieceUnit_->rowCount), channels = std::min(kPanel, job_.valueWidth - pieceChannel_);
    for (; pieceRow_ < end; ++pieceRow_) {
      float* sums = job_.state.sums + int64_t{pieceUnit_->rows[pieceRow_]} * job_.valueWidth + pieceChannel_;
      const Vector factor = V::set(pieceUnit_->factor[pieceRow_]);
      for (int32_t i = 0; i < channels; i += kLanes) V::store(V::mulAdd(V::load(sums + i), factor, V::load(piece_ + pieceRow_ * kPieceStride + i)), sums + i);
    }
    if (end == pieceUnit_->rowCount) pieceUnit_ = nullptr;
  }
  void finishPiece() {
    if (pieceUnit_ != nullptr) addPieceRows(kRows);
  }

  const TileJob& job_;
  std::span<const TileVisit> visits_;
  int32_t pieces_;
  int64_t queryStride_;
  uint16_t* queries_;                     ///< [kRows, queryStride_] of the unit whose logits are computed
  float* logits_[2];                      ///< [kRows, kSpanStride]
  float* piece_;                          ///< [kRows, kPieceStride]
  uint16_t* lastValues_[2];               ///< a last group of values and as many zeros, of the visit under way and the one before
  struct Ahead {
    const uint16_t *at = nullptr, *end = nullptr;
  };
  Ahead ahead_, aheadValues_;             ///< what is still to be fetched of the next chunk: keys, then values
  size_t visit_ = 0;                      ///< of the next unit, as its chunk and first row
  int32_t chunk_ = 0, row_ = 0;
  Unit units_[2];
  Unit* softUnit_ = nullptr;              ///< whose softmax is under way
  const float* softLogits_ = nullptr;
  int32_t softRow_ = 0, softSpan_ = 0;
  const Unit* pieceUnit_ = nullptr;       ///< whose finished piece is being added to the sums
  int32_t pieceRow_ = 0, pieceChannel_ = 0;
};

/// A mean as three bf16, whose sum it is to the last bit.
constexpr int kParts = 3;

/// Gates by tile products: blocks are the rows, queries the columns.
class Gates {
 public:
  Gates(const GateJob& job, Carver& scratch)
      : job_(job),
        part_(int64_t{(job.blocks + kRows - 1) / kRows * kRows} * job.depth),
        means_(scratch.take<uint16_t>(kParts * part_)),
        queries_(scratch.take<uint16_t>(int64_t{2} * kLanes * job.depth)),
        last_(scratch.take<float>(kRows * kPanel)) {}

  void run() const {
    splitMeans();
    const int64_t group = int64_t{kLanes} * job_.depth;
    for (int32_t at = 0; at < job_.rows; at += 2 * kLanes) {
      const bool wide = job_.rows - at > kLanes;
      for (int32_t g = 0; g < (wide ? 2 : 1); ++g)
        packKeyGroup(static_cast<const uint16_t*>(job_.queries) + (at + g * kLanes) * int64_t{job_.depth}, job_.depth, std::min(kLanes, job_.rows - at - g * kLanes), kLanes,
                     job_.depth / 2, 2, queries_ + g * group);
      for (int32_t block = 0; block < job_.blocks; block += kRows) byShape(job_.blocks - block > 16, wide, [&]<int H, int W>() { multiply<H, W>(block, at); });
    }
  }

 private:
  void splitMeans() const {
    std::fill_n(means_, kParts * part_, uint16_t{0});
    for (int64_t i = 0; i < int64_t{job_.blocks} * job_.depth; i += kLanes) {
      Vector rest = V::load(job_.means + i);
      for (int part = 0; part < kParts; ++part) {
        const __m512i rounded = roundToBf16(rest);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(means_ + part * part_ + i), _mm512_cvtepi32_epi16(rounded));
        rest = _mm512_sub_ps(rest, _mm512_castsi512_ps(_mm512_slli_epi32(rounded, 16)));
      }
    }
  }
  /// As toBf16 does: the unit's own instruction loses denormals.
  static __m512i roundToBf16(Vector x) {
    const __m512i bits = _mm512_castps_si512(x), high = _mm512_srli_epi32(bits, 16);
    const __m512i rounded = _mm512_srli_epi32(_mm512_add_epi32(bits, _mm512_add_epi32(_mm512_set1_epi32(0x7fff), _mm512_and_si512(high, _mm512_set1_epi32(1)))), 16);
    return _mm512_mask_or_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), high, _mm512_set1_epi32(0x40));
  }
  template <int H, int W>
  void multiply(int32_t block, int32_t at) const {
    zeroSums<H, W>();
    for (int part = kParts - 1; part >= 0; --part)  // the least first
      for (int32_t channel = 0; channel < job_.depth; channel += 32)
        multiplySums<H, W, kStreamNeither>(means_ + part * part_ + int64_t{block} * job_.depth + channel, job_.depth, queries_ + int64_t{channel} * kLanes, int64_t{kLanes} * job_.depth, 2 * kLanes);
    float* gate = job_.gate + block * job_.stride + at;
    const int32_t rows = std::min(job_.blocks - block, 16 * H);
    if (rows == 16 * H) return storeSums<H, W>(gate, job_.stride);
    storeSums<H, W>(last_, kPanel);
    for (int32_t r = 0; r < rows; ++r) std::memcpy(gate + r * job_.stride, last_ + r * kPanel, W * kLanes * sizeof(float));
  }

  const GateJob& job_;
  int64_t part_;
  uint16_t* means_;    ///< [kParts, whole tiles of blocks, depth]
  uint16_t* queries_;  ///< two groups, in the format of keys
  float* last_;        ///< [kRows, kPanel]
};

}  // namespace

extern const int32_t sumBytes = 1152 << 10;

void visit(const TileJob& job, std::span<const TileVisit> visits) {
  if (job.depth % 32 != 0) return avx512bf16::kernel.visit(job, visits);
  if (visits.empty()) return;
  Carver scratch{static_cast<std::byte*>(job.scratch)};
  asm volatile("ldtilecfg %0" ::"m"(kConfiguration));
  Line(job, visits, scratch).run();
  asm volatile("tilerelease");
}

void gate(const GateJob& job) {
  if (job.depth % 32 != 0) return avx512bf16::kernel.gate(job);
  Carver scratch{static_cast<std::byte*>(job.scratch)};
  asm volatile("ldtilecfg %0" ::"m"(kConfiguration));
  Gates(job, scratch).run();
  asm volatile("tilerelease");
}

int64_t gateScratchBytes(int32_t depth, int32_t blocks) {
  GateJob shape{};
  shape.depth = depth;
  shape.blocks = blocks;
  Carver sizes{nullptr};
  Gates(shape, sizes);
  return std::max(sizes.used, avx512bf16::kernel.gateScratchBytes(depth, blocks));
}

int64_t scratchBytes(int32_t depth, int32_t valueWidth) {
  TileJob shape{};
  shape.depth = depth;
  shape.valueWidth = valueWidth;
  Carver sizes{nullptr};
  Line(shape, {}, sizes);
  return std::max(sizes.used, avx512bf16::kernel.scratchBytes(depth, valueWidth));
}

}  // namespace vmoba::cpu::amx
