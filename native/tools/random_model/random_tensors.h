// Fills planned tensors with random numbers while they are written: nothing but one small buffer is in memory.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "native/tools/random_model/architectures.h"

namespace vmoba {

/// A number of mean 0 and deviation 1, nearly normal (the sum of four uniform ones), from a key and a counter. Integer
/// arithmetic up to one exact conversion, so every system and thread count gives the same bits.
float randomNumber(uint64_t key, uint64_t counter);

/// Writes one safetensors file of the planned tensors. Numbers depend on seed, tensor name and element only.
/// `durable`: waits for the disk.
void writeRandomTensors(const std::string& path, const std::vector<TensorPlan>& plan, const std::map<std::string, std::string>& metadata, uint64_t seed,
                        bool durable = true);

}  // namespace vmoba
