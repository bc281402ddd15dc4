// What attention is measured against: the published VMoBA algorithm, and a library.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/attention.h"
#include "native/base/dtype.h"

namespace vmoba {

/// oneDNN's rate on a packed matrix product of the size a transformer has (up to 2550 rows x 1536 x 8960, f32 results), or 0 without
/// oneDNN. FLOP per second of `clock`.
double libraryMatrixRate(DType dtype, int64_t rows, const std::function<double()>& clock);

class Backend;
/// The same of a device's linear layer (8192 x 1536 x 8960), by its own events.
double deviceMatrixRate(Backend& backend);

/// Inputs of the rivals, as the fused path's probe reports them: permuted, rotated f32 values [S, H, D] and the selection [C, H, S].
struct RivalInputs {
  const BlockPlan* plan;
  int32_t heads, headDim;
  DType dtype;
  const AttentionProbe* probe;
  const char* instructionSet = nullptr;  ///< of our tile kernel, where a rival uses it; null = the best
};

/// The published algorithm (arXiv 2506.23858): own block for every query; per block a copy of the queries that selected it; one attention
/// call each, partial results and their log-sum-exp in memory, merged at the end. Selection by sorting the gates of each head; its time
/// counts, but attention follows the fused path's selection: block means summed in another order differ in their last bits, which moves
/// a query or two across the cut-off, and in a long block one such query is a large difference of outputs that says nothing of either.
struct RivalTimes {
  double routing = 0, attention = 0, merge = 0;  ///< seconds of `clock`
  double density = 0;
  int64_t selectedElsewhere = 0;                 ///< entries [C, H, S] its own selection decides differently
  double worstDifference = 0;                    ///< of outputs, against `expected`, over the same selection
  double total() const { return routing + attention + merge; }
};
/// `library` = attention calls made of oneDNN products and a softmax between them; otherwise this project's own tile kernel.
RivalTimes publishedAlgorithm(const RivalInputs& inputs, float tau, bool library, const std::function<double()>& clock, const std::vector<float>& expected);

/// Dense attention of `rows` evenly spread query chunks by oneDNN (product, softmax, product): FLOP per second of `clock`, or 0.
double libraryDenseRate(const RivalInputs& inputs, const std::function<double()>& clock);

}  // namespace vmoba
