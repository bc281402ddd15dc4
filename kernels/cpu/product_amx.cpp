// Matrix products on Intel's matrix unit. Compiled with its own flags; nothing in it may run before the dispatcher has seen the
// processor and the system has granted the tile registers.
//
// A block of rows of x stays in the second-level cache while the weights pass by, panel after panel of 32 outputs; a span of a panel's
// inputs stays in the first-level cache while the rows pass by. The sums of a square of 32 rows and 32 outputs over a span leave the
// matrix unit at once, and the vector unit adds, finishes and writes them while the matrix unit computes the next square.
// What comes next, of the weights and of x, is fetched meanwhile: tile loads that wait for memory stop everything.
#include <immintrin.h>

#include <algorithm>
#include <cstdint>

#include "kernels/cpu/product_targets.h"
#include "kernels/cpu/rows/rows.h"

namespace vmoba::cpu::amx {
namespace {

#include "kernels/cpu/amx-inl.h"
#include "kernels/cpu/avx512bf16-inl.h"

using V = Arithmetic;
using Vector = V::Vector;
constexpr int64_t kLanes = V::kLanes, kRowsPerStep = 2;

/// x / (1 + 2^exponent); 0 beyond 2^100, however large x. Between the bounds nothing overflows, and nothing becomes a denormal, which is slow.
inline Vector gated(Vector x, Vector exponent) {
  const __mmask16 within = _mm512_cmp_ps_mask(exponent, V::set(100), _CMP_NGT_UQ);  // or not a number
  const Vector denominator = V::add(V::set(1), V::exp2(_mm512_maskz_max_ps(within, exponent, V::set(-100))));
  const Vector reciprocal = _mm512_rcp14_ps(denominator);
  return _mm512_maskz_mul_ps(within, x, V::mul(reciprocal, _mm512_fnmadd_ps(denominator, reciprocal, V::set(2))));
}

constexpr float kLog2E = 1.44269504f;

inline Vector geluTanh(Vector x) {
  // 0.5·(1 + tanh(u)) = 1/(1 + exp(-2u))
  constexpr float kScale = -2 * 0.7978845608f * kLog2E;
  return gated(x, V::mul(x, V::mulAdd(V::mul(x, x), V::set(0.044715f * kScale), V::set(kScale))));
}
inline Vector silu(Vector x) { return gated(x, V::mul(x, V::set(-kLog2E))); }

class Block {
 public:
  explicit Block(const ProductBlock& block) : block_(block), job_(block.job), rows_(block.lastRow - block.firstRow), squares_(partsOf(rows_, kSquare)), streams_(streams(block.job)) {}

  void run() {
    const int64_t steps = job_.inputs / kStepInputs, blocks = partsOf(job_.inputs, kBlockInputs);
    for (int64_t b = 0; b < blocks; ++b) {
      const int64_t first = steps * b / blocks, last = steps * (b + 1) / blocks;
      packRows(first, last);
      for (int64_t panel = block_.firstPanel; panel < block_.lastPanel; ++panel) multiplyPanel(panel, first, last);
    }
    for (int64_t row = 0; row < finishing_.rows; ++row) finishRow(row);
  }

 private:
  /// A square's place and what becomes of its rows when they have left the matrix unit.
  struct Finishing {
    int64_t row = 0, rows = 0, column = 0;
    float* sums = nullptr;
    bool isFirst = false, isLast = false;
  };

  /// Whether whole lines go past the caches: a large result would push everything else out, and each of its lines would be read before it is written.
  static bool streams(const Product& job) {
    constexpr int64_t kLeastBytes = 4 << 20, kLine = 64;
    const int64_t rowBytes = job.outputs * static_cast<int64_t>(elementBytes(job.outType));
    return job.rows * rowBytes >= kLeastBytes && job.outputs % kSquare == 0 && reinterpret_cast<uintptr_t>(job.out) % kLine == 0;
  }

  /// Tile after tile, so that the squares below read line after line. Rows that do not exist are zero.
  void packRows(int64_t firstStep, int64_t lastStep) {
    const int64_t steps = lastStep - firstStep;
    for (int64_t row = 0; row < squares_ * kSquare; ++row) {
      auto* to = block_.packed + (row / kSquare * steps * kSquare + row % kSquare) * kStepInputs;
      const auto* from = reinterpret_cast<const uint16_t*>(job_.x + (block_.firstRow + row) * job_.inputs) + firstStep * kStepInputs;
      for (int64_t step = 0; step < steps; ++step, to += kSquare * kStepInputs, from += kStepInputs)
        _mm512_store_si512(to, row < rows_ ? _mm512_loadu_si512(from) : _mm512_setzero_si512());
    }
  }

  void multiplyPanel(int64_t panel, int64_t firstStep, int64_t lastStep) {
    const int64_t allSteps = job_.inputs / kStepInputs, steps = lastStep - firstStep, spans = partsOf(steps * kStepInputs, kSpanInputs);
    const auto panelWeights = [&](int64_t p) { return reinterpret_cast<const uint16_t*>(job_.weights) + (p * allSteps + firstStep) * kStepElements; };
    ahead_ = reinterpret_cast<const char*>(panelWeights(panel + 1 < block_.lastPanel ? panel + 1 : block_.firstPanel));
    float* sums = block_.sums + (job_.inputs > kBlockInputs ? (panel - block_.firstPanel) * kBlockRows * kSquare : 0);
    for (int64_t span = 0; span < spans; ++span) {
      const int64_t from = steps * span / spans, to = steps * (span + 1) / spans;
      for (int64_t square = 0; square < squares_; ++square) {
        const int64_t row = square * kSquare;
        multiplySquare(block_.packed + (square * steps + from) * kStepElements, panelWeights(panel) + from * kStepElements, to - from);
        finishing_ = {block_.firstRow + row, std::min(kSquare, rows_ - row), panel * kSquare, sums + row * kSquare, firstStep + from == 0, firstStep + to == allSteps};
      }
    }
  }

  /// Finishes the square before meanwhile.
  void multiplySquare(const uint16_t* left, const uint16_t* right, int64_t steps) {
    const int64_t lines = partsOf(kSquare, squares_);
    int64_t row = 0;
    zeroSums<2, 2>();
    for (int64_t step = 0; step < steps; ++step, left += kStepElements, right += kStepElements) {
      multiplySums<2, 2, kStreamLeft>(left, kStepInputs, right, kStepElements / 2, kStepInputs);
      for (int64_t line = 0; line < lines; ++line, ahead_ += 64) _mm_prefetch(ahead_, _MM_HINT_T1);
      for (const int64_t end = std::min(row + kRowsPerStep, finishing_.rows); row < end; ++row) finishRow(row);
    }
    for (; row < finishing_.rows; ++row) finishRow(row);
    storeSums<2, 2>(block_.square, kSquare);
  }

  void finishRow(int64_t row) {
    const float* from = block_.square + row * kSquare;
    float* sums = finishing_.sums + row * kSquare;
    Vector x0 = V::load(from), x1 = V::load(from + kLanes);
    if (!finishing_.isFirst) x0 = V::add(V::load(sums), x0), x1 = V::add(V::load(sums + kLanes), x1);
    if (finishing_.isLast) return writeRow(finishing_.row + row, x0, x1);
    V::store(x0, sums);
    V::store(x1, sums + kLanes);
  }

  void writeRow(int64_t row, Vector x0, Vector x1) {
    const int64_t column = finishing_.column, columns = std::min(kSquare, job_.outputs - column);
    const auto mask = static_cast<__mmask32>(columns == kSquare ? 0xffffffffu : (1u << columns) - 1);
    const auto low = static_cast<__mmask16>(mask), high = static_cast<__mmask16>(mask >> kLanes);
    if (job_.bias != nullptr) {
      x0 = V::add(x0, _mm512_maskz_loadu_ps(low, job_.bias + column));
      x1 = V::add(x1, _mm512_maskz_loadu_ps(high, job_.bias + column + kLanes));
    }
    switch (job_.activation) {
      case Activation::None: break;
      case Activation::GeluTanh: x0 = geluTanh(x0), x1 = geluTanh(x1); break;
      case Activation::Silu: x0 = silu(x0), x1 = silu(x1); break;
      case Activation::GeluErf: {
        alignas(64) float values[kSquare];
        V::store(x0, values), V::store(x1, values + kLanes);
        geluErf(values, kSquare);
        x0 = V::load(values), x1 = V::load(values + kLanes);
      }
    }
    const int64_t at = row * job_.outputs + column;
    if (job_.outType == DType::BF16) {
      auto* to = static_cast<Bf16*>(job_.out) + at;
      const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(x1, x0));
      streams_ ? _mm512_stream_si512(reinterpret_cast<__m512i*>(to), rounded) : _mm512_mask_storeu_epi16(to, mask, rounded);
    } else {
      auto* to = static_cast<float*>(job_.out) + at;
      streams_ ? _mm512_stream_ps(to, x0) : _mm512_mask_storeu_ps(to, low, x0);
      streams_ ? _mm512_stream_ps(to + kLanes, x1) : _mm512_mask_storeu_ps(to + kLanes, high, x1);
    }
  }

  const ProductBlock& block_;
  const Product& job_;
  int64_t rows_, squares_;
  bool streams_;
  Finishing finishing_;           ///< of the square that left the matrix unit last
  const char* ahead_ = nullptr;  ///< of the next panel's weights, what is to be fetched next
};

}  // namespace

void multiplyBlock(const ProductBlock& block) {
  asm volatile("ldtilecfg %0" ::"m"(kConfiguration));
  Block(block).run();
  asm volatile("tilerelease");
  _mm_sfence();  // streamed lines, before another thread reads them
}

}  // namespace vmoba::cpu::amx
