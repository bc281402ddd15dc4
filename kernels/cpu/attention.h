// Fused block-sparse self-attention on the CPU, and the dense and cross attention made of the same tiles.
// Dispatches at run time to SSE4 / AVX2 / AVX-512 / NEON (Highway), AVX-512-BF16 or AMX. Runs on the calling thread's pool
// (native/base/parallel.h); given enough scratch, a thread allocates some 100 KB on its first call and then only what statistics fill.
#pragma once
#include <atomic>
#include <cstddef>
#include <span>

#include "kernels/attention.h"
#include "native/base/dtype.h"

namespace vmoba::cpu {

/// q, k, v as the projections left them: row s of head h starts at base + s*rowStride + h*headDim (elements), raster
/// order. RMS norm over the whole row (all heads) and RoPE are applied here when their tables are given.
struct SelfAttention {
  int32_t tokens = 0, heads = 0, headDim = 0;
  DType dtype = DType::F32;           ///< F32 or BF16: type of q, k, v and out
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t rowStride = 0;              ///< elements between consecutive tokens of q, k, v
  const float* normQ = nullptr;       ///< [heads*headDim] RMS weight, or null: no norm
  const float* normK = nullptr;
  float normEps = 1e-6f;
  const float* ropeCos = nullptr;     ///< [tokens, headDim/2] raster order, or null: no rotation
  const float* ropeSin = nullptr;
  const BlockPlan* blocks = nullptr;  ///< null = dense
  SelectionRule rule;
  void* out = nullptr;                ///< [tokens, heads*headDim] raster order, same dtype
  int64_t outStride = 0;
  const std::atomic<bool>* cancel = nullptr;  ///< polled per tile; Error{Cancelled} when raised
  AttentionProbe* probe = nullptr;    ///< verification only: filled with what this very path computed
  bool routingOnly = false;           ///< stop after selection and its statistics: what a planner or benchmark needs
  const char* instructionSet = nullptr;  ///< null = the best this processor has; else one by name (see tile.h), for tests
};

/// Upper bound of the scratch bytes selfAttention needs for these shapes on `threads` threads.
size_t selfAttentionScratchBytes(const SelfAttention& job, int threads);

/// Throws Error{NumericalFault} if q, k or v hold NaN or infinity, Error{Cancelled} on cancel.
/// Same inputs give the same bits whatever the number of threads.
void selfAttention(const SelfAttention& job, std::span<std::byte> scratch, const StatisticsRequest* request = nullptr,
                   AttentionStatistics* statistics = nullptr);

/// Attention of `tokens` queries over `keys` other rows (text or image context); no mask, own softmax, no RoPE.
/// k and v are [keys, heads*headDim], already projected; k is RMS-normed by normK when given.
struct CrossAttention {
  int32_t tokens = 0, keys = 0, heads = 0, headDim = 0;
  DType dtype = DType::F32;
  const void* q = nullptr;
  int64_t qStride = 0;
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t kvStride = 0;
  const float* normQ = nullptr;
  const float* normK = nullptr;
  float normEps = 1e-6f;
  void* out = nullptr;
  int64_t outStride = 0;
  bool accumulate = false;            ///< out += instead of out = (the i2v image branch)
  const int32_t* keyGroup = nullptr;  ///< [keys] group (prompt word) of each key, -1 = none; null = no map
  int32_t groups = 0;
  float* groupMass = nullptr;         ///< [groups, tokens] += head-mean attention mass of each group
  const std::atomic<bool>* cancel = nullptr;
};
size_t crossAttentionScratchBytes(const CrossAttention& job, int threads);
void crossAttention(const CrossAttention& job, std::span<std::byte> scratch);

/// Name of the instruction set the dispatcher chose ("amx-bf16", "avx512-bf16", "avx512", "avx2", "neon", ...). Part of a
/// checkpoint's identity: other instruction sets may round differently.
const char* instructionSet(DType dtype);

}  // namespace vmoba::cpu
