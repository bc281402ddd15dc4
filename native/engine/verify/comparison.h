// One fixture file under comparison: collects rows, remembers which stored tensors were looked at.
#pragma once
#include <cstring>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "native/engine/verify/verify.h"
#include "native/weights/checkpoint.h"

namespace vmoba::verify {

struct Comparison {
  Backend& backend;
  const Checkpoint& stored;
  std::string file;
  VerifyCallback report;
  std::set<std::string> seen;

  bool has(const std::string& name) const { return stored.find(name) != nullptr; }
  const std::vector<int64_t>& shape(const std::string& name) { return stored.require(name).shape; }
  /// An input: counted as seen.
  std::vector<float> input(const std::string& name) {
    seen.insert(name);
    return stored.require(name).toFloat();
  }
  std::vector<int64_t> integers(const std::string& name) {
    seen.insert(name);
    const WeightView& view = stored.require(name);
    std::vector<int64_t> values(static_cast<size_t>(view.elements()));
    if (view.dtype == DType::I64) {
      std::memcpy(values.data(), view.data, view.bytes);
    } else {
      for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<uint8_t>(view.data[i]);
    }
    return values;
  }
  std::string metadata(const std::string& key) const {
    const auto found = stored.metadata().find(key);
    return found == stored.metadata().end() ? std::string() : found->second;
  }
  std::vector<double> numbers(const std::string& key) const {
    std::vector<double> values;
    std::stringstream text(metadata(key));
    for (std::string item; std::getline(text, item, ',');) values.push_back(std::strtod(item.c_str(), nullptr));
    return values;
  }
  std::vector<float> host(const Tensor& tensor) const {
    Tensor wide = tensor;
    if (tensor.dtype != DType::F32) {
      wide = backend.allocate(DType::F32, tensor.shape);
      backend.convert(tensor, wide);
    }
    std::vector<float> values(static_cast<size_t>(tensor.elements()));
    backend.download(wide, values.data());
    return values;
  }

  /// Largest absolute difference against the stored tensor `name`.
  void close(const std::string& name, const std::vector<float>& actual, double tolerance);
  /// Number of differing integers.
  void exact(const std::string& name, const std::vector<int64_t>& actual);
  /// float32 bit patterns.
  void sameBits(const std::string& name, const std::vector<float>& actual);
  void fail(const std::string& name, const std::string& note) { report({file, name, 0, 0, false, note}); }
  /// Reports every stored tensor nothing looked at.
  void finish();
};

constexpr double kOutputTolerance = 1e-4, kAttentionTolerance = 2e-5, kTrajectoryTolerance = 2e-5, kGateTolerance = 1e-4, kTableTolerance = 1e-6;

void verifyDit(Comparison& c, std::shared_ptr<const Checkpoint> weights);
void verifyTextEncoder(Comparison& c, std::shared_ptr<const Checkpoint> weights);
void verifyVae(Comparison& c, std::shared_ptr<const Checkpoint> weights);
void verifyScheduler(Comparison& c);
/// `tensors` holds q, k, v (the group's qkv file, or the file itself).
void verifyAttention(Comparison& c, const Checkpoint& tensors);
void verifyAttentionEdge(Comparison& c);

}  // namespace vmoba::verify
