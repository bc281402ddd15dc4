// Attention of the device: routing (norm, RoPE, permutation, block means, gate, selection, packing) and the fused pass, with the
// statistics that come out of them.
#include <algorithm>
#include <cmath>

#include "kernels/cuda/attention/attend.h"
#include "kernels/cuda/attention/packing.h"
#include "kernels/cuda/attention/prepare.h"
#include "kernels/cuda/attention/selection.h"
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

int32_t paddedDim(int64_t headDim) {
  if (headDim > 128 || headDim % 2 != 0)
    throw Error(ErrorCode::Unsupported, "attention heads of " + std::to_string(headDim) + " channels are not supported on the GPU (even, at most 128); use the CPU");
  return paddedHeadDim(static_cast<int>(headDim));
}

bool samePlan(const BlockPlan& a, const BlockPlan& b) {
  return a.grid == b.grid && a.start == b.start && a.sequenceStart == b.sequenceStart && a.permutation == b.permutation;
}

template <class T>
void attend(tile::Stream stream, const AttendJob<T>& job, const BetweenLaunches& between) {
  if constexpr (sizeof(T) == 2) {
    attendFlash(stream, job, between);
  } else {
    attendPlain(stream, job, between);
  }
}

/// [A, B, C] -> [B, A, C]
template <class T>
std::vector<T> swapLeading(const T* from, int64_t a, int64_t b, int64_t c) {
  std::vector<T> to(static_cast<size_t>(a * b * c));
  for (int64_t i = 0; i < a; ++i)
    for (int64_t j = 0; j < b; ++j) std::copy_n(from + (i * b + j) * c, c, to.begin() + (j * a + i) * c);
  return to;
}

/// Prepared operand [heads, tokens, padded] -> f32 [tokens, heads, headDim]
template <class T>
std::vector<float> probed(const std::vector<std::byte>& bytes, int64_t heads, int64_t tokens, int64_t padded, int64_t headDim) {
  const auto* from = reinterpret_cast<const T*>(bytes.data());
  std::vector<float> to(static_cast<size_t>(tokens * heads * headDim));
  for (int64_t h = 0; h < heads; ++h)
    for (int64_t s = 0; s < tokens; ++s)
      for (int64_t i = 0; i < headDim; ++i) {
        const T value = from[(h * tokens + s) * padded + i];
        float& place = to[static_cast<size_t>((s * heads + h) * headDim + i)];
        if constexpr (sizeof(T) == 2) {
          place = vmoba::toFloat(value);
        } else {
          place = value;
        }
      }
  return to;
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

void DeviceBackend::selfAttention(const SelfAttentionOp& op) {
  op.qkv.dtype == DType::BF16 ? selfAttentionOf<Bf16>(op) : selfAttentionOf<float>(op);
}

template <class T>
void DeviceBackend::selfAttentionOf(const SelfAttentionOp& op) {
  const auto tokens = static_cast<int32_t>(op.qkv.shape[0]), heads = op.heads;
  const int64_t dim = op.qkv.shape[1] / 3, headDim = dim / heads, padded = paddedDim(headDim);
  const DType type = op.qkv.dtype;
  const DevicePlan devicePlan = planOn(op.blocks, tokens);  // a copy: it shares the memory, and the cache may drop its own
  const PlanView& plan = devicePlan.view;
  const bool sparse = op.blocks != nullptr;
  const int64_t blocks = plan.blocks, h = heads, s = tokens;
  const double operandBytes = 3.0 * static_cast<double>(s * dim) * static_cast<double>(elementBytes(type));

  const auto scratch = [&](DType dtype, int64_t elements) { return allocate(dtype, {std::max<int64_t>(1, elements)}); };
  timeline_.begin(Kind::Routing);
  const auto started = timeline_.mark();

  // Operands -------------------------------------------------------------------------------------------------------
  const Tensor q = scratch(type, h * s * padded), k = scratch(type, h * s * padded), v = scratch(type, h * s * padded);
  const Tensor sums = sparse ? scratch(DType::F64, plan.segments * h * padded) : Tensor{};
  PrepareJob<T> prepared;
  prepared.plan = plan;
  prepared.heads = heads;
  prepared.headDim = static_cast<int32_t>(headDim);
  prepared.paddedDim = static_cast<int32_t>(padded);
  prepared.eps = op.normEps;
  prepared.parts = 3;
  prepared.notFinite = as<uint32_t>(notFinite_);
  const Tensor* outputs[] = {&q, &k, &v};
  for (int part = 0; part < 3; ++part) {
    Projection<T>& projection = prepared.part[part];
    projection.source = as<const T>(op.qkv) + part * dim;
    projection.rowStride = 3 * dim;
    projection.out = as<T>(*outputs[part]);
    if (part == 2) continue;
    projection.norm = floatsOrNull(part == 0 ? op.normQ : op.normK);
    projection.ropeCos = floatsOrNull(op.ropeCos);
    projection.ropeSin = floatsOrNull(op.ropeSin);
  }
  if (sparse) prepared.part[1].segmentSums = as<double>(sums);
  run(Kind::Routing, "preparing attention", 0, 2 * operandBytes, [&](tile::Stream stream) { prepare(stream, prepared); });
  if (op.probe != nullptr) {
    op.probe->q = probed<T>(hostBytes(q), h, s, padded, headDim);
    op.probe->k = probed<T>(hostBytes(k), h, s, padded, headDim);
    op.probe->v = probed<T>(hostBytes(v), h, s, padded, headDim);
  }

  AttendJob<T> job;
  job.heads = heads;
  job.queries = tokens;
  job.headDim = static_cast<int32_t>(headDim);
  job.paddedDim = static_cast<int32_t>(padded);
  job.q = as<const T>(q);
  job.k = as<const T>(k);
  job.v = as<const T>(v);
  job.keys.count = tokens;
  job.scatter = plan.permutation;
  job.out = as<T>(op.out);
  job.outStride = dim;

  // Which blocks each query attends to ---------------------------------------------------------------------------------
  Tensor gates, selection, counts, map, order, visits, visitCounts, totalVisits;
  if (sparse) {
    const Tensor means = scratch(DType::F32, h * blocks * padded);
    gates = scratch(DType::F32, h * blocks * s);
    selection = scratch(DType::I32, h * s * plan.words());
    counts = scratch(DType::I32, h * blocks);
    if (op.statistics != nullptr && op.request.maps) map = scratch(DType::I32, blocks * blocks);
    SelectionJob selecting{plan, heads, op.rule, as<const float>(gates), as<uint32_t>(selection), nullptr};
    const Tensor selectionScratch = scratch(DType::U8, static_cast<int64_t>(selectionScratchBytes(plan, heads, op.rule)));
    selecting.scratch = selectionScratch.address;
    run(Kind::Routing, "routing", 2.0 * static_cast<double>(h * s * blocks * headDim), 3.0 * static_cast<double>(h * s * blocks) * 4, [&](tile::Stream stream) {
      blockMeans(stream, plan, as<const double>(sums), heads, static_cast<int32_t>(padded), as<float>(means));
      gate<T>(stream, plan, as<const T>(q), as<const float>(means), heads, static_cast<int32_t>(padded), as<float>(gates));
      select(stream, selecting);
      countSelected(stream, plan, heads, as<const uint32_t>(selection), as<uint32_t>(counts), op.request.mapHead, map ? as<uint32_t>(map) : nullptr);
    });
    if (op.probe != nullptr) {
      const auto gateBytes = hostBytes(gates), bits = hostBytes(selection);
      op.probe->gate = swapLeading(reinterpret_cast<const float*>(gateBytes.data()), h, blocks, s);
      op.probe->selection.assign(static_cast<size_t>(blocks * h * s), 0);
      const auto* words = reinterpret_cast<const uint32_t*>(bits.data());
      for (int64_t c = 0; c < blocks; ++c)
        for (int64_t i = 0; i < h * s; ++i) op.probe->selection[static_cast<size_t>(c * h * s + i)] = (words[i * plan.words() + c / 32] >> (c % 32)) & 1u;
    }

    const Tensor sortKeys = scratch(DType::I64, h * 2 * s);
    order = scratch(DType::I32, h * plan.tiles() * kTileRows);
    visits = scratch(DType::U8, h * plan.tiles() * blocks * static_cast<int64_t>(sizeof(Visit)));
    visitCounts = scratch(DType::I32, h * plan.tiles());
    totalVisits = scratch(DType::I32, 1);
    zero(totalVisits);
    const Packing packing{as<int32_t>(order), as<Visit>(visits), as<int32_t>(visitCounts), as<uint32_t>(totalVisits)};
    run(Kind::Routing, "packing queries", 0, 8.0 * static_cast<double>(h * s * plan.words()) * 4, [&](tile::Stream stream) {
      if (op.rule.semantics == Semantics::Upstream) fallBackToDense(stream, plan, heads, as<const uint32_t>(counts), as<uint32_t>(selection));
      orderRows(stream, plan, heads, as<const uint32_t>(selection), as<uint64_t>(sortKeys), packing.order);
      buildVisits(stream, plan, heads, as<const uint32_t>(selection), packing);
    });
    job.keys.start = plan.start;
    job.keys.blocks = plan.blocks;
    job.keys.visits = packing.visits;
    job.keys.visitCounts = packing.visitCounts;
    job.order = packing.order;
  }

  // The pass -----------------------------------------------------------------------------------------------------------
  timeline_.begin(Kind::Attention);
  const auto routed = timeline_.mark();
  run(Kind::Attention, "attention", 4.0 * static_cast<double>(s) * static_cast<double>(s) * static_cast<double>(dim), operandBytes,
      [&](tile::Stream stream) { attend(stream, job, [&] { poll(); }); });
  timeline_.begin(Kind::Other);
  const auto ended = timeline_.mark();

  if (op.statistics == nullptr) return;
  AttentionStatistics* statistics = op.statistics;
  *statistics = {};
  statistics->headDensity.assign(static_cast<size_t>(h), 1.0f);
  afterWork_.push_back([=, this, host = devicePlan.host, request = op.request] {
    statistics->routingSeconds = runtime_->secondsBetween(*started, *routed);
    statistics->attentionSeconds = runtime_->secondsBetween(*routed, *ended);
    if (!sparse) return;
    statistics->dense = false;
    const auto selectedBytes = hostBytes(counts);
    const auto* selected = reinterpret_cast<const uint32_t*>(selectedBytes.data());
    double pairs = 0, all = 0;
    statistics->blockReceived.clear();
    for (int64_t head = 0; head < h; ++head) {
      double attended = 0;
      for (int64_t c = 0; c < blocks; ++c) {
        const double queries = selected[head * blocks + c];
        attended += queries * host.length(static_cast<int32_t>(c));
        all += queries;
      }
      pairs += attended;
      statistics->headDensity[static_cast<size_t>(head)] = static_cast<float>(attended / (static_cast<double>(s) * static_cast<double>(s)));
    }
    statistics->density = pairs / (static_cast<double>(h) * static_cast<double>(s) * static_cast<double>(s));
    statistics->meanSelectedBlocks = all / static_cast<double>(h * s);
    uint32_t visited = 0;
    download(totalVisits, &visited);
    statistics->meanTileUnionBlocks = static_cast<double>(visited) / static_cast<double>(h * plan.tiles());
    if (!map) return;
    for (int64_t c = 0; c < blocks; ++c) {
      double received = 0;
      for (int64_t head = 0; head < h; ++head) received += selected[head * blocks + c];
      statistics->blockReceived.push_back(static_cast<float>(received / static_cast<double>(h * s)));
    }
    const auto mapBytes = hostBytes(map);
    const auto* chosen = reinterpret_cast<const uint32_t*>(mapBytes.data());
    for (int64_t row = 0; row < blocks; ++row) {
      const double queries = static_cast<double>(host.length(static_cast<int32_t>(row))) * static_cast<double>(request.mapHead < 0 ? h : 1);
      for (int64_t c = 0; c < blocks; ++c) statistics->selectionMap.push_back(static_cast<float>(chosen[row * blocks + c] / queries));
    }
  });
}

void DeviceBackend::crossAttention(const CrossAttentionOp& op) { op.q.dtype == DType::BF16 ? crossAttentionOf<Bf16>(op) : crossAttentionOf<float>(op); }

template <class T>
void DeviceBackend::crossAttentionOf(const CrossAttentionOp& op) {
  const auto queries = static_cast<int32_t>(op.q.shape[0]), keys = static_cast<int32_t>(op.kv.shape[0]), heads = op.heads;
  const int64_t dim = op.q.shape[1], headDim = dim / heads, padded = paddedDim(headDim), h = heads;
  const DType type = op.q.dtype;
  const auto operand = [&](int64_t rows) { return allocate(type, {h * rows * padded}); };
  const Tensor q = operand(queries), k = operand(keys), v = operand(keys);

  PrepareJob<T> forQueries;
  forQueries.plan = planOn(nullptr, queries).view;
  forQueries.heads = heads;
  forQueries.headDim = static_cast<int32_t>(headDim);
  forQueries.paddedDim = static_cast<int32_t>(padded);
  forQueries.eps = op.normEps;
  forQueries.notFinite = as<uint32_t>(notFinite_);
  PrepareJob<T> forKeys = forQueries;
  forQueries.parts = 1;
  forQueries.part[0] = {as<const T>(op.q), dim, floatsOrNull(op.normQ), nullptr, nullptr, as<T>(q), nullptr};
  forKeys.plan = planOn(nullptr, keys).view;
  forKeys.parts = 2;
  forKeys.part[0] = {as<const T>(op.kv), 2 * dim, floatsOrNull(op.normK), nullptr, nullptr, as<T>(k), nullptr};
  forKeys.part[1] = {as<const T>(op.kv) + dim, 2 * dim, nullptr, nullptr, nullptr, as<T>(v), nullptr};

  AttendJob<T> job;
  job.heads = heads;
  job.queries = queries;
  job.headDim = static_cast<int32_t>(headDim);
  job.paddedDim = static_cast<int32_t>(padded);
  job.q = as<const T>(q);
  job.k = as<const T>(k);
  job.v = as<const T>(v);
  job.keys.count = keys;
  job.out = as<T>(op.out);
  job.outStride = dim;
  job.accumulate = op.accumulate;
  const bool words = op.groupMass && !op.keyGroup.empty() && op.groups > 0;
  const Tensor logSumExp = words ? allocate(DType::F32, {h * queries}) : Tensor{};
  if (words) job.logSumExp = as<float>(logSumExp);
  const double flops = 4.0 * static_cast<double>(queries) * keys * static_cast<double>(dim);
  run(Kind::Attention, "cross attention", flops, 4 * static_cast<double>(op.q.bytes()), [&](tile::Stream stream) {
    prepare(stream, forQueries);
    prepare(stream, forKeys);
    attend(stream, job, [&] { poll(); });
  });
  if (!words) return;
  const Tensor groupOf = uploaded<int32_t>(DType::I32, op.keyGroup);
  WordMapJob<T> maps;
  maps.heads = heads;
  maps.queries = queries;
  maps.keys = keys;
  maps.headDim = job.headDim;
  maps.paddedDim = job.paddedDim;
  maps.groups = op.groups;
  maps.q = job.q;
  maps.k = job.k;
  maps.logSumExp = job.logSumExp;
  maps.keyGroup = as<const int32_t>(groupOf);
  maps.groupMass = as<float>(op.groupMass);
  run(Kind::Attention, "word maps", flops / 2, static_cast<double>(op.q.bytes()), [&](tile::Stream stream) { wordMaps(stream, maps); });
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
