#include <cstring>
#include <string>

#include "kernels/cpu/tile_targets.h"
#include "native/base/error.h"

namespace vmoba::cpu {

std::span<const TileKernel* const> tileKernels(DType dtype) {
  static const std::vector<const TileKernel*> wide = highwayKernels();
  static const std::vector<const TileKernel*> narrow = [] {
    std::vector<const TileKernel*> kernels;
#if defined(VMOBA_AVX512_BF16)
    if (__builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bw"))
      kernels.push_back(&avx512bf16::kernel);
#endif
    for (const TileKernel* kernel : wide) kernels.push_back(kernel);
    return kernels;
  }();
  return dtype == DType::BF16 ? narrow : wide;
}

const TileKernel& chooseTileKernel(DType dtype, const char* name) {
  const auto kernels = tileKernels(dtype);
  if (name == nullptr) return *kernels.front();
  for (const TileKernel* kernel : kernels)
    if (std::strcmp(kernel->name, name) == 0) return *kernel;
  throw Error(ErrorCode::Unsupported, "this processor or build has no attention kernel '" + std::string(name) + "'", "instructionSet");
}

}  // namespace vmoba::cpu
