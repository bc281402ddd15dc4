// Cross-attention: few keys shared by all queries, packed once. A map of prompt words costs one extra value channel per word,
// which is 1 for the word's keys: the softmax-weighted sum of that channel is the attention mass of the word.
#include <algorithm>
#include <cmath>

#include "kernels/cpu/attention.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/packed.h"
#include "native/base/error.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {
namespace {

constexpr int32_t kTileRows = 16 * kRowGroup;

class Call {
 public:
  Call(const CrossAttention& job, Arena& arena, int threads)
      : job_(job),
        kernel_(chooseTileKernel(job.dtype, nullptr)),
        mapped_(job.keyGroup != nullptr && job.groupMass != nullptr && job.groups > 0),
        shape_{job.heads, job.headDim, job.headDim + (mapped_ ? job.groups : 0), kernel_.lanes, kernel_.step, kernel_.element},
        groups_((job.keys + shape_.lanes - 1) / shape_.lanes),
        rowFloats_(int64_t{job.heads} * shape_.valueDim) {
    k_ = arena.take<std::byte>(job.heads * shape_.keyBytes(groups_));
    v_ = arena.take<std::byte>(job.heads * shape_.valueBytes(groups_));
    rows_ = arena.take<float>(threads * shape_.lanes * rowFloats_);
    packedRows_ = arena.take<std::byte>(threads * shape_.queryBytes(shape_.lanes));
    q_ = arena.take<std::byte>(threads * job.heads * shape_.queryBytes(kTileRows));
    buffers_ = arena.take<TileBuffers>(threads);
    for (int t = 0; t < threads; ++t) {
      const TileBuffers buffers(arena, kernel_, shape_, kTileRows);
      if (buffers_ == nullptr) continue;
      buffers_[t] = buffers;
      for (int32_t r = 0; r < kTileRows; ++r) buffers.rows[r] = static_cast<uint16_t>(r);
    }
  }

  void run() {
    if (job_.keys < 1) throw Error(ErrorCode::BadRequest, "cross-attention needs at least one key", "keys");
    const int64_t dim = int64_t{job_.heads} * job_.headDim;
    require(finiteWeights(job_.normQ, dim) && finiteWeights(job_.normK, dim));
    parallelForDynamic(groups_, [&](int64_t group) { packKeys(static_cast<int32_t>(group)); });
    throwIfStopped();
    parallelForDynamic((job_.tokens + kTileRows - 1) / kTileRows, [&](int64_t tile) { attendTile(static_cast<int32_t>(tile) * kTileRows); });
    throwIfStopped();
  }

 private:
  bool raised() const { return job_.cancel != nullptr && job_.cancel->load(std::memory_order_relaxed); }
  void throwIfStopped() const {
    if (broken_) throw Error(ErrorCode::NumericalFault, "cross-attention met NaN or infinity: the weights, the latent or the prompt's embedding are damaged");
    if (raised()) throw Error(ErrorCode::Cancelled, "cancelled");
  }
  void require(bool sound) {
    if (!sound) broken_.store(true, std::memory_order_relaxed);
  }

  void packKeys(int32_t group) {
    const int32_t first = group * shape_.lanes, count = std::min(shape_.lanes, job_.keys - first), valueDim = shape_.valueDim;
    float* rows = rows_ + threadIndex() * shape_.lanes * rowFloats_;
    std::byte* packed = packedRows_ + threadIndex() * shape_.queryBytes(shape_.lanes);
    const int64_t dim = int64_t{job_.heads} * job_.headDim;
    const RowSource keys{job_.k, job_.dtype, job_.kvStride, job_.heads, job_.headDim, job_.normK, job_.normEps, nullptr, nullptr};
    for (int32_t j = 0; j < count; ++j) require(prepareRow(keys, first + j, rows + j * dim));
    for (int32_t h = 0; h < job_.heads; ++h) {
      for (int32_t j = 0; j < count; ++j) packRow(shape_.element, rows + j * dim + h * job_.headDim, job_.headDim, shape_.depth(), packed + shape_.queryBytes(j));
      packKeyGroup(packed, shape_.depth(), count, shape_.lanes, shape_.depth() / shape_.step, shape_.step, k_ + h * shape_.keyBytes(groups_) + shape_.keyBytes(group));
    }
    const RowSource values{job_.v, job_.dtype, job_.kvStride, job_.heads, job_.headDim, nullptr, 0, nullptr, nullptr};
    for (int32_t j = 0; j < count; ++j) {
      float* row = rows + j * rowFloats_;
      require(prepareRow(values, first + j, row));
      if (!mapped_) continue;
      for (int32_t h = job_.heads - 1; h >= 0; --h) {  // spread the heads apart, from the last, to make room for the word channels
        float* head = row + int64_t{h} * valueDim;
        std::copy_backward(row + int64_t{h} * job_.headDim, row + (int64_t{h} + 1) * job_.headDim, head + job_.headDim);
        for (int32_t g = 0; g < job_.groups; ++g) head[job_.headDim + g] = job_.keyGroup[first + j] == g ? 1.0f : 0.0f;
      }
    }
    for (int32_t h = 0; h < job_.heads; ++h)
      packValueGroup(shape_.element, rows + int64_t{h} * valueDim, rowFloats_, count, shape_.lanes, valueDim, shape_.valueWidth(),
                     v_ + h * shape_.valueBytes(groups_) + shape_.valueBytes(group));
  }

  void attendTile(int32_t first) {
    if (raised()) return;
    const int32_t count = std::min(kTileRows, job_.tokens - first);
    const TileBuffers& buffers = buffers_[threadIndex()];
    std::byte* q = q_ + threadIndex() * job_.heads * shape_.queryBytes(kTileRows);
    float* row = rows_ + threadIndex() * shape_.lanes * rowFloats_;
    const RowSource source{job_.q, job_.dtype, job_.qStride, job_.heads, job_.headDim, job_.normQ, job_.normEps, nullptr, nullptr};
    for (int32_t r = 0; r < count; ++r) {
      require(prepareRow(source, first + r, row));
      for (int32_t h = 0; h < job_.heads; ++h)
        packRow(shape_.element, row + int64_t{h} * job_.headDim, job_.headDim, shape_.depth(), q + h * shape_.queryBytes(kTileRows) + shape_.queryBytes(r));
    }
    for (int32_t h = 0; h < job_.heads; ++h) {
      if (raised()) return;
      buffers.reset(shape_, count);
      const TileVisit visit{buffers.rows, count, k_ + h * shape_.keyBytes(groups_), v_ + h * shape_.valueBytes(groups_), job_.keys};
      kernel_.visit(buffers.job(shape_, q + h * shape_.queryBytes(kTileRows)), {&visit, 1});
      require(kernel_.finish(buffers.state, count, shape_.valueWidth()));
      for (int32_t r = 0; r < count; ++r) {
        const float* sums = buffers.state.sums + int64_t{r} * shape_.valueWidth();
        writeRow(sums, job_.headDim, job_.dtype, job_.out, (int64_t{first} + r) * job_.outStride + int64_t{h} * job_.headDim, job_.accumulate);
        for (int32_t g = 0; mapped_ && g < job_.groups; ++g)
          job_.groupMass[int64_t{g} * job_.tokens + first + r] += sums[job_.headDim + g] / static_cast<float>(job_.heads);
      }
    }
  }

  const CrossAttention& job_;
  const TileKernel& kernel_;
  bool mapped_;
  PackedShape shape_;
  int32_t groups_;
  int64_t rowFloats_;  ///< floats per row buffer: all heads with their word channels
  std::byte *k_, *v_, *packedRows_, *q_;
  float* rows_;
  TileBuffers* buffers_;
  std::atomic<bool> broken_ = false;
};

}  // namespace

size_t crossAttentionScratchBytes(const CrossAttention& job, int threads) {
  Arena arena;
  const Call call(job, arena, threads);
  return arena.bytes();
}

void crossAttention(const CrossAttention& job, std::span<std::byte> scratch) {
  Arena arena(scratch);
  Call(job, arena, threadCount()).run();
}

}  // namespace vmoba::cpu
