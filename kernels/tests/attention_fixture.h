// Random self-attention jobs, run through the fused path and compared with the double-precision reference.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <random>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/tile.h"
#include "kernels/partition.h"
#include "kernels/reference/reference.h"
#include "native/base/error.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {

/// q, k, v of one call and the buffers around it. Outputs and scratch are poisoned with NaN before every run.
struct Problem {
  int32_t tokens, heads, headDim;
  DType dtype;
  std::vector<float> q, k, v;  ///< raster [S, H, D], values exactly representable in dtype

  Problem(int32_t s, int32_t h, int32_t d, DType type, uint32_t seed, float scale = 1) : tokens(s), heads(h), headDim(d), dtype(type) {
    std::mt19937 generator(seed);
    std::normal_distribution<float> normal(0, scale);
    for (std::vector<float>* values : {&q, &k, &v}) {
      values->resize(static_cast<size_t>(s) * static_cast<size_t>(h * d));
      for (float& value : *values) value = type == DType::BF16 ? toFloat(toBf16(normal(generator))) : normal(generator);
    }
  }

  struct Result {
    std::vector<float> out;  ///< raster [S, H, D]
    AttentionProbe probe;
    AttentionStatistics statistics;
  };

  Result run(const BlockPlan* plan, const SelectionRule& rule, const std::function<void(SelfAttention&)>& adjust = {}) const {
    const int64_t dim = int64_t{heads} * headDim, stride = 3 * dim + 2, outStride = dim + 3;
    const size_t size = elementBytes(dtype);
    std::vector<std::byte> in(static_cast<size_t>(tokens * stride) * size), out(static_cast<size_t>(tokens * outStride) * size, std::byte{0xff});
    const auto put = [&](int64_t at, float value) {
      if (dtype == DType::BF16) reinterpret_cast<Bf16*>(in.data())[at] = toBf16(value);
      else reinterpret_cast<float*>(in.data())[at] = value;
    };
    const auto get = [&](int64_t at) { return dtype == DType::BF16 ? toFloat(reinterpret_cast<Bf16*>(out.data())[at]) : reinterpret_cast<float*>(out.data())[at]; };
    for (int64_t s = 0; s < tokens; ++s)
      for (int64_t i = 0; i < dim; ++i) {
        put(s * stride + i, q[static_cast<size_t>(s * dim + i)]);
        put(s * stride + dim + i, k[static_cast<size_t>(s * dim + i)]);
        put(s * stride + 2 * dim + i, v[static_cast<size_t>(s * dim + i)]);
      }
    Result result;
    SelfAttention job;
    job.tokens = tokens;
    job.heads = heads;
    job.headDim = headDim;
    job.dtype = dtype;
    job.q = in.data();
    job.k = in.data() + static_cast<size_t>(dim) * size;
    job.v = in.data() + static_cast<size_t>(2 * dim) * size;
    job.rowStride = stride;
    job.blocks = plan;
    job.rule = rule;
    job.out = out.data();
    job.outStride = outStride;
    job.probe = &result.probe;
    if (adjust) adjust(job);
    std::vector<std::byte> scratch(selfAttentionScratchBytes(job, threadCount()), std::byte{0xff});
    selfAttention(job, scratch, nullptr, &result.statistics);
    for (int64_t s = 0; s < tokens; ++s) {
      for (int64_t i = 0; i < dim; ++i) result.out.push_back(get(s * outStride + i));
      for (int64_t i = dim; i < outStride; ++i) EXPECT_TRUE(std::isnan(get(s * outStride + i))) << "wrote between the rows";
    }
    return result;
  }
};

inline std::vector<double> wide(const std::vector<float>& values) { return {values.begin(), values.end()}; }

/// Permuted [S, H, D] back to raster order.
inline std::vector<double> toRaster(const std::vector<double>& values, const BlockPlan& plan, int64_t dim) {
  if (plan.permutation.empty()) return values;
  std::vector<double> raster(values.size());
  for (int64_t p = 0; p < plan.tokens(); ++p) std::copy_n(values.begin() + p * dim, dim, raster.begin() + plan.permutation[static_cast<size_t>(p)] * dim);
  return raster;
}

inline double largestDifference(const std::vector<float>& actual, const std::vector<double>& expected) {
  double worst = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double difference = std::abs(static_cast<double>(actual.at(i)) - expected[i]);
    worst = difference > worst || std::isnan(difference) ? difference : worst;
  }
  return worst;
}

inline double rootMeanSquare(const std::vector<float>& actual, const std::vector<double>& expected) {
  double sum = 0;
  for (size_t i = 0; i < expected.size(); ++i) sum += std::pow(static_cast<double>(actual.at(i)) - expected[i], 2);
  return std::sqrt(sum / static_cast<double>(expected.size()));
}

}  // namespace vmoba::cpu
