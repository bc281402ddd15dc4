// The similarity of every query to every block of keys, by which blocks are selected.
#pragma once
#include "kernels/cuda/attention/plan_view.h"
#include "native/base/dtype.h"

namespace vmoba::cuda {

/// gate[h, c, s] = q[h, s]·means[h, c]. q [heads, tokens, paddedDim], means f32 [heads, blocks, paddedDim], gate f32 [heads, blocks, tokens];
/// all aligned to 16 bytes, paddedDim 32, 64 or 128.
/// f32: each a chain of fused multiply-adds over rising channel, the same bits as on the CPU. bf16: on the tensor cores, each mean as three
/// bf16 that sum to it, as the CPU's matrix unit does; sums in f32, the same bits from run to run.
template <class T>
void gate(tile::Stream stream, const PlanView& plan, const T* q, const float* means, int32_t heads, int32_t paddedDim, float* gate);

}  // namespace vmoba::cuda
