#include "native/engine/time_embedding.h"

#include <cmath>

#include "native/base/parallel.h"

namespace vmoba {
namespace {

float siluOf(float x) { return x / (1.0f + std::exp(-x)); }

std::vector<float> linearRow(const Checkpoint& checkpoint, const std::string& name, const std::vector<float>& x) {
  const WeightView& weight = checkpoint.require(name + ".weight", {-1, static_cast<int64_t>(x.size())});
  const int64_t outputs = weight.shape[0], inputs = weight.shape[1];
  std::vector<float> y = checkpoint.require(name + ".bias", {outputs}).toFloat();
  parallelForRanges(outputs, 64, [&](int64_t begin, int64_t end) {
    std::vector<float> row(static_cast<size_t>(inputs));
    WeightView line = weight;
    line.shape = {1, inputs};
    line.bytes = static_cast<size_t>(inputs) * elementBytes(weight.dtype);
    for (int64_t o = begin; o < end; ++o) {
      line.data = weight.data + static_cast<size_t>(o) * line.bytes;
      line.toFloat(row);
      double sum = 0;
      for (int64_t i = 0; i < inputs; ++i) sum += static_cast<double>(row[static_cast<size_t>(i)]) * static_cast<double>(x[static_cast<size_t>(i)]);
      y[static_cast<size_t>(o)] += static_cast<float>(sum);
    }
  });
  return y;
}

}  // namespace

TimeEmbedding embedTimestep(const Checkpoint& checkpoint, double timestep) {
  TimeEmbedding result;
  const int64_t freqDim = checkpoint.require("time_embedding.0.weight").shape.at(1), half = freqDim / 2;
  result.sinusoid.resize(static_cast<size_t>(freqDim));
  for (int64_t i = 0; i < half; ++i) {
    const double angle = timestep * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
    result.sinusoid[static_cast<size_t>(i)] = static_cast<float>(std::cos(angle));
    result.sinusoid[static_cast<size_t>(half + i)] = static_cast<float>(std::sin(angle));
  }
  std::vector<float> hidden = linearRow(checkpoint, "time_embedding.0", result.sinusoid);
  for (float& value : hidden) value = siluOf(value);
  result.embedding = linearRow(checkpoint, "time_embedding.2", hidden);
  std::vector<float> activated = result.embedding;
  for (float& value : activated) value = siluOf(value);
  result.projection = linearRow(checkpoint, "time_projection.1", activated);
  return result;
}

}  // namespace vmoba
