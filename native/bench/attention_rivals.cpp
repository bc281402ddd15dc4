#include "native/bench/attention_rivals.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <memory>
#include <numeric>

#include "kernels/cpu/clones.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/packed.h"
#include "native/backends/backend.h"
#include "native/base/large_memory.h"
#include "native/base/parallel.h"
#include "native/bench/bench_options.h"
#include "native/engine/noise.h"
#ifdef VMOBA_BENCH_ONEDNN
#include <dnnl.hpp>
#endif

namespace vmoba {
namespace {

/// One attention call over a fixed set of keys: out [n, D] and log-sum-exp [n] of `n` query rows of packed elements.
class AttentionCall {
 public:
  virtual ~AttentionCall() = default;
  virtual void setKeys(const float* k, const float* v, int64_t rowStride, int32_t keys) = 0;
  virtual void attend(const std::byte* queries, int64_t n, float* out, float* logSumExp) = 0;
};

class TileCall final : public AttentionCall {
 public:
  explicit TileCall(const RivalInputs& in)
      : kernel_(cpu::chooseTileKernel(in.dtype, in.instructionSet)), shape_{1, in.headDim, in.headDim, kernel_.lanes, kernel_.step, kernel_.element}, tileRows_(cpu::tileRowsFor(kernel_, shape_)) {
    cpu::Arena sizes;
    for (int t = 0; t < threadCount(); ++t) cpu::TileBuffers(sizes, kernel_, shape_, tileRows_);
    scratch_.resize(sizes.bytes());
    cpu::Arena arena(scratch_);
    for (int t = 0; t < threadCount(); ++t) {
      buffers_.emplace_back(arena, kernel_, shape_, tileRows_);
      for (int32_t r = 0; r < tileRows_; ++r) buffers_.back().rows[r] = static_cast<uint16_t>(r);
    }
  }
  void setKeys(const float* k, const float* v, int64_t rowStride, int32_t keys) override {
    keys_ = keys;
    const int32_t groups = (keys + shape_.lanes - 1) / shape_.lanes;
    k_.resize(static_cast<size_t>(shape_.keyBytes(groups)));
    v_.resize(static_cast<size_t>(shape_.valueBytes(groups)));
    parallelForDynamic(groups, [&](int64_t g) {
      std::vector<std::byte> rows(static_cast<size_t>(shape_.queryBytes(shape_.lanes)));
      const int32_t first = static_cast<int32_t>(g) * shape_.lanes, count = std::min(shape_.lanes, keys - first);
      for (int32_t j = 0; j < count; ++j) cpu::packRow(shape_.element, k + (first + j) * rowStride, shape_.headDim, shape_.depth(), rows.data() + shape_.queryBytes(j));
      cpu::packKeyGroup(rows.data(), shape_.depth(), count, shape_.lanes, shape_.depth() / shape_.step, shape_.step, k_.data() + shape_.keyBytes(g));
      cpu::packValueGroup(shape_.element, v + first * rowStride, rowStride, count, shape_.lanes, shape_.headDim, shape_.valueWidth(), v_.data() + shape_.valueBytes(g));
    });
  }
  void attend(const std::byte* queries, int64_t n, float* out, float* logSumExp) override {
    parallelForDynamic((n + tileRows_ - 1) / tileRows_, [&](int64_t tile) {
      const cpu::TileBuffers& b = buffers_[static_cast<size_t>(threadIndex())];
      const int64_t first = tile * tileRows_;
      const auto count = static_cast<int32_t>(std::min<int64_t>(tileRows_, n - first));
      b.reset(shape_, count);
      const cpu::TileVisit visit{b.rows, count, k_.data(), v_.data(), keys_};
      kernel_.visit(b.job(shape_, queries + shape_.queryBytes(first)), {&visit, 1});
      kernel_.finish(b.state, count, shape_.valueWidth());
      for (int32_t r = 0; r < count; ++r) {
        const float* denominators = b.state.denominator + int64_t{r} * shape_.lanes;
        logSumExp[first + r] = b.state.exponent[r] + std::log2(std::accumulate(denominators, denominators + shape_.lanes, 0.0f));
        std::copy_n(b.state.sums + int64_t{r} * shape_.valueWidth(), shape_.headDim, out + (first + r) * shape_.headDim);
      }
    });
  }

 private:
  const cpu::TileKernel& kernel_;
  cpu::PackedShape shape_;
  int32_t tileRows_, keys_ = 0;
  std::vector<std::byte> scratch_, k_, v_;
  std::vector<cpu::TileBuffers> buffers_;
};

#ifdef VMOBA_BENCH_ONEDNN
using dnnl::memory;

/// In place, normalised; returns the base-2 log-sum-exp.
VMOBA_CLONES float softmaxRow(float* row, int64_t n, float scale) {
  float most[16], total[16] = {};
  for (float& lane : most) lane = -__builtin_inff();
  int64_t at = 0;
  for (; at + 16 <= n; at += 16)
    for (int64_t j = 0; j < 16; ++j) most[j] = row[at + j] > most[j] ? row[at + j] : most[j];
  for (; at < n; ++at) most[0] = std::max(most[0], row[at]);
  const float largest = *std::max_element(most, most + 16), factor = scale * 1.44269504f, offset = largest * factor;
  for (int64_t i = 0; i < n; ++i) {
    const float x = std::max(row[i] * factor - offset, -126.0f), whole = static_cast<float>(static_cast<int32_t>(x - 0.5f)), f = x - whole;
    const float p = 1 + f * (0.6931472f + f * (0.2402265f + f * (0.05550332f + f * (0.009618437f + f * 0.001339887f))));
    row[i] = p * std::bit_cast<float>((static_cast<int32_t>(whole) + 127) << 23);
  }
  for (at = 0; at + 16 <= n; at += 16)
    for (int64_t j = 0; j < 16; ++j) total[j] += row[at + j];
  for (; at < n; ++at) total[0] += row[at];
  const float sum = std::accumulate(total, total + 16, 0.0f), inverse = 1 / sum;
  for (int64_t i = 0; i < n; ++i) row[i] *= inverse;
  return offset + std::log2(sum);
}

memory::data_type dnnlType(DType dtype) { return dtype == DType::BF16 ? memory::data_type::bf16 : memory::data_type::f32; }

/// Row chunks through product, softmax, product. The library picks its own layout for keys and values, packed once.
class LibraryCall final : public AttentionCall {
 public:
  LibraryCall(DType dtype, int32_t headDim) : dtype_(dtype), d_(headDim), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {}

  void setKeys(const float* k, const float* v, int64_t rowStride, int32_t keys) override {
    auto [found, fresh] = plans_.try_emplace(keys);
    plan_ = &found->second;
    const memory::desc plainK({d_, keys}, dnnlType(dtype_), memory::format_tag::ba), plainV({keys, d_}, dnnlType(dtype_), memory::format_tag::ab);
    if (fresh) {
      const auto any = memory::format_tag::any;
      const memory::desc q({kRows, d_}, dnnlType(dtype_), memory::format_tag::ab), s({kRows, keys}, memory::data_type::f32, memory::format_tag::ab);
      const memory::desc p({kRows, keys}, dnnlType(dtype_), memory::format_tag::ab), o({kRows, d_}, memory::data_type::f32, memory::format_tag::ab);
      const dnnl::matmul::primitive_desc scores({q, memory::desc({d_, keys}, dnnlType(dtype_), any), s}, engine_), sums({p, memory::desc({keys, d_}, dnnlType(dtype_), any), o}, engine_);
      *plan_ = {keys, dnnl::matmul(scores), dnnl::matmul(sums), memory(q, engine_), memory(scores.weights_desc(), engine_), memory(s, engine_), memory(p, engine_),
                memory(sums.weights_desc(), engine_), memory(o, engine_)};
    }
    std::vector<std::byte> keyRows(static_cast<size_t>(keys * d_) * elementBytes(dtype_)), valueRows(keyRows.size());
    for (int64_t j = 0; j < keys; ++j) {
      const size_t at = static_cast<size_t>(j * d_) * elementBytes(dtype_);
      cpu::packRow(dtype_, k + j * rowStride, static_cast<int32_t>(d_), static_cast<int32_t>(d_), keyRows.data() + at);
      cpu::packRow(dtype_, v + j * rowStride, static_cast<int32_t>(d_), static_cast<int32_t>(d_), valueRows.data() + at);
    }
    memory fromK(plainK, engine_, keyRows.data()), fromV(plainV, engine_, valueRows.data());
    dnnl::reorder(fromK, plan_->k).execute(stream_, fromK, plan_->k);
    dnnl::reorder(fromV, plan_->v).execute(stream_, fromV, plan_->v);
    stream_.wait();
  }

  void attend(const std::byte* queries, int64_t n, float* out, float* logSumExp) override {
    const size_t rowBytes = static_cast<size_t>(d_) * elementBytes(dtype_);
    const float scale = 1 / std::sqrt(static_cast<float>(d_));
    for (int64_t first = 0; first < n; first += kRows) {
      const int64_t count = std::min(kRows, n - first);
      std::copy_n(queries + static_cast<size_t>(first) * rowBytes, static_cast<size_t>(count) * rowBytes, static_cast<std::byte*>(plan_->q.get_data_handle()));
      plan_->scores.execute(stream_, {{DNNL_ARG_SRC, plan_->q}, {DNNL_ARG_WEIGHTS, plan_->k}, {DNNL_ARG_DST, plan_->s}});
      stream_.wait();
      parallelForRanges(count, 16, [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end; ++r) {
          float* row = static_cast<float*>(plan_->s.get_data_handle()) + r * plan_->keys;
          logSumExp[first + r] = softmaxRow(row, plan_->keys, scale);
          cpu::packRow(dtype_, row, static_cast<int32_t>(plan_->keys), static_cast<int32_t>(plan_->keys), static_cast<std::byte*>(plan_->p.get_data_handle()) + static_cast<size_t>(r * plan_->keys) * elementBytes(dtype_));
        }
      });
      plan_->sums.execute(stream_, {{DNNL_ARG_SRC, plan_->p}, {DNNL_ARG_WEIGHTS, plan_->v}, {DNNL_ARG_DST, plan_->o}});
      stream_.wait();
      std::copy_n(static_cast<const float*>(plan_->o.get_data_handle()), count * d_, out + first * d_);
    }
  }

 private:
  static constexpr int64_t kRows = 512;
  struct Plan {
    int64_t keys = 0;
    dnnl::matmul scores, sums;
    memory q, k, s, p, v, o;
  };
  DType dtype_;
  int64_t d_;
  dnnl::engine engine_;
  dnnl::stream stream_;
  std::map<int32_t, Plan> plans_;
  Plan* plan_ = nullptr;
};
#endif

std::unique_ptr<AttentionCall> makeCall(const RivalInputs& inputs, bool library) {
#ifdef VMOBA_BENCH_ONEDNN
  if (library) return std::make_unique<LibraryCall>(inputs.dtype, inputs.headDim);
#else
  (void)library;
#endif
  return std::make_unique<TileCall>(inputs);
}

/// Selection of one head by sorting all its gates: [C][S] of 0/1, own block excluded.
std::vector<uint8_t> selectBySorting(const std::vector<float>& gate, const BlockPlan& plan, float tau) {
  const int64_t tokens = plan.tokens();
  const auto [least, most] = std::minmax_element(gate.begin(), gate.end());
  const double range = std::max(static_cast<double>(*most) - static_cast<double>(*least), 1e-6), low = static_cast<double>(*least);
  std::vector<float> weight(gate.size());
  for (size_t i = 0; i < gate.size(); ++i) weight[i] = static_cast<float>((static_cast<double>(gate[i]) - low) / range);
  const double total = std::accumulate(weight.begin(), weight.end(), 1e-6);
  double own = 0;
  for (int64_t c = 0; c < plan.blocks(); ++c)
    for (int64_t s = plan.start[static_cast<size_t>(c)]; s < plan.start[static_cast<size_t>(c) + 1]; ++s) own += std::exchange(weight[static_cast<size_t>(c * tokens + s)], 0.0f);
  std::vector<int32_t> order(gate.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) { return weight[static_cast<size_t>(a)] > weight[static_cast<size_t>(b)]; });
  std::vector<uint8_t> selection(gate.size(), 0);
  double sum = 0;
  for (const int32_t i : order) {
    selection[static_cast<size_t>(i)] = weight[static_cast<size_t>(i)] > 0;
    if ((sum += weight[static_cast<size_t>(i)]) / total >= static_cast<double>(tau) - own / total) break;
  }
  return selection;
}

std::vector<std::byte> packedHead(const RivalInputs& in, int64_t head) {
  const int64_t tokens = in.plan->tokens(), dim = int64_t{in.heads} * in.headDim;
  const size_t rowBytes = static_cast<size_t>(in.headDim) * elementBytes(in.dtype);
  std::vector<std::byte> rows(static_cast<size_t>(tokens) * rowBytes);
  for (int64_t s = 0; s < tokens; ++s)
    cpu::packRow(in.dtype, in.probe->q.data() + s * dim + head * in.headDim, in.headDim, in.headDim, rows.data() + static_cast<size_t>(s) * rowBytes);
  return rows;
}

}  // namespace

RivalTimes publishedAlgorithm(const RivalInputs& in, float tau, bool library, const std::function<double()>& clock, const std::vector<float>& expected) {
  const BlockPlan& plan = *in.plan;
  const int64_t tokens = plan.tokens(), d = in.headDim, dim = int64_t{in.heads} * d;
  const cpu::TileKernel& kernel = cpu::chooseTileKernel(in.dtype, in.instructionSet);
  const int64_t stride = (tokens + kernel.lanes - 1) / kernel.lanes * kernel.lanes;
  const size_t rowBytes = static_cast<size_t>(d) * elementBytes(in.dtype);
  const auto call = makeCall(in, library);
  RivalTimes times;
  for (int64_t h = 0; h < in.heads; ++h) {
    const std::vector<std::byte> q = packedHead(in, h);
    const uint8_t* selection = in.probe->selection.data();
    const float *k = in.probe->k.data() + h * d, *v = in.probe->v.data() + h * d;

    double started = clock();
    std::vector<float> means(static_cast<size_t>(plan.blocks() * d), 0.0f), padded(static_cast<size_t>(plan.blocks() * stride));
    for (int32_t c = 0; c < plan.blocks(); ++c)
      for (int64_t s = plan.start[static_cast<size_t>(c)]; s < plan.start[static_cast<size_t>(c) + 1]; ++s)
        for (int64_t i = 0; i < d; ++i) means[static_cast<size_t>(c * d + i)] += k[s * dim + i] / static_cast<float>(plan.length(c));
    LargeBuffer gateScratch(static_cast<size_t>(kernel.gateScratchBytes(in.headDim, plan.blocks())));
    kernel.gate({q.data(), static_cast<int32_t>(tokens), means.data(), plan.blocks(), in.headDim, padded.data(), stride, gateScratch.bytes().data()});
    std::vector<float> gate;
    for (int64_t c = 0; c < plan.blocks(); ++c) gate.insert(gate.end(), padded.begin() + c * stride, padded.begin() + c * stride + tokens);
    const std::vector<uint8_t> sorted = selectBySorting(gate, plan, tau);
    std::vector<std::vector<int32_t>> chosen(static_cast<size_t>(plan.blocks()));
    int64_t pairs = 0;
    for (int64_t c = 0; c < plan.blocks(); ++c) {
      const auto own = [&](int64_t s) { return s >= plan.start[static_cast<size_t>(c)] && s < plan.start[static_cast<size_t>(c) + 1]; };
      for (int64_t s = 0; s < tokens; ++s)
        if (!own(s) && selection[(c * in.heads + h) * tokens + s]) chosen[static_cast<size_t>(c)].push_back(static_cast<int32_t>(s));
      pairs += static_cast<int64_t>(chosen[static_cast<size_t>(c)].size());
      times.density += static_cast<double>(chosen[static_cast<size_t>(c)].size() + static_cast<size_t>(plan.length(static_cast<int32_t>(c)))) * plan.length(static_cast<int32_t>(c)) /
                       (static_cast<double>(tokens) * static_cast<double>(tokens) * in.heads);
    }
    times.routing += clock() - started;
    for (int64_t c = 0; c < plan.blocks(); ++c)
      for (int64_t s = 0; s < tokens; ++s) {
        const bool own = s >= plan.start[static_cast<size_t>(c)] && s < plan.start[static_cast<size_t>(c) + 1];
        times.selectedElsewhere += !own && (selection[(c * in.heads + h) * tokens + s] != 0) != (sorted[static_cast<size_t>(c * tokens + s)] != 0);
      }

    started = clock();
    std::vector<float> own(static_cast<size_t>(tokens * d)), ownLse(static_cast<size_t>(tokens)), part(static_cast<size_t>(pairs * d)), partLse(static_cast<size_t>(pairs));
    std::vector<std::byte> gathered;
    int64_t at = 0;
    for (int32_t c = 0; c < plan.blocks(); ++c) {
      const int64_t first = plan.start[static_cast<size_t>(c)];
      const std::vector<int32_t>& rows = chosen[static_cast<size_t>(c)];
      call->setKeys(k + first * dim, v + first * dim, dim, plan.length(c));
      call->attend(q.data() + static_cast<size_t>(first) * rowBytes, plan.length(c), own.data() + first * d, ownLse.data() + first);
      gathered.resize(rows.size() * rowBytes);
      for (size_t i = 0; i < rows.size(); ++i) std::copy_n(q.data() + static_cast<size_t>(rows[i]) * rowBytes, rowBytes, gathered.data() + i * rowBytes);
      call->attend(gathered.data(), static_cast<int64_t>(rows.size()), part.data() + at * d, partLse.data() + at);
      at += static_cast<int64_t>(rows.size());
    }
    times.attention += clock() - started;

    started = clock();
    std::vector<float> largest = ownLse, total(static_cast<size_t>(tokens)), out(static_cast<size_t>(tokens * d));
    at = 0;
    for (const auto& rows : chosen)
      for (const int32_t s : rows) largest[static_cast<size_t>(s)] = std::max(largest[static_cast<size_t>(s)], partLse[static_cast<size_t>(at++)]);
    const auto add = [&](int64_t s, float logSumExp, const float* row) {
      const float weight = std::exp2(logSumExp - largest[static_cast<size_t>(s)]);
      total[static_cast<size_t>(s)] += weight;
      for (int64_t i = 0; i < d; ++i) out[static_cast<size_t>(s * d + i)] += weight * row[i];
    };
    for (int64_t s = 0; s < tokens; ++s) add(s, ownLse[static_cast<size_t>(s)], own.data() + s * d);
    at = 0;
    for (const auto& rows : chosen)
      for (const int32_t s : rows) add(s, partLse[static_cast<size_t>(at)], part.data() + at * d), ++at;
    for (int64_t s = 0; s < tokens; ++s)
      for (int64_t i = 0; i < d; ++i) out[static_cast<size_t>(s * d + i)] /= total[static_cast<size_t>(s)];
    times.merge += clock() - started;
    for (int64_t s = 0; s < tokens; ++s) {
      const int64_t raster = plan.permutation.empty() ? s : plan.permutation[static_cast<size_t>(s)];
      for (int64_t i = 0; i < d; ++i)
        times.worstDifference = std::max(times.worstDifference, std::abs(static_cast<double>(out[static_cast<size_t>(s * d + i)]) - static_cast<double>(expected[static_cast<size_t>(raster * dim + h * d + i)])));
    }
  }
  return times;
}

double libraryDenseRate([[maybe_unused]] const RivalInputs& in, [[maybe_unused]] const std::function<double()>& clock) {
#ifdef VMOBA_BENCH_ONEDNN
  const int64_t tokens = in.plan->tokens(), rows = std::min<int64_t>(tokens, 2048);
  LibraryCall call(in.dtype, in.headDim);
  call.setKeys(in.probe->k.data(), in.probe->v.data(), int64_t{in.heads} * in.headDim, static_cast<int32_t>(tokens));
  const std::vector<std::byte> q = packedHead(in, 0);
  std::vector<float> out(static_cast<size_t>(rows * in.headDim)), logSumExp(static_cast<size_t>(rows));
  double best = 1e30;
  for (int repeat = 0; repeat < 3; ++repeat) {
    const double started = clock();
    call.attend(q.data(), rows, out.data(), logSumExp.data());
    best = std::min(best, clock() - started);
  }
  return 4.0 * static_cast<double>(rows) * static_cast<double>(tokens) * in.headDim / best;
#else
  return 0;
#endif
}

double libraryMatrixRate([[maybe_unused]] DType dtype, [[maybe_unused]] int64_t rows, [[maybe_unused]] const std::function<double()>& clock) {
#ifdef VMOBA_BENCH_ONEDNN
  const int64_t m = std::min<int64_t>(rows, 2550), k = 1536, n = 8960;
  const dnnl::engine engine(dnnl::engine::kind::cpu, 0);
  dnnl::stream stream(engine);
  const dnnl::matmul::primitive_desc product({memory::desc({m, k}, dnnlType(dtype), memory::format_tag::ab), memory::desc({k, n}, dnnlType(dtype), memory::format_tag::any),
                                              memory::desc({m, n}, memory::data_type::f32, memory::format_tag::ab)}, engine);
  memory a(product.src_desc(), engine), b(product.weights_desc(), engine), c(product.dst_desc(), engine);
  // Not zeros: some processors multiply them faster.
  for (const memory* input : {&a, &b}) {
    auto* words = static_cast<uint16_t*>(input->get_data_handle());
    for (size_t i = 0; i < input->get_desc().get_size() / 2; ++i) words[i] = static_cast<uint16_t>(0x3f80 + i * 7919 % 128);
  }
  const dnnl::matmul matmul(product);
  std::vector<double> seconds;
  for (int repeat = 0; repeat < 6; ++repeat) {
    const double started = clock();
    matmul.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}});
    stream.wait();
    if (repeat > 0) seconds.push_back(clock() - started);
  }
  return 2.0 * static_cast<double>(m * n * k) / median(seconds);
#else
  return 0;
#endif
}

double deviceMatrixRate(Backend& backend) {
  const int64_t m = 8192, k = 1536, n = 8960;
  std::vector<float> values = gaussianNoise(3, 0, n * k);
  const WeightView view{"random", "", DType::F32, {n, k}, reinterpret_cast<const std::byte*>(values.data()), values.size() * sizeof(float), 1};
  const WeightView* const views[] = {&view};
  const auto weight = backend.makeLinear(views, {});
  const Tensor wide = backend.allocate(DType::F32, {m, k}), x = backend.allocate(backend.activationType(), {m, k}), out = backend.allocate(backend.activationType(), {m, n});
  backend.upload(wide, gaussianNoise(4, 0, m * k).data());
  backend.convert(wide, x);
  std::vector<double> rates;
  for (int repeat = 0; repeat < 8; ++repeat) {
    backend.takeSeconds();
    backend.linear(x, *weight, out);
    const KindSeconds seconds = backend.takeSeconds();
    if (repeat > 0) rates.push_back(seconds.linearFlops / seconds.linears);
  }
  return median(rates);
}

}  // namespace vmoba
