#include "native/tools/random_model/random_tensors.h"

#include <algorithm>
#include <span>

#include "native/base/dtype.h"
#include "native/base/parallel.h"
#include "native/weights/safetensors.h"

namespace vmoba {

namespace {

constexpr int64_t pieceElements = 1 << 20;

// The finaliser of SplitMix64 (Steele, Lea, Flood 2014).
uint64_t mix(uint64_t value) {
  value = (value ^ (value >> 30)) * 0xbf58476d1ce4e5b9ull;
  value = (value ^ (value >> 27)) * 0x94d049bb133111ebull;
  return value ^ (value >> 31);
}

uint64_t keyOf(uint64_t seed, const std::string& name) {
  uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return mix(hash + 0x9e3779b97f4a7c15ull * (seed + 1));
}

template <class Stored, class Convert>
void fill(std::vector<Stored>& piece, const TensorPlan& plan, uint64_t key, int64_t first, int64_t count, const Convert& convert) {
  piece.resize(static_cast<size_t>(count));
  parallelForRanges(count, 1 << 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i)
      piece[static_cast<size_t>(i)] = convert(plan.mean + plan.deviation * randomNumber(key, static_cast<uint64_t>(first + i)));
  });
}

}  // namespace

float randomNumber(uint64_t key, uint64_t counter) {
  const uint64_t bits = mix(key + counter * 0x9e3779b97f4a7c15ull);
  const auto sum = static_cast<int32_t>((bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) + (bits >> 48));
  // Four uniform numbers on 0..65535: mean 131070, variance 4 (65536^2 - 1) / 12.
  return static_cast<float>(sum - 131070) * 2.6428996e-05f;
}

void writeRandomTensors(const std::string& path, const std::vector<TensorPlan>& plan, const std::map<std::string, std::string>& metadata, uint64_t seed, bool durable) {
  std::vector<TensorSource> sources;
  for (const TensorPlan& tensor : plan) {
    sources.push_back({tensor.name, tensor.matrix ? DType::BF16 : DType::F32, tensor.shape, [&tensor, seed](const auto& sink) {
                         int64_t elements = 1;
                         for (const int64_t extent : tensor.shape) elements *= extent;
                         const uint64_t key = keyOf(seed, tensor.name);
                         std::vector<Bf16> halves;
                         std::vector<float> floats;
                         for (int64_t first = 0; first < elements; first += pieceElements) {
                           const int64_t count = std::min(pieceElements, elements - first);
                           if (tensor.matrix) {
                             fill(halves, tensor, key, first, count, [](float value) { return toBf16(value); });
                             sink(std::as_bytes(std::span<const Bf16>(halves)));
                           } else {
                             fill(floats, tensor, key, first, count, [](float value) { return value; });
                             sink(std::as_bytes(std::span<const float>(floats)));
                           }
                         }
                       }});
  }
  writeSafetensorsStreaming(path, std::move(sources), metadata, durable);
}

}  // namespace vmoba
