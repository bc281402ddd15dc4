// Which tensors a model of a given shape has, under the official names, and how each is initialised.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace vmoba {

/// A tensor of normally distributed numbers: mean + deviation * z.
struct TensorPlan {
  std::string name;
  std::vector<int64_t> shape;
  float mean = 0;
  float deviation = 1;
  bool matrix = false;  ///< stored as BF16 (others F32)
};

struct DitShape {
  int64_t dim = 0, layers = 0, heads = 0, ffnDim = 0, freqDim = 0, textDim = 0, textLength = 0;
  int64_t inChannels = 16, outChannels = 16;
  std::array<int64_t, 3> patch{1, 2, 2};
};

struct VaeShape {
  int64_t dim = 0, latentChannels = 16, residualBlocks = 2;
  std::array<int64_t, 4> widths{1, 2, 4, 4};                  ///< of the stages, times dim
  std::array<bool, 3> temporalDownsample{false, true, true};
};

struct TextEncoderShape {
  int64_t vocabulary = 0, dim = 0, attentionDim = 0, heads = 0, ffnDim = 0, layers = 0, buckets = 32;
};

std::vector<TensorPlan> planTensors(const DitShape& shape);
std::vector<TensorPlan> planTensors(const VaeShape& shape);
std::vector<TensorPlan> planTensors(const TextEncoderShape& shape);

/// The shape as the `__metadata__` texts that official conversions carry.
std::map<std::string, std::string> describe(const DitShape& shape);
std::map<std::string, std::string> describe(const VaeShape& shape);
std::map<std::string, std::string> describe(const TextEncoderShape& shape);

}  // namespace vmoba
