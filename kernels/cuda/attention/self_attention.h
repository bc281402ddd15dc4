// One self-attention or cross-attention call on the device, from projections to output, in stages between which a caller may
// record events. Scratch is one allocation laid out here; what it holds afterwards (gate, selection, counts) serves probes
// and statistics.
#pragma once
#include "kernels/cuda/attention/attend.h"
#include "kernels/cuda/attention/gate.h"
#include "kernels/cuda/attention/packing.h"
#include "kernels/cuda/attention/prepare.h"
#include "kernels/cuda/attention/selection.h"
#include "native/base/dtype.h"

namespace vmoba::cuda {

/// Everything lies in device memory. q, k, v: row s of head h at base + s*rowStride + h*headDim (elements), raster order.
struct SelfAttentionJob {
  DType dtype = DType::F32;         ///< F32 or BF16: of q, k, v, out. F32 computes in strict f32
  PlanView plan;                    ///< of layOut(blocks), or of layOutDense
  bool sparse = false;              ///< false: dense, `rule` is ignored
  SelectionRule rule;
  int32_t heads = 0, headDim = 0;
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  int64_t rowStride = 0;
  const float* normQ = nullptr;     ///< [heads*headDim], or null
  const float* normK = nullptr;
  float normEps = 1e-6f;
  const float* ropeCos = nullptr;   ///< [tokens, headDim/2] raster order, or null
  const float* ropeSin = nullptr;
  void* out = nullptr;              ///< [tokens, outStride]
  int64_t outStride = 0;
  uint32_t* notFinite = nullptr;    ///< becomes non-zero where q, k or v hold NaN or infinity; zeroed by the caller
  bool maps = false;                ///< also count the selection map
  int32_t mapHead = -1;
  bool hopper = false;              ///< bf16 by attendHopper where heads are wide enough
  bool wideTiles = false;           ///< with PlanView::tileKeys keys per tile
  size_t partialBytes = partialResultBytes(0);  ///< room for partial results: as many heads as fit are attended at a time, at least one
};

/// Byte offsets into the scratch of a call.
struct SelfAttentionScratch {
  size_t q = 0, k = 0, v = 0;             ///< [heads, tokens, paddedDim] of dtype, permuted order, after norm and RoPE
  size_t segmentSums = 0, means = 0;      ///< means f32 [heads, blocks, paddedDim]
  size_t gate = 0;                        ///< f32 [heads, blocks, tokens]
  size_t selection = 0;                   ///< u32 [heads, tokens, words]
  size_t selected = 0;                    ///< u32 [heads, blocks]
  size_t map = 0;                         ///< u32 [blocks, blocks]
  size_t visitTotal = 0;                  ///< u32 [1]: visits of blocks by tiles
  size_t order = 0, ends = 0, places = 0, cells = 0, cellFirst = 0, ranks = 0, counts = 0, turns = 0, norms = 0, search = 0;
  size_t partials = 0, partialLogs = 0;   ///< of `partialHeads` heads at a time
  int32_t partialHeads = 0;
  size_t total = 0;
};
SelfAttentionScratch layOutScratch(const SelfAttentionJob& job);

/// Norm, RoPE, permutation, means, gate, selection and its counts. scratch: `layOutScratch(job).total` bytes, 256-aligned.
void route(tile::Stream stream, const SelfAttentionJob& job, void* scratch);
/// After `route`, and after a probe has taken the selection: under Semantics::Upstream it becomes dense here where the published
/// code attends densely. Nothing to do for dense jobs.
void pack(tile::Stream stream, const SelfAttentionJob& job, void* scratch);
/// After `pack`.
void attend(tile::Stream stream, const SelfAttentionJob& job, void* scratch, const BetweenLaunches& between = {});

/// Statistics from what the scratch held: `selected`, `map` (empty: no maps), `visitTotal`. Seconds stay untouched.
void collect(const SelfAttentionJob& job, const BlockPlan& plan, const std::vector<uint32_t>& selected, const std::vector<uint32_t>& map, uint32_t visitTotal,
             AttentionStatistics& statistics);
/// The probe's arrays ([C, H, S], [S, H, D]) from the scratch's.
void collectProbe(const SelfAttentionJob& job, const std::vector<float>& gate, const std::vector<uint32_t>& selection, const std::vector<std::byte>& q,
                  const std::vector<std::byte>& k, const std::vector<std::byte>& v, AttentionProbe& probe);

struct CrossAttentionJob {
  DType dtype = DType::F32;
  PlanView queryPlan, keyPlan;      ///< layOutDense of tokens and of keys
  int32_t heads = 0, headDim = 0;
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
  bool accumulate = false;
  const int32_t* keyGroup = nullptr;  ///< [keys], -1 = none; null = no map
  int32_t groups = 0;
  float* groupMass = nullptr;         ///< [groups, tokens], accumulated
  uint32_t* notFinite = nullptr;
  bool hopper = false, wideTiles = false;  ///< as in SelfAttentionJob
};
size_t crossAttentionScratchBytes(const CrossAttentionJob& job);
void crossAttention(tile::Stream stream, const CrossAttentionJob& job, void* scratch, const BetweenLaunches& between = {});

}  // namespace vmoba::cuda
