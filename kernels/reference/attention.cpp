#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/reference/reference.h"

namespace vmoba::reference {

BlockPlan wholeSequence(int32_t tokens) { return {{1, 1, tokens}, {}, {}, {0, tokens}, {0, tokens}}; }

std::vector<int32_t> blockOfPosition(const BlockPlan& plan) {
  std::vector<int32_t> block(static_cast<size_t>(plan.tokens()));
  for (int32_t c = 0; c < plan.blocks(); ++c) std::fill(block.begin() + plan.start[size_t(c)], block.begin() + plan.start[size_t(c) + 1], c);
  return block;
}

std::vector<int32_t> sequenceOfPosition(const BlockPlan& plan) {
  std::vector<int32_t> sequence(static_cast<size_t>(plan.tokens()), 0);
  for (size_t i = 0; i + 1 < plan.sequenceStart.size(); ++i)
    std::fill(sequence.begin() + plan.sequenceStart[i], sequence.begin() + plan.sequenceStart[i + 1], static_cast<int32_t>(i));
  return sequence;
}

std::vector<double> gate(const std::vector<double>& q, const std::vector<double>& k, const BlockPlan& plan, int32_t heads, int32_t headDim) {
  const int64_t tokens = plan.tokens(), dim = int64_t{heads} * headDim;
  std::vector<double> result(static_cast<size_t>(plan.blocks() * heads * tokens));
  std::vector<double> mean(static_cast<size_t>(dim));
  for (int64_t c = 0; c < plan.blocks(); ++c) {
    std::fill(mean.begin(), mean.end(), 0.0);
    for (int64_t s = plan.start[size_t(c)]; s < plan.start[size_t(c) + 1]; ++s)
      for (int64_t i = 0; i < dim; ++i) mean[size_t(i)] += k[size_t(s * dim + i)] / plan.length(static_cast<int32_t>(c));
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t s = 0; s < tokens; ++s) {
        double dot = 0;
        for (int64_t i = h * headDim; i < (h + 1) * headDim; ++i) dot += q[size_t(s * dim + i)] * mean[size_t(i)];
        result[size_t((c * heads + h) * tokens + s)] = dot;
      }
  }
  return result;
}

std::vector<double> maskedAttention(const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& v,
                                    const std::vector<uint8_t>& selection, const BlockPlan& plan, int32_t heads, int32_t headDim) {
  const int64_t tokens = plan.tokens(), dim = int64_t{heads} * headDim;
  const double scale = 1 / std::sqrt(static_cast<double>(headDim));
  std::vector<double> out(q.size(), 0.0), logits(static_cast<size_t>(tokens));
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t s = 0; s < tokens; ++s) {
      double largest = -std::numeric_limits<double>::infinity(), total = 0;
      const auto eachKey = [&](const auto& visit) {
        for (int64_t c = 0; c < plan.blocks(); ++c)
          if (selection[size_t((c * heads + h) * tokens + s)])
            for (int64_t key = plan.start[size_t(c)]; key < plan.start[size_t(c) + 1]; ++key) visit(key);
      };
      eachKey([&](int64_t key) {
        double dot = 0;
        for (int64_t i = h * headDim; i < (h + 1) * headDim; ++i) dot += q[size_t(s * dim + i)] * k[size_t(key * dim + i)];
        logits[size_t(key)] = dot * scale;
        largest = std::max(largest, logits[size_t(key)]);
      });
      eachKey([&](int64_t key) {
        const double weight = std::exp(logits[size_t(key)] - largest);
        total += weight;
        for (int64_t i = h * headDim; i < (h + 1) * headDim; ++i) out[size_t(s * dim + i)] += weight * v[size_t(key * dim + i)];
      });
      for (int64_t i = h * headDim; i < (h + 1) * headDim; ++i) out[size_t(s * dim + i)] /= total;
    }
  return out;
}

double density(const std::vector<uint8_t>& selection, const BlockPlan& plan, int32_t heads) {
  const int64_t tokens = plan.tokens(), plane = heads * tokens;
  double pairs = 0;
  for (int64_t c = 0; c < plan.blocks(); ++c)
    pairs += static_cast<double>(std::count(selection.begin() + c * plane, selection.begin() + (c + 1) * plane, 1)) * plan.length(static_cast<int32_t>(c));
  return pairs / (static_cast<double>(heads) * static_cast<double>(tokens) * static_cast<double>(tokens));
}

}  // namespace vmoba::reference
