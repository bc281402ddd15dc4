// Self-attention: one pass that norms, rotates, permutes and packs; gates and selection; then tiles of query rows, each walking
// over the blocks its rows selected. A tile gathers, block by block, just the rows that selected it: no pair is computed that was
// not asked for, so no masks, and efficiency does not depend on how alike neighbouring rows choose.
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstring>

#include "kernels/cpu/pack.h"
#include "kernels/cpu/packed.h"
#include "kernels/cpu/selection.h"
#include "kernels/cpu/statistics.h"
#include "kernels/cpu/tile.h"
#include "native/base/error.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {
namespace {

constexpr int32_t kUnitKeys = 256;  ///< tokens packed by one piece of work
constexpr int32_t kRowsAhead = 6;   ///< fetched before they are packed

bool raised(const std::atomic<bool>* cancel) { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }

double secondsSince(std::chrono::steady_clock::time_point start) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }

/// One call: its shapes, the pieces of its scratch, and the passes over them.
class Call {
 public:
  Call(const SelfAttention& job, Arena& arena, int threads)
      : job_(job),
        kernel_(chooseTileKernel(job.dtype, job.instructionSet)),
        shape_{job.heads, job.headDim, job.headDim, kernel_.lanes, kernel_.step, kernel_.element},
        tokens_(job.tokens),
        blocks_(job.blocks != nullptr ? job.blocks->blocks() : 1),
        routed_(job.blocks != nullptr && !selectsEverything(*job.blocks, job.rule)),
        headWise_(job.rule.scope == SelectionScope::QueryHead || job.rule.scope == SelectionScope::HeadGlobal),
        gateStride_(((int64_t{tokens_} + shape_.lanes - 1) / shape_.lanes | 1) * shape_.lanes) {  // odd, so that blocks do not meet in one set of a cache
    const int64_t heads = job.heads, depth = shape_.depth(), dim = heads * job.headDim;
    // Small problems are cut into smaller tiles, so that every thread gets several; the bits do not depend on it.
    tileRows_ = tileRowsFor(kernel_, shape_);
    while (tileRows_ > 8 * kRowGroup && heads * ((tokens_ + tileRows_ - 1) / tileRows_) < 8 * threads) tileRows_ = std::max(8 * kRowGroup, tileRows_ / 2);
    groupStart_ = arena.take<int32_t>(blocks_ + 1);
    unitStart_ = arena.take<int32_t>(blocks_ + 1);
    const int64_t groups = groupBound();
    q_ = arena.take<std::byte>(heads * shape_.queryBytes(tokens_));
    k_ = arena.take<std::byte>(heads * shape_.keyBytes(groups));
    v_ = arena.take<std::byte>(heads * shape_.valueBytes(groups));
    rows_ = arena.take<float>(threads * shape_.lanes * dim);
    packedRows_ = arena.take<std::byte>(threads * shape_.queryBytes(shape_.lanes));
    if (job.blocks != nullptr) bits_ = {arena.take<uint64_t>(heads * blocks_ * ((int64_t{tokens_} + 63) / 64)), job.heads, blocks_, tokens_};
    if (wantsGate()) {
      unitSums_ = arena.take<double>(unitBound() * dim);
      means_ = arena.take<float>(heads * blocks_ * depth);
      gatePlane_ = blocks_ * gateStride_;
      gate_ = arena.take<float>(gatePlane_ * (gatesOfAllHeads() ? heads : threads));
      gateScratch_ = arena.take<std::byte>(threads * gateScratchBytes());
      workFloats_ = selectionWorkFloats(*job.blocks, job.heads, job.rule);
      work_ = arena.take<float>(workFloats_ * (headWise_ ? threads : 1));
    }
    buffers_ = arena.take<TileBuffers>(threads);
    for (int t = 0; t < threads; ++t) {
      const TileBuffers buffers(arena, kernel_, shape_, tileRowsFor(kernel_, shape_));  // whatever the tiles: scratch must rise with the threads
      if (buffers_ != nullptr) buffers_[t] = buffers;
    }
  }

  void run(const StatisticsRequest* request, AttentionStatistics* statistics) {
    const auto started = std::chrono::steady_clock::now();
    layOut();
    pack();
    throwIfStopped();
    bool dense = job_.blocks == nullptr;
    if (job_.blocks != nullptr) {
      std::memset(bits_.words, 0, static_cast<size_t>(bits_.totalWords()) * sizeof(uint64_t));
      if (wantsGate()) route();
      if (!routed_) std::memset(bits_.words, 0, static_cast<size_t>(bits_.totalWords()) * sizeof(uint64_t)), selectAll(*job_.blocks, bits_);
      dense = !routed_;
      throwIfStopped();
    }
    if (statistics != nullptr) {
      *statistics = {};
      if (job_.blocks != nullptr) describeSelection(bits_, *job_.blocks, request != nullptr ? *request : StatisticsRequest{}, *statistics);
      else statistics->headDensity.assign(static_cast<size_t>(job_.heads), 1.0f);
    }
    if (job_.probe != nullptr) probe();
    if (job_.blocks != nullptr && job_.rule.semantics == Semantics::Upstream) {
      bool nothing = true;
      for (int32_t h = 0; h < job_.heads; ++h) nothing = nothing && onlyOwnBlocks(bits_, h);
      if (nothing) selectAll(*job_.blocks, bits_), dense = true;
    }
    if (statistics != nullptr) {
      statistics->dense = dense;
      statistics->routingSeconds = secondsSince(started);
    }
    if (job_.routingOnly) return;
    const auto attending = std::chrono::steady_clock::now();
    attend();
    throwIfStopped();
    if (statistics != nullptr) statistics->attentionSeconds = secondsSince(attending);
  }

 private:
  /// Of one thread; whole cache lines.
  int64_t gateScratchBytes() const { return (kernel_.gateScratchBytes(shape_.depth(), blocks_) + 63) / 64 * 64; }
  bool gatesOfAllHeads() const { return !headWise_ || job_.probe != nullptr; }
  bool wantsGate() const { return routed_ || (job_.probe != nullptr && job_.blocks != nullptr); }
  // Bounds that need no walk over the plan: every block may waste most of a group and of a unit.
  int64_t groupBound() const { return int64_t{tokens_} / shape_.lanes + blocks_; }
  int64_t unitBound() const { return int64_t{tokens_} / kUnitKeys + blocks_; }

  int32_t blockStart(int32_t block) const { return job_.blocks != nullptr ? job_.blocks->start[size_t(block)] : block == 0 ? 0 : tokens_; }
  int32_t blockLength(int32_t block) const { return blockStart(block + 1) - blockStart(block); }
  int64_t rasterOf(int64_t position) const {
    return job_.blocks != nullptr && !job_.blocks->permutation.empty() ? job_.blocks->permutation[static_cast<size_t>(position)] : position;
  }
  const std::byte* queries(int64_t head, int64_t position) const { return q_ + head * shape_.queryBytes(tokens_) + shape_.queryBytes(position); }
  std::byte* keyGroup(int64_t head, int64_t group) const { return k_ + head * shape_.keyBytes(groupStart_[blocks_]) + shape_.keyBytes(group); }
  std::byte* valueGroup(int64_t head, int64_t group) const { return v_ + head * shape_.valueBytes(groupStart_[blocks_]) + shape_.valueBytes(group); }

  void throwIfStopped() const {
    if (broken_) throw Error(ErrorCode::NumericalFault, "attention met NaN or infinity: the weights or the latent are damaged");
    if (raised(job_.cancel)) throw Error(ErrorCode::Cancelled, "cancelled");
  }

  void layOut() {
    groupStart_[0] = unitStart_[0] = 0;
    for (int32_t c = 0; c < blocks_; ++c) {
      groupStart_[c + 1] = groupStart_[c] + (blockLength(c) + shape_.lanes - 1) / shape_.lanes;
      unitStart_[c + 1] = unitStart_[c] + (blockLength(c) + kUnitKeys - 1) / kUnitKeys;
    }
  }

  /// Norm, rotation, order and format of every token, and the sums of k behind the block means.
  void pack() {
    const int64_t dim = int64_t{job_.heads} * job_.headDim;
    if (job_.probe != nullptr)
      for (std::vector<float>* values : {&job_.probe->q, &job_.probe->k, &job_.probe->v}) values->resize(static_cast<size_t>(tokens_ * dim));
    if (!finiteWeights(job_.normQ, dim) || !finiteWeights(job_.normK, dim)) broken_ = true;
    parallelForDynamic(unitStart_[blocks_], [&](int64_t unit) {
      if (raised(job_.cancel)) return;
      const auto block = static_cast<int32_t>(std::upper_bound(unitStart_, unitStart_ + blocks_ + 1, static_cast<int32_t>(unit)) - unitStart_) - 1;
      const int32_t begin = blockStart(block) + static_cast<int32_t>(unit - unitStart_[block]) * kUnitKeys;
      const int32_t end = std::min(begin + kUnitKeys, blockStart(block + 1));
      double* sums = wantsGate() ? unitSums_ + unit * dim : nullptr;
      if (sums != nullptr) std::fill_n(sums, dim, 0.0);
      for (int32_t at = begin; at < end; at += shape_.lanes) packGroup(block, at, std::min(shape_.lanes, end - at), sums);
    });
  }

  void packGroup(int32_t block, int32_t first, int32_t count, double* sums) {
    const int64_t dim = int64_t{job_.heads} * job_.headDim;
    float* rows = rows_ + threadIndex() * shape_.lanes * dim;
    std::byte* packed = packedRows_ + threadIndex() * shape_.queryBytes(shape_.lanes);
    const int64_t group = groupStart_[block] + (first - blockStart(block)) / shape_.lanes;
    enum { kQuery, kKey, kValue };
    // Rows to come: those of the next part and the next group among them.
    const auto fetch = [&](int part, int32_t j) {
      if (j >= count) j -= count, ++part;
      int64_t position = int64_t{first} + j;
      if (part > kValue) part = kQuery, position += count;
      if (position >= tokens_) return;
      prefetchRow({part == kQuery ? job_.q : part == kKey ? job_.k : job_.v, job_.dtype, job_.rowStride, job_.heads, job_.headDim, nullptr, 0, nullptr, nullptr}, rasterOf(position));
    };
    for (const int part : {kQuery, kKey, kValue}) {
      RowSource source{part == kQuery ? job_.q : part == kKey ? job_.k : job_.v, job_.dtype, job_.rowStride, job_.heads, job_.headDim,
                       part == kQuery ? job_.normQ : part == kKey ? job_.normK : nullptr, job_.normEps, nullptr, nullptr};
      for (int32_t j = 0; j < count; ++j) {
        const int64_t raster = rasterOf(first + j);
        fetch(part, j + kRowsAhead);
        if (part != kValue && job_.ropeCos != nullptr) {
          source.cosine = job_.ropeCos + raster * (job_.headDim / 2);
          source.sine = job_.ropeSin + raster * (job_.headDim / 2);
        }
        float* row = rows + j * dim;
        if (!prepareRow(source, raster, row)) broken_.store(true, std::memory_order_relaxed);
        if (part == kKey && sums != nullptr) {
          roundThrough(shape_.element, row, dim);
          accumulate(row, sums, dim);
        }
        if (job_.probe != nullptr) {
          roundThrough(shape_.element, row, dim);
          auto& seen = part == kQuery ? job_.probe->q : part == kKey ? job_.probe->k : job_.probe->v;
          std::copy_n(row, dim, seen.begin() + (int64_t{first} + j) * dim);
        }
      }
      for (int32_t h = 0; h < job_.heads; ++h) {
        const float* head = rows + int64_t{h} * job_.headDim;
        if (part == kValue) {
          packValueGroup(shape_.element, head, dim, count, shape_.lanes, job_.headDim, shape_.valueWidth(), valueGroup(h, group));
          continue;
        }
        std::byte* to = part == kQuery ? const_cast<std::byte*>(queries(h, first)) : packed;
        for (int32_t j = 0; j < count; ++j) packRow(shape_.element, head + j * dim, job_.headDim, shape_.depth(), to + shape_.queryBytes(j));
        if (part == kKey) packKeyGroup(packed, shape_.depth(), count, shape_.lanes, shape_.depth() / shape_.step, shape_.step, keyGroup(h, group));
      }
    }
  }

  /// Block means, gates and selection. One head at a time per thread; the scopes that span heads select at the end.
  void route() {
    const BlockPlan& plan = *job_.blocks;
    const int64_t dim = int64_t{job_.heads} * job_.headDim, depth = shape_.depth();
    parallelForDynamic(blocks_, [&](int64_t c) {
      double* sum = unitSums_ + unitStart_[c] * dim;
      for (int32_t unit = unitStart_[c] + 1; unit < unitStart_[c + 1]; ++unit)
        for (int64_t i = 0; i < dim; ++i) sum[i] += unitSums_[unit * dim + i];
      for (int64_t h = 0; h < job_.heads; ++h)
        for (int64_t i = 0; i < depth; ++i)
          means_[(h * blocks_ + c) * depth + i] = i < job_.headDim ? static_cast<float>(sum[h * job_.headDim + i] / blockLength(static_cast<int32_t>(c))) : 0.0f;
    });
    if (gatesOfAllHeads()) {
      const int64_t pieces = (tokens_ + kUnitKeys - 1) / kUnitKeys;
      parallelForDynamic(job_.heads * pieces, [&](int64_t i) {
        const auto head = static_cast<int32_t>(i / pieces), from = static_cast<int32_t>(i % pieces) * kUnitKeys;
        gateRows(head, from, std::min(from + kUnitKeys, tokens_), gate_ + head * gatePlane_);
      });
      if (headWise_)
        for (int32_t h = 0; h < job_.heads; ++h) select(gate_ + h * gatePlane_, gateStride_, plan, job_.rule, h, 1, bits_, {work_, static_cast<size_t>(workFloats_)});
      else
        select(gate_, gateStride_, plan, job_.rule, 0, job_.heads, bits_, {work_, static_cast<size_t>(workFloats_)});
      return;
    }
    parallelForDynamic(job_.heads, [&](int64_t head) {
      if (raised(job_.cancel)) return;
      float* gate = gate_ + threadIndex() * gatePlane_;
      const bool measured = job_.rule.scope == SelectionScope::HeadGlobal && job_.rule.mode == SelectionMode::Threshold;
      GateExtents extents;
      for (int32_t at = 0; at < tokens_; at += kMeasuredTokens) {
        const int32_t end = std::min(at + kMeasuredTokens, tokens_);
        gateRows(static_cast<int32_t>(head), at, end, gate);
        if (measured) measureGates(gate, gateStride_, plan, at, end, extents);
      }
      select(gate, gateStride_, plan, job_.rule, static_cast<int32_t>(head), 1, bits_, {work_ + threadIndex() * workFloats_, static_cast<size_t>(workFloats_)},
             measured ? &extents : nullptr);
    });
  }

  void gateRows(int32_t head, int32_t begin, int32_t end, float* gate) const {
    const int32_t depth = shape_.depth();
    kernel_.gate({queries(head, begin), end - begin, means_ + int64_t{head} * blocks_ * depth, blocks_, depth, gate + begin, gateStride_,
                  gateScratch_ + threadIndex() * gateScratchBytes()});
  }

  void probe() const {
    if (job_.blocks == nullptr) return;
    const int64_t plane = int64_t{job_.heads} * tokens_;
    job_.probe->gate.resize(static_cast<size_t>(blocks_ * plane));
    job_.probe->selection.resize(static_cast<size_t>(blocks_ * plane));
    for (int64_t c = 0; c < blocks_; ++c)
      for (int64_t h = 0; h < job_.heads; ++h)
        for (int64_t s = 0; s < tokens_; ++s) {
          job_.probe->gate[static_cast<size_t>(c * plane + h * tokens_ + s)] = gate_[h * gatePlane_ + c * gateStride_ + s];
          job_.probe->selection[static_cast<size_t>(c * plane + h * tokens_ + s)] = bits_.at(h, c, s);
        }
  }

  void attend() {
    const int64_t tiles = (tokens_ + tileRows_ - 1) / tileRows_;
    parallelForDynamic(job_.heads * tiles, [&](int64_t task) { attendTile(task / tiles, static_cast<int32_t>(task % tiles) * tileRows_); });
  }

  void attendTile(int64_t head, int32_t first) {
    const TileBuffers& buffers = buffers_[threadIndex()];
    const int32_t count = std::min(tileRows_, tokens_ - first);
    buffers.reset(shape_, count);
    const TileJob tile = buffers.job(shape_, queries(head, first));
    int32_t visits = 0, rows = 0;
    const auto visitAll = [&] {
      kernel_.visit(tile, {buffers.visits, static_cast<size_t>(visits)});
      visits = rows = 0;
    };
    for (int32_t c = 0; c < blocks_; ++c) {
      if (raised(job_.cancel)) return;
      if (visits == TileBuffers::kMostVisits || rows + count > TileBuffers::kTilesOfRows * tileRows_) visitAll();
      const int32_t found = gatherRows(head, c, first, count, buffers.rows + rows);
      if (found > 0) buffers.visits[visits++] = {buffers.rows + rows, found, keyGroup(head, groupStart_[c]), valueGroup(head, groupStart_[c]), blockLength(c)};
      rows += found;
    }
    visitAll();
    if (!kernel_.finish(buffers.state, count, shape_.valueWidth())) broken_.store(true, std::memory_order_relaxed);
    for (int32_t r = 0; r < count; ++r)
      writeRow(buffers.state.sums + int64_t{r} * shape_.valueWidth(), job_.headDim, job_.dtype, job_.out, rasterOf(first + r) * job_.outStride + head * job_.headDim, false);
  }

  /// Rows of [first, first + count) that attend to the block, as offsets within the tile.
  int32_t gatherRows(int64_t head, int32_t block, int32_t first, int32_t count, uint16_t* rows) const {
    int32_t found = 0;
    if (job_.blocks == nullptr) {
      for (; found < count; ++found) rows[found] = static_cast<uint16_t>(found);
      return found;
    }
    const uint64_t* words = bits_.row(head, block);
    for (int32_t s = first; s < first + count;) {
      const int32_t in = s % 64, n = std::min(64 - in, first + count - s);
      uint64_t word = words[s / 64] >> in;
      if (n < 64) word &= (uint64_t{1} << n) - 1;
      for (; word != 0; word &= word - 1) rows[found++] = static_cast<uint16_t>(s - first + std::countr_zero(word));
      s += n;
    }
    return found;
  }

  const SelfAttention& job_;
  const TileKernel& kernel_;
  PackedShape shape_;
  int32_t tokens_, blocks_, tileRows_ = 0;
  bool routed_, headWise_;
  int64_t gateStride_, gatePlane_ = 0, workFloats_ = 0;
  int32_t *groupStart_, *unitStart_;  ///< [C+1] key groups and packing units before each block
  std::byte *q_, *k_, *v_, *packedRows_;
  float *rows_, *means_ = nullptr, *gate_ = nullptr, *work_ = nullptr;
  std::byte* gateScratch_ = nullptr;
  double* unitSums_ = nullptr;
  SelectionBits bits_;
  TileBuffers* buffers_ = nullptr;
  std::atomic<bool> broken_ = false;
};

}  // namespace

size_t selfAttentionScratchBytes(const SelfAttention& job, int threads) {
  Arena arena;
  const Call call(job, arena, threads);
  return arena.bytes();
}

void selfAttention(const SelfAttention& job, std::span<std::byte> scratch, const StatisticsRequest* request, AttentionStatistics* statistics) {
  Arena arena(scratch);
  Call(job, arena, threadCount()).run(request, statistics);
}

const char* instructionSet(DType dtype) { return chooseTileKernel(dtype, nullptr).name; }

}  // namespace vmoba::cpu
