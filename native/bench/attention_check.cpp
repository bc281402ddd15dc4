#include "native/bench/attention_check.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "native/base/parallel.h"

namespace vmoba {
namespace {

struct Rows {
  std::vector<double> exact;
  std::vector<float> plain;
};

/// Attention of position `s` of head `h`, exactly and in plain arithmetic.
Rows attended(const AttentionProbe& probe, const BlockPlan* plan, const AttentionInputs& inputs, int64_t h, int64_t s) {
  const int64_t tokens = inputs.grid.tokens(), dim = inputs.headDim, stride = inputs.dim();
  const bool narrow = inputs.dtype == DType::BF16;
  std::vector<int64_t> keys;
  const int32_t blocks = plan ? plan->blocks() : 1;
  for (int32_t c = 0; c < blocks; ++c) {
    if (plan && !probe.selection[static_cast<size_t>((int64_t{c} * inputs.heads + h) * tokens + s)]) continue;
    const int64_t first = plan ? plan->start[static_cast<size_t>(c)] : 0, end = plan ? plan->start[static_cast<size_t>(c) + 1] : tokens;
    for (int64_t key = first; key < end; ++key) keys.push_back(key);
  }
  const auto at = [&](int64_t position) { return static_cast<size_t>(position * stride + h * dim); };
  std::vector<double> logits;
  std::vector<float> plainLogits;
  const double scale = 1 / std::sqrt(static_cast<double>(dim));
  for (const int64_t key : keys) {
    double dot = 0;
    float plainDot = 0;
    for (size_t i = 0; i < static_cast<size_t>(dim); ++i) {
      dot += static_cast<double>(probe.q[at(s) + i]) * static_cast<double>(probe.k[at(key) + i]);
      plainDot += probe.q[at(s) + i] * probe.k[at(key) + i];
    }
    logits.push_back(dot * scale);
    plainLogits.push_back(plainDot * static_cast<float>(scale));
  }
  const double most = *std::max_element(logits.begin(), logits.end());
  const float plainMost = *std::max_element(plainLogits.begin(), plainLogits.end());
  Rows rows{std::vector<double>(static_cast<size_t>(dim)), std::vector<float>(static_cast<size_t>(dim))};
  double total = 0;
  float plainTotal = 0;
  for (size_t j = 0; j < keys.size(); ++j) {
    const double weight = std::exp(logits[j] - most);
    float plainWeight = std::exp(plainLogits[j] - plainMost);
    total += weight;
    plainTotal += plainWeight;
    if (narrow) plainWeight = toFloat(toBf16(plainWeight));
    for (size_t i = 0; i < static_cast<size_t>(dim); ++i) {
      rows.exact[i] += weight * static_cast<double>(probe.v[at(keys[j]) + i]);
      rows.plain[i] += plainWeight * probe.v[at(keys[j]) + i];
    }
  }
  for (size_t i = 0; i < static_cast<size_t>(dim); ++i) {
    rows.exact[i] /= total;
    rows.plain[i] /= plainTotal;
    if (narrow) rows.plain[i] = toFloat(toBf16(rows.plain[i]));
  }
  return rows;
}

/// NaN is the largest of all errors.
void raise(double& most, double error) { most = std::isnan(error) ? std::numeric_limits<double>::infinity() : std::max(most, error); }

}  // namespace

Accuracy checkAttention(AttentionRunner& runner, AttentionRunner::Call call, int rows) {
  AttentionProbe probe;
  call.probe = &probe;
  runner.run(call);
  const std::vector<float> output = runner.output();
  const AttentionInputs& inputs = runner.inputs();
  const int64_t tokens = inputs.grid.tokens(), count = std::min<int64_t>(rows, tokens), heads = inputs.heads;
  const auto position = [&](int64_t i) { return count == 1 ? 0 : i * (tokens - 1) / (count - 1); };
  std::vector<Rows> checked(static_cast<size_t>(count * heads));
  parallelForDynamic(count * heads, [&](int64_t i) { checked[static_cast<size_t>(i)] = attended(probe, call.plan, inputs, i % heads, position(i / heads)); });
  Accuracy accuracy{0, inputs.dtype == DType::BF16 ? 0 : 1e-5};
  for (int64_t i = 0; i < count * heads; ++i) {
    const int64_t s = position(i / heads), raster = call.plan && !call.plan->permutation.empty() ? call.plan->permutation[static_cast<size_t>(s)] : s;
    const Rows& row = checked[static_cast<size_t>(i)];
    for (size_t j = 0; j < row.exact.size(); ++j) {
      const auto at = static_cast<size_t>(raster * inputs.dim() + i % heads * inputs.headDim) + j;
      raise(accuracy.error, std::abs(static_cast<double>(output[at]) - row.exact[j]));
      raise(accuracy.allowed, 2 * std::abs(static_cast<double>(row.plain[j]) - row.exact[j]));
    }
  }
  return accuracy;
}

}  // namespace vmoba
