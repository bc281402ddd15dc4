// cuBLASLt, opened at run time: its headers are not needed to build and its library need not be installed. Where it is missing
// our own products take its place.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "kernels/cuda/functions.h"
#include "native/base/dtype.h"

namespace vmoba::cuda {

/// out = function(x·Wᵀ + bias) in bf16 with f32 accumulation.
struct BlasLinear {
  const void* x = nullptr;          ///< bf16 [m, k]
  const void* weight = nullptr;     ///< bf16 [n, k]
  const void* bias = nullptr;       ///< [n] of outType, or null
  void* out = nullptr;              ///< [m, n]
  DType outType = DType::BF16;      ///< or F32
  int64_t m = 0, n = 0, k = 0;
  Function function = Function::None;
};

class CublasLt {
 public:
  /// Opens the library named by VMOBA_CUBLASLT ("none" = do not use one), else the system's of version 13 or 12. `why` says why there is none.
  static std::unique_ptr<CublasLt> open(std::string* why);
  virtual ~CublasLt() = default;
  /// "cuBLASLt 13.1.0"
  virtual std::string name() const = 0;
  static constexpr size_t workspaceBytes = size_t{32} << 20;
  /// Enqueues on `stream`; false when the library has no algorithm for this (own kernels take over). `workspace`: workspaceBytes on the device.
  virtual bool linear(const BlasLinear& job, void* workspace, void* stream) = 0;
};

}  // namespace vmoba::cuda
