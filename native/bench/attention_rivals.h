// What attention is measured against: the published VMoBA algorithm, and a library.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "kernels/attention.h"
#include "native/base/dtype.h"

namespace vmoba {

/// oneDNN's rate on a packed matrix product of the size a transformer has (2550 x 1536 x 8960, f32 results), or 0 without oneDNN.
/// FLOP per second of `clock`.
double libraryMatrixRate(DType dtype, const std::function<double()>& clock);

/// Inputs of the rivals: permuted, rotated, f32 values [S, H, D], as the fused path's probe reports them.
struct RivalInputs {
  const BlockPlan* plan;
  int32_t heads, headDim;
  DType dtype;
  const std::vector<float>*q, *k, *v;
};

/// The published algorithm (arXiv 2506.23858): own block for every query; per block a copy of the queries that selected it; one attention
/// call each, partial results and their log-sum-exp in memory, merged at the end. Selection by sorting the gates of each head.
struct RivalTimes {
  double routing = 0, attention = 0, merge = 0;  ///< seconds of `clock`
  double density = 0;
  double worstDifference = 0;                    ///< against `expected`
  double total() const { return routing + attention + merge; }
};
/// `library` = attention calls made of oneDNN products and a softmax between them; otherwise this project's own tile kernel.
RivalTimes publishedAlgorithm(const RivalInputs& inputs, float tau, bool library, const std::function<double()>& clock, const std::vector<float>& expected);

/// Dense attention of `rows` evenly spread query chunks by oneDNN (product, softmax, product): FLOP per second of `clock`, or 0.
double libraryDenseRate(const RivalInputs& inputs, const std::function<double()>& clock);

}  // namespace vmoba
