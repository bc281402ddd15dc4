#include "kernels/cuda/attention/self_attention.h"
#include "kernels/cuda/elements.h"
#include "native/base/error.h"

#include <algorithm>

namespace vmoba::cuda {
namespace {

// Hands out aligned pieces of one allocation.
struct Layout {
  size_t total = 0;
  size_t take(size_t bytes) {
    const size_t at = total;
    total += (bytes + 255) / 256 * 256;
    return at;
  }
};

template <class T>
T* at(void* base, size_t offset) {
  return reinterpret_cast<T*>(static_cast<unsigned char*>(base) + offset);
}

void attendTensorCores(tile::Stream stream, const AttendJob<Bf16>& job, bool hopper, const BetweenLaunches& between) {
  hopper && job.paddedDim >= 64 ? attendHopper(stream, job, between) : attendFlash(stream, job, between);
}

template <class T>
void routeAs(tile::Stream stream, const SelfAttentionJob& job, void* scratch) {
  const SelfAttentionScratch layout = layOutScratch(job);
  const int32_t padded = paddedHeadDim(job.headDim);
  PrepareJob<T> operands{job.plan, job.heads, job.headDim, padded, job.normEps, {}, 3, job.notFinite};
  operands.part[0] = {static_cast<const T*>(job.q), job.rowStride, job.normQ, job.ropeCos, job.ropeSin, at<T>(scratch, layout.q), nullptr};
  operands.part[1] = {static_cast<const T*>(job.k), job.rowStride, job.normK, job.ropeCos, job.ropeSin, at<T>(scratch, layout.k),
                      job.sparse ? at<double>(scratch, layout.segmentSums) : nullptr};
  operands.part[2] = {static_cast<const T*>(job.v), job.rowStride, nullptr, nullptr, nullptr, at<T>(scratch, layout.v), nullptr};
  if (std::is_same_v<T, Bf16> && job.hopper) {
    auto* norms = at<uint32_t>(scratch, layout.norms);
    zeroWords(stream, norms, 2 * job.heads);
    operands.part[0].norms = norms;
    operands.part[1].norms = norms + job.heads;
  }
  prepare(stream, operands);
  if (!job.sparse) return;
  auto* means = at<float>(scratch, layout.means);
  auto* gates = at<float>(scratch, layout.gate);
  auto* selection = at<uint32_t>(scratch, layout.selection);
  auto* selected = at<uint32_t>(scratch, layout.selected);
  blockMeans(stream, job.plan, at<double>(scratch, layout.segmentSums), job.heads, padded, means);
  gate(stream, job.plan, at<T>(scratch, layout.q), means, job.heads, padded, gates);
  select(stream, {job.plan, job.heads, job.rule, gates, selection, selected, at<unsigned char>(scratch, layout.search)});
  if (job.maps) mapSelected(stream, job.plan, job.heads, selection, job.mapHead, at<uint32_t>(scratch, layout.map));
}

Packing packingOf(const SelfAttentionScratch& layout, void* scratch) {
  return {at<int32_t>(scratch, layout.order),     at<int32_t>(scratch, layout.ends),  at<int32_t>(scratch, layout.places),  at<Cell>(scratch, layout.cells),
          at<int32_t>(scratch, layout.cellFirst), at<uint8_t>(scratch, layout.ranks), at<uint32_t>(scratch, layout.counts), at<uint32_t>(scratch, layout.visitTotal)};
}

template <class T>
void attendAs(tile::Stream stream, const SelfAttentionJob& job, void* scratch, const BetweenLaunches& between) {
  const SelfAttentionScratch layout = layOutScratch(job);
  AttendJob<T> attention{};
  attention.heads = job.heads;
  attention.queries = job.plan.tokens;
  attention.headDim = job.headDim;
  attention.paddedDim = paddedHeadDim(job.headDim);
  attention.q = at<T>(scratch, layout.q);
  attention.k = at<T>(scratch, layout.k);
  attention.v = at<T>(scratch, layout.v);
  attention.keys = job.plan.tokens;
  attention.tileKeys = job.wideTiles ? job.plan.tileKeys : kHopperKeys;
  attention.scatter = job.plan.permutation;
  attention.out = static_cast<T*>(job.out);
  attention.outStride = job.outStride;
  if (job.sparse) {
    const Packing packing = packingOf(layout, scratch);
    attention.cells = packing.cells;
    attention.cellFirst = packing.cellFirst;
    attention.order = packing.order;
    attention.ends = packing.ends;
    attention.places = packing.places;
    attention.chunks = chunksOf(job.plan.blocks);
    attention.lastKeys = job.plan.lastKeys;
    attention.partials = {layout.partialHeads, at<T>(scratch, layout.partials), at<float>(scratch, layout.partialLogs)};
    attention.turns = at<HopperTurns>(scratch, layout.turns);
  }
  if constexpr (std::is_same_v<T, Bf16>) {
    if (job.hopper) attention.norms = at<uint32_t>(scratch, layout.norms);
    attendTensorCores(stream, attention, job.hopper, between);
  } else {
    attendPlain(stream, attention, between);
  }
}

template <class T>
void crossAs(tile::Stream stream, const CrossAttentionJob& job, void* scratch, const BetweenLaunches& between) {
  const int32_t padded = paddedHeadDim(job.headDim), tokens = job.queryPlan.tokens, keys = job.keyPlan.tokens;
  Layout layout;
  const size_t width = static_cast<size_t>(job.heads) * static_cast<size_t>(padded) * sizeof(T);
  T* q = at<T>(scratch, layout.take(static_cast<size_t>(tokens) * width));
  T* k = at<T>(scratch, layout.take(static_cast<size_t>(keys) * width));
  T* v = at<T>(scratch, layout.take(static_cast<size_t>(keys) * width));
  float* logSumExp = at<float>(scratch, layout.take(static_cast<size_t>(job.heads) * static_cast<size_t>(tokens) * 4));
  const bool mapped = job.keyGroup && job.groupMass && job.groups > 0;

  PrepareJob<T> operands{job.queryPlan, job.heads, job.headDim, padded, job.normEps, {}, 1, job.notFinite};
  operands.part[0] = {static_cast<const T*>(job.q), job.qStride, job.normQ, nullptr, nullptr, q, nullptr};
  prepare(stream, operands);
  operands = {job.keyPlan, job.heads, job.headDim, padded, job.normEps, {}, 2, job.notFinite};
  operands.part[0] = {static_cast<const T*>(job.k), job.kvStride, job.normK, nullptr, nullptr, k, nullptr};
  operands.part[1] = {static_cast<const T*>(job.v), job.kvStride, nullptr, nullptr, nullptr, v, nullptr};
  prepare(stream, operands);

  AttendJob<T> attention{};
  attention.heads = job.heads;
  attention.queries = tokens;
  attention.headDim = job.headDim;
  attention.paddedDim = padded;
  attention.q = q;
  attention.k = k;
  attention.v = v;
  attention.keys = keys;
  attention.tileKeys = job.wideTiles ? job.keyPlan.tileKeys : kHopperKeys;
  attention.out = static_cast<T*>(job.out);
  attention.outStride = job.outStride;
  attention.accumulate = job.accumulate;
  attention.logSumExp = mapped ? logSumExp : nullptr;
  if constexpr (std::is_same_v<T, Bf16>) {
    attendTensorCores(stream, attention, job.hopper, between);
  } else {
    attendPlain(stream, attention, between);
  }
  if (mapped) wordMaps<T>(stream, {job.heads, tokens, keys, job.headDim, padded, job.groups, q, k, logSumExp, job.keyGroup, job.groupMass});
}

}  // namespace

SelfAttentionScratch layOutScratch(const SelfAttentionJob& job) {
  const PlanView& plan = job.plan;
  const auto heads = static_cast<size_t>(job.heads), tokens = static_cast<size_t>(plan.tokens), blocks = static_cast<size_t>(plan.blocks);
  const auto padded = static_cast<size_t>(paddedHeadDim(job.headDim)), tiles = static_cast<size_t>(plan.tiles());
  const size_t operand = heads * tokens * padded * elementBytes(job.dtype);
  Layout layout;
  SelfAttentionScratch s;
  s.q = layout.take(operand);
  s.k = layout.take(operand);
  s.v = layout.take(operand);
  s.norms = layout.take(2 * heads * 4);
  if (job.sparse) {
    s.segmentSums = layout.take(static_cast<size_t>(plan.segments) * heads * padded * 8);
    s.means = layout.take(heads * blocks * padded * 4);
    s.gate = layout.take(heads * blocks * tokens * 4);
    s.selection = layout.take(heads * tokens * static_cast<size_t>(plan.words()) * 4);
    s.selected = layout.take(heads * blocks * 4);
    s.map = layout.take(job.maps ? blocks * blocks * 4 : 0);
    const auto chunks = static_cast<size_t>(chunksOf(plan.blocks)), lists = heads * chunks, listRows = tiles * kTileRows;
    s.order = layout.take(lists * listRows * 4);
    s.ends = layout.take(lists * listRows * 4);
    s.places = layout.take(lists * tokens * 4);
    s.cells = layout.take(lists * tiles * sizeof(Cell));
    s.cellFirst = layout.take((lists + 1) * 4);
    s.ranks = layout.take(lists * tokens);
    s.counts = layout.take(lists * kPatterns * static_cast<size_t>(sortBlocksOf(plan.tokens)) * 4);
    s.visitTotal = layout.take(4);
    s.turns = layout.take(sizeof(HopperTurns));
    const size_t perHead = chunks * listRows * (padded * elementBytes(job.dtype) + 4);
    s.partialHeads = inEqualParts(job.heads, static_cast<int32_t>(std::clamp<size_t>(job.partialBytes / perHead, 1, heads)));
    const size_t partialRows = chunks > 1 ? static_cast<size_t>(s.partialHeads) * chunks * listRows : 0;  // of a single chunk no row is shared
    s.partials = layout.take(partialRows * padded * elementBytes(job.dtype));
    s.partialLogs = layout.take(partialRows * 4);
    s.search = layout.take(selectionScratchBytes(plan, job.heads, job.rule));
  }
  s.total = layout.total;
  return s;
}

void route(tile::Stream stream, const SelfAttentionJob& job, void* scratch) {
  job.dtype == DType::BF16 ? routeAs<Bf16>(stream, job, scratch) : routeAs<float>(stream, job, scratch);
}

void pack(tile::Stream stream, const SelfAttentionJob& job, void* scratch) {
  if (!job.sparse) return;
  const SelfAttentionScratch layout = layOutScratch(job);
  auto* selection = at<uint32_t>(scratch, layout.selection);
  if (job.rule.semantics == Semantics::Upstream) fallBackToDense(stream, job.plan, job.heads, at<uint32_t>(scratch, layout.selected), selection);
  packRows(stream, job.plan, job.heads, selection, packingOf(layout, scratch));
}

void attend(tile::Stream stream, const SelfAttentionJob& job, void* scratch, const BetweenLaunches& between) {
  job.dtype == DType::BF16 ? attendAs<Bf16>(stream, job, scratch, between) : attendAs<float>(stream, job, scratch, between);
}

void collect(const SelfAttentionJob& job, const BlockPlan& plan, const std::vector<uint32_t>& selected, const std::vector<uint32_t>& map, uint32_t visitTotal,
             AttentionStatistics& statistics) {
  const auto heads = static_cast<size_t>(job.heads), blocks = static_cast<size_t>(plan.blocks());
  const double tokens = plan.tokens(), everyone = static_cast<double>(heads) * tokens;
  statistics.headDensity.assign(heads, 1.0f);
  if (!job.sparse) return;
  double pairs = 0, entries = 0;
  std::vector<double> received(blocks);
  for (size_t h = 0; h < heads; ++h) {
    double ofHead = 0;
    for (size_t c = 0; c < blocks; ++c) {
      const double count = selected[h * blocks + c];
      ofHead += count * plan.length(static_cast<int32_t>(c));
      received[c] += count;
      entries += count;
    }
    statistics.headDensity[h] = static_cast<float>(ofHead / tokens / tokens);
    pairs += ofHead;
  }
  statistics.density = pairs / (everyone * tokens);
  statistics.dense = job.rule.semantics == Semantics::Upstream && entries == everyone;
  statistics.meanSelectedBlocks = entries / everyone;
  statistics.meanTileUnionBlocks = static_cast<double>(visitTotal) * kTileRows / everyone;
  statistics.blockReceived.clear();
  statistics.selectionMap.clear();
  if (!job.maps) return;
  for (const double count : received) statistics.blockReceived.push_back(static_cast<float>(count / everyone));
  const double mapHeads = job.mapHead < 0 ? static_cast<double>(heads) : 1;
  for (size_t r = 0; r < blocks; ++r)
    for (size_t c = 0; c < blocks; ++c)
      statistics.selectionMap.push_back(static_cast<float>(map[r * blocks + c] / mapHeads / plan.length(static_cast<int32_t>(r))));
}

void collectProbe(const SelfAttentionJob& job, const std::vector<float>& gates, const std::vector<uint32_t>& selection, const std::vector<std::byte>& q,
                  const std::vector<std::byte>& k, const std::vector<std::byte>& v, AttentionProbe& probe) {
  const auto heads = static_cast<size_t>(job.heads), tokens = static_cast<size_t>(job.plan.tokens), blocks = static_cast<size_t>(job.plan.blocks);
  const auto dim = static_cast<size_t>(job.headDim), padded = static_cast<size_t>(paddedHeadDim(job.headDim)), words = static_cast<size_t>(job.plan.words());
  const auto unpack = [&](const std::vector<std::byte>& from) {
    std::vector<float> to(tokens * heads * dim);
    for (size_t h = 0; h < heads; ++h)
      for (size_t s = 0; s < tokens; ++s)
        for (size_t i = 0; i < dim; ++i) {
          const size_t at = (h * tokens + s) * padded + i;
          to[(s * heads + h) * dim + i] = job.dtype == DType::BF16 ? vmoba::toFloat(reinterpret_cast<const Bf16*>(from.data())[at]) : reinterpret_cast<const float*>(from.data())[at];
        }
    return to;
  };
  probe.q = unpack(q);
  probe.k = unpack(k);
  probe.v = unpack(v);
  if (!job.sparse) return;
  probe.gate.resize(blocks * heads * tokens);
  probe.selection.resize(probe.gate.size());
  for (size_t h = 0; h < heads; ++h)
    for (size_t c = 0; c < blocks; ++c)
      for (size_t s = 0; s < tokens; ++s) {
        const size_t to = (c * heads + h) * tokens + s;
        probe.gate[to] = gates[(h * blocks + c) * tokens + s];
        probe.selection[to] = selection[(h * tokens + s) * words + c / 32] >> (c % 32) & 1u;
      }
}

size_t crossAttentionScratchBytes(const CrossAttentionJob& job) {
  const auto width = static_cast<size_t>(job.heads) * static_cast<size_t>(paddedHeadDim(job.headDim)) * elementBytes(job.dtype);
  const auto tokens = static_cast<size_t>(job.queryPlan.tokens), keys = static_cast<size_t>(job.keyPlan.tokens);
  Layout layout;
  layout.take(tokens * width);
  layout.take(keys * width);
  layout.take(keys * width);
  layout.take(static_cast<size_t>(job.heads) * tokens * 4);
  return layout.total;
}

void crossAttention(tile::Stream stream, const CrossAttentionJob& job, void* scratch, const BetweenLaunches& between) {
  job.dtype == DType::BF16 ? crossAs<Bf16>(stream, job, scratch, between) : crossAs<float>(stream, job, scratch, between);
}

}  // namespace vmoba::cuda
