// The kernels each instruction-set file provides. Internal to the dispatcher.
#pragma once
#include <vector>

#include "kernels/cpu/tile.h"

namespace vmoba::cpu {

/// F32 kernels this processor can run, best first.
std::vector<const TileKernel*> highwayKernels();
#if defined(VMOBA_AVX512_BF16)
namespace avx512bf16 {
/// Whether the processor has the vector instructions that these kernels, and those of amx, are compiled for.
bool available();
extern const TileKernel kernel;
}
#endif
#if defined(VMOBA_AMX)
namespace amx {
/// Whether the processor has that and bf16 tiles too, and the system grants this process their registers.
bool available();
extern const int32_t sumBytes;
void visit(const TileJob& job, std::span<const TileVisit> visits);
int64_t scratchBytes(int32_t depth, int32_t valueWidth);
void gate(const GateJob& job);
int64_t gateScratchBytes(int32_t depth, int32_t blocks);
}
#endif

}  // namespace vmoba::cpu
