// Products of activations with weights on the processor's matrix unit (AMX): out = activation(x·Wᵀ + bias), bf16 elements, f32 sums.
// Processors without one leave products to a library. Whatever the rows of a call and the number of threads, a row's bits depend on the
// row and the weights alone.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "native/base/activation.h"
#include "native/base/dtype.h"

namespace vmoba::cpu {

struct Product {
  const Bf16* x;             ///< [rows, inputs]
  int64_t rows, inputs, outputs;
  const std::byte* weights;  ///< packProductWeights'
  const float* bias;         ///< [outputs] or null
  void* out;                 ///< [rows, outputs], BF16 or F32
  DType outType;
  Activation activation;
};

/// Whether this processor and build have the kernel, and it takes rows of so many elements.
bool hasProduct(int64_t inputs);

size_t packedProductBytes(int64_t outputs, int64_t inputs);
/// `rows` [outputs, inputs] into `packed`, aligned to 64 bytes.
void packProductWeights(const Bf16* rows, int64_t outputs, int64_t inputs, std::byte* packed);

/// Rises with the threads.
size_t productScratchBytes(int64_t outputs, int64_t inputs, int threads);
void multiplyMatrices(const Product& job, std::span<std::byte> scratch);

}  // namespace vmoba::cpu
