// Attention of the device: routing (norm, RoPE, permutation, block means, gate, selection, packing) and the fused pass, with the
// statistics that come out of them.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention/self_attention.h"
#include "native/backends/cuda/device_backend.h"
#include "native/base/error.h"

namespace vmoba::cuda {
namespace {

constexpr size_t kKeptPlans = 8;

template <class T>
T* as(const Tensor& tensor) {
  return reinterpret_cast<T*>(tensor.address);
}
const float* floatsOrNull(const Tensor& tensor) { return tensor ? reinterpret_cast<const float*>(tensor.address) : nullptr; }

int32_t checkedHeadDim(int64_t dim, int32_t heads) {
  const int64_t headDim = dim / heads;
  if (headDim > 128 || headDim % 2 != 0)
    throw Error(ErrorCode::Unsupported, "attention heads of " + std::to_string(headDim) + " channels are not supported on the GPU (even, at most 128); use the CPU");
  return static_cast<int32_t>(headDim);
}

bool samePlan(const BlockPlan& a, const BlockPlan& b) {
  return a.grid == b.grid && a.start == b.start && a.sequenceStart == b.sequenceStart && a.permutation == b.permutation;
}

}  // namespace

const DeviceBackend::DevicePlan& DeviceBackend::planOn(const BlockPlan* blocks, int32_t tokens) {
  BlockPlan wanted;
  if (blocks != nullptr) {
    wanted = *blocks;
  } else {
    wanted.start = {0, tokens};
  }
  const auto known = std::find_if(plans_.begin(), plans_.end(), [&](const DevicePlan& plan) { return samePlan(plan.host, wanted); });
  if (known != plans_.end()) return *known;
  const PlanUpload layout = blocks != nullptr ? layOut(*blocks) : layOutDense(tokens);
  DevicePlan plan{std::move(wanted), uploaded<int32_t>(DType::I32, layout.data), {}};
  plan.view = layout.view(as<int32_t>(plan.data));
  if (plans_.size() >= kKeptPlans) plans_.pop_front();
  plans_.push_back(std::move(plan));
  return plans_.back();
}

/// `count` elements of scratch memory from byte `offset` on.
template <class T>
std::vector<T> DeviceBackend::hostValues(const Tensor& scratch, size_t offset, size_t count) {
  Tensor part = scratch;
  part.address += offset;
  part.dtype = DType::U8;
  part.shape = {static_cast<int64_t>(count * sizeof(T))};
  std::vector<T> values(count);
  download(part, values.data());
  return values;
}

void DeviceBackend::selfAttention(const SelfAttentionOp& op) {
  const int64_t dim = op.qkv.shape[1] / 3;
  const size_t slice = static_cast<size_t>(dim) * elementBytes(op.qkv.dtype);
  const DevicePlan plan = planOn(op.blocks, static_cast<int32_t>(op.qkv.shape[0]));  // a copy: it shares the memory, and the cache may drop its own
  SelfAttentionJob job;
  job.dtype = op.qkv.dtype;
  job.plan = plan.view;
  job.sparse = op.blocks != nullptr;
  job.rule = op.rule;
  job.heads = op.heads;
  job.headDim = checkedHeadDim(dim, op.heads);
  job.q = op.qkv.address;
  job.k = op.qkv.address + slice;
  job.v = op.qkv.address + 2 * slice;
  job.rowStride = 3 * dim;
  job.normQ = floatsOrNull(op.normQ);
  job.normK = floatsOrNull(op.normK);
  job.normEps = op.normEps;
  job.ropeCos = floatsOrNull(op.ropeCos);
  job.ropeSin = floatsOrNull(op.ropeSin);
  job.out = op.out.address;
  job.outStride = dim;
  job.notFinite = as<uint32_t>(notFinite_);
  job.maps = op.statistics != nullptr && op.request.maps;
  job.mapHead = op.request.mapHead;
  job.hopper = hopper_;
  job.wideTiles = wideTiles_;
  job.partialBytes = partialResultBytes(pool_->limitBytes());

  const SelfAttentionScratch layout = layOutScratch(job);
  const Tensor scratch = allocate(DType::U8, {static_cast<int64_t>(layout.total)});
  const auto heads = static_cast<size_t>(job.heads), tokens = static_cast<size_t>(job.plan.tokens), blocks = static_cast<size_t>(job.plan.blocks);
  const double bytes = 2.0 * static_cast<double>(layout.total);
  timeline_.begin(Kind::Routing);
  const auto started = timeline_.mark();
  run(Kind::Routing, "routing", job.sparse ? 2.0 * static_cast<double>(tokens * blocks) * static_cast<double>(dim) : 0, bytes,
      [&](tile::Stream stream) { route(stream, job, scratch.address); });
  if (op.probe != nullptr) {
    const size_t operand = heads * tokens * static_cast<size_t>(paddedHeadDim(job.headDim)) * elementBytes(job.dtype);
    const auto values = [&](size_t offset) { return hostValues<std::byte>(scratch, offset, operand); };
    collectProbe(job, hostValues<float>(scratch, layout.gate, job.sparse ? heads * blocks * tokens : 0),
                 hostValues<uint32_t>(scratch, layout.selection, job.sparse ? heads * tokens * static_cast<size_t>(job.plan.words()) : 0), values(layout.q),
                 values(layout.k), values(layout.v), *op.probe);
  }
  run(Kind::Routing, "packing queries", 0, 0, [&](tile::Stream stream) { pack(stream, job, scratch.address); });
  timeline_.begin(Kind::Attention);
  const auto routed = timeline_.mark();
  run(Kind::Attention, "attention", 4.0 * static_cast<double>(tokens) * static_cast<double>(tokens) * static_cast<double>(dim), bytes,
      [&](tile::Stream stream) { attend(stream, job, scratch.address, [&] { poll(); }); });
  timeline_.begin(Kind::Other);
  const auto ended = timeline_.mark();

  if (op.statistics == nullptr) return;
  AttentionStatistics* statistics = op.statistics;
  *statistics = {};
  // The counts outlive the scratch, whose memory is needed again by the next layer.
  const auto kept = [&](size_t offset, size_t count) {
    Tensor part = scratch;
    part.address += offset;
    part.dtype = DType::I32;
    part.shape = {static_cast<int64_t>(count)};
    const Tensor own = allocate(DType::I32, {static_cast<int64_t>(std::max<size_t>(1, count))});
    if (count > 0) runtime_->copyOnDevice(StreamId::Compute, own.address, part.address, part.bytes());
    return own;
  };
  const size_t selectedCount = job.sparse ? heads * blocks : 0, mapCount = job.sparse && job.maps ? blocks * blocks : 0;
  const Tensor selected = kept(layout.selected, selectedCount), map = kept(layout.map, mapCount), visits = kept(layout.visitTotal, job.sparse ? 1 : 0);
  afterWork_.push_back([=, this, host = plan.host] {
    collect(job, host, hostValues<uint32_t>(selected, 0, selectedCount), hostValues<uint32_t>(map, 0, mapCount), job.sparse ? hostValues<uint32_t>(visits, 0, 1).front() : 0, *statistics);
    statistics->routingSeconds = runtime_->secondsBetween(*started, *routed);
    statistics->attentionSeconds = runtime_->secondsBetween(*routed, *ended);
  });
}

void DeviceBackend::crossAttention(const CrossAttentionOp& op) {
  const int64_t dim = op.q.shape[1];
  const Tensor groupOf = op.keyGroup.empty() ? Tensor{} : uploaded<int32_t>(DType::I32, op.keyGroup);
  CrossAttentionJob job;
  job.dtype = op.q.dtype;
  const DevicePlan queries = planOn(nullptr, static_cast<int32_t>(op.q.shape[0])), keys = planOn(nullptr, static_cast<int32_t>(op.kv.shape[0]));
  job.queryPlan = queries.view;
  job.keyPlan = keys.view;
  job.heads = op.heads;
  job.headDim = checkedHeadDim(dim, op.heads);
  job.q = op.q.address;
  job.qStride = dim;
  job.k = op.kv.address;
  job.v = op.kv.address + static_cast<size_t>(dim) * elementBytes(op.kv.dtype);
  job.kvStride = 2 * dim;
  job.normQ = floatsOrNull(op.normQ);
  job.normK = floatsOrNull(op.normK);
  job.normEps = op.normEps;
  job.out = op.out.address;
  job.outStride = dim;
  job.accumulate = op.accumulate;
  job.keyGroup = groupOf ? as<const int32_t>(groupOf) : nullptr;
  job.groups = op.groups;
  job.hopper = hopper_;
  job.wideTiles = wideTiles_;
  job.groupMass = op.groupMass ? as<float>(op.groupMass) : nullptr;
  job.notFinite = as<uint32_t>(notFinite_);
  const Tensor scratch = allocate(DType::U8, {static_cast<int64_t>(crossAttentionScratchBytes(job))});
  run(Kind::Attention, "cross attention", 4.0 * static_cast<double>(op.q.shape[0] * op.kv.shape[0]) * static_cast<double>(dim), 4 * static_cast<double>(op.q.bytes()),
      [&](tile::Stream stream) { cuda::crossAttention(stream, job, scratch.address, [&] { poll(); }); });
}

void DeviceBackend::biasedAttention(const Tensor& qkv, int32_t heads, const Tensor& bias, std::span<const int32_t> bucketOfDistance,
                                    std::span<const uint8_t> keyMask, const Tensor& out) {
  const int64_t inner = qkv.shape[1] / 3, d = inner / heads;
  const Tensor buckets = uploaded<int32_t>(DType::I32, bucketOfDistance);
  const Tensor mask = keyMask.empty() ? Tensor{} : uploaded<uint8_t>(DType::U8, keyMask);
  const auto of = [&]<class T>(T*) {
    RowAttention<T> job;
    job.heads = heads;
    job.tokens = static_cast<int32_t>(qkv.shape[0]);
    job.dim = static_cast<int32_t>(d);
    job.q = as<const T>(qkv);
    job.k = job.q + inner;
    job.v = job.q + 2 * inner;
    job.rowStride = 3 * inner;
    job.headStride = d;
    job.out = as<T>(out);
    job.outRowStride = inner;
    job.outHeadStride = d;
    job.bias = as<const float>(bias);
    job.bucketOfDistance = as<const int32_t>(buckets);
    job.keyMask = mask ? as<const uint8_t>(mask) : nullptr;
    run(Kind::Attention, "text attention", 4.0 * job.tokens * job.tokens * static_cast<double>(inner), static_cast<double>(qkv.bytes()),
        [&](tile::Stream stream) { attendRows(stream, job, [&] { poll(); }); });
  };
  qkv.dtype == DType::BF16 ? of(static_cast<Bf16*>(nullptr)) : of(static_cast<float*>(nullptr));
}

void DeviceBackend::frameAttention(const Tensor& qkv, const Tensor& out) {
  const int64_t positions = qkv.shape[1] * qkv.shape[2], channels = qkv.shape[3] / 3;
  const auto of = [&]<class T>(T*) {
    RowAttention<T> job;
    job.heads = static_cast<int32_t>(qkv.shape[0]);  // frames attend apart, as heads do
    job.tokens = static_cast<int32_t>(positions);
    job.dim = static_cast<int32_t>(channels);
    job.q = as<const T>(qkv);
    job.k = job.q + channels;
    job.v = job.q + 2 * channels;
    job.rowStride = 3 * channels;
    job.headStride = positions * 3 * channels;
    job.out = as<T>(out);
    job.outRowStride = channels;
    job.outHeadStride = positions * channels;
    job.scale = 1.0f / std::sqrt(static_cast<float>(channels));
    const double flops = 4.0 * static_cast<double>(positions) * static_cast<double>(positions) * static_cast<double>(channels * qkv.shape[0]);
    run(Kind::Attention, "attention over frames", flops, static_cast<double>(qkv.bytes()), [&](tile::Stream stream) { attendRows(stream, job, [&] { poll(); }); });
  };
  qkv.dtype == DType::BF16 ? of(static_cast<Bf16*>(nullptr)) : of(static_cast<float*>(nullptr));
}

}  // namespace vmoba::cuda
