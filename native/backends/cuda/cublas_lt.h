// cuBLASLt, opened at run time: its headers are not needed to build and its library need not be installed. Where it is missing
// our own products take its place.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/functions.h"
#include "native/base/dtype.h"

namespace vmoba::cuda {

/// out = function(x·Wᵀ + bias) with f32 accumulation.
struct BlasLinear {
  DType type = DType::BF16;         ///< of x and weight, or F8E4M3
  const void* x = nullptr;          ///< [m, k]
  const void* weight = nullptr;     ///< [n, k]
  const void* bias = nullptr;       ///< [n] of outType (bf16 with F8E4M3), or null
  void* out = nullptr;              ///< [m, n]
  DType outType = DType::BF16;      ///< or F32
  int64_t m = 0, n = 0, k = 0;
  int64_t outStride = 0;            ///< elements between rows of out; at least n
  Function function = Function::None;
  const float *xScale = nullptr, *weightScale = nullptr;  ///< F8E4M3: what the values are multiplied by, on the device
};

class CublasLt {
 public:
  /// Opens the library named by VMOBA_CUBLASLT ("none" = do not use one), else the system's of version 13 or 12. `why` says why there is none.
  /// `fp8`: whether the device multiplies F8E4M3.
  static std::unique_ptr<CublasLt> open(std::string* why, bool fp8);
  virtual ~CublasLt() = default;
  /// "cuBLASLt 13.1.0"
  virtual std::string name() const = 0;
  virtual bool multipliesFp8() const = 0;
  static constexpr size_t workspaceBytes = size_t{32} << 20;
  /// Enqueues on `stream`; false when the library has no algorithm for this (own kernels take over). `workspace`: workspaceBytes on the device.
  virtual bool linear(const BlasLinear& job, void* workspace, void* stream) = 0;
};

}  // namespace vmoba::cuda
