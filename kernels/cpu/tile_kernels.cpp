#include <cstring>
#include <string>
#if defined(VMOBA_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "kernels/cpu/tile_targets.h"
#include "native/base/error.h"

namespace vmoba::cpu {
#if defined(VMOBA_AVX512_BF16)
bool avx512bf16::available() {
  // Virtual machines hide instructions one by one: all of x86-64-v4 that every compiler can ask for.
  return __builtin_cpu_supports("avx512bf16") && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512cd") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
}
#endif
#if defined(VMOBA_AMX)
namespace amx {

bool available() {
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  if (!avx512bf16::available()) return false;
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid_count(7, 0, &a, &b, &c, &d) == 0 || (d & kAmxBf16) == 0 || (d & kAmxTile) == 0) return false;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace amx
#endif

std::span<const TileKernel* const> tileKernels(DType dtype) {
  static const std::vector<const TileKernel*> wide = highwayKernels();
  static const std::vector<const TileKernel*> narrow = [] {
    std::vector<const TileKernel*> kernels;
#if defined(VMOBA_AVX512_BF16)
    if (avx512bf16::available()) {
#if defined(VMOBA_AMX)
      static const TileKernel amx{"amx-bf16", DType::BF16, avx512bf16::kernel.lanes, avx512bf16::kernel.step, amx::sumBytes, amx::scratchBytes, amx::visit,
                                  avx512bf16::kernel.finish, amx::gateScratchBytes, amx::gate};
      if (amx::available()) kernels.push_back(&amx);
#endif
      kernels.push_back(&avx512bf16::kernel);
    }
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
