// Random inputs, poisoned outputs and comparisons for kernel tests.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "kernels/cuda/tile/launch.h"
#include "native/base/dtype.h"

namespace vmoba::cuda::test {

inline std::vector<float> random(size_t count, uint32_t seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(engine);
  return values;
}

/// Values of a storage type, and the same as the doubles they stand for. 16 elements of NaN follow: a write there is caught.
template <class T>
struct Values {
  std::vector<T> stored;
  std::vector<double> exact;
  size_t count;

  explicit Values(const std::vector<float>& from) : count(from.size()) {
    for (const float value : from) push(value);
    for (int i = 0; i < 16; ++i) push(std::numeric_limits<float>::quiet_NaN());
  }
  static Values poisoned(size_t count) { return Values(std::vector<float>(count, std::numeric_limits<float>::quiet_NaN())); }
  T* data() { return stored.data(); }
  const T* data() const { return stored.data(); }
  double operator[](size_t i) const { return read(stored[i]); }
  bool tailUntouched() const {
    for (size_t i = count; i < stored.size(); ++i)
      if (!std::isnan((*this)[i])) return false;
    return true;
  }

 private:
  void push(float value) {
    if constexpr (sizeof(T) == 4) {
      stored.push_back(value);
    } else {
      stored.push_back(toBf16(value));
    }
    exact.push_back(read(stored.back()));
  }
  static double read(T value) {
    if constexpr (sizeof(T) == 4) {
      return static_cast<double>(value);
    } else {
      return static_cast<double>(toFloat(value));
    }
  }
};

template <class T>
constexpr DType typeOf() {
  return sizeof(T) == 4 ? DType::F32 : DType::BF16;
}

/// Relative error in the norm; NaN anywhere gives NaN, which no bound accepts.
template <class T>
double relativeError(const Values<T>& actual, const std::vector<double>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
    norm += expected[i] * expected[i];
  }
  return std::sqrt(difference / norm);
}

/// Rounding of the storage type, with room for f32 accumulation.
template <class T>
constexpr double bound() {
  return sizeof(T) == 4 ? 2e-6 : 4e-3;
}

/// A stream on which the given fault is planted.
class Faulty {
 public:
  explicit Faulty(emulation::PlantedFault::Kind kind, int nth = 0) { options_.fault = {kind, nth}; }
  tile::Stream stream() { return {&options_}; }

 private:
  emulation::Options options_;
};

}  // namespace vmoba::cuda::test
