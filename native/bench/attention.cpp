#include "native/bench/attention.h"

#include <chrono>
#include <cmath>
#include <ctime>
#include <optional>

#include "kernels/cpu/attention.h"
#include "kernels/partition.h"
#include "native/base/parallel.h"
#include "native/backends/backend.h"
#include "native/bench/attention_inputs.h"
#include "native/bench/attention_rivals.h"
#include "native/bench/bench_options.h"
#include "native/engine/policy.h"

namespace vmoba {
namespace {

constexpr PartitionKind kKinds[] = {PartitionKind::Temporal1D, PartitionKind::Spatial2D, PartitionKind::SpaceTime3D};

double wallSeconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }
/// Processor time of all threads: unaffected by what else the machine does, except through caches and clock rates.
double processorSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// One set of inputs with the buffers and timing around it.
class Measurement {
 public:
  Measurement(AttentionInputs inputs, std::function<double()> clock, int64_t repeats) : inputs_(std::move(inputs)), clock_(std::move(clock)), repeats_(repeats) {
    out_.resize(static_cast<size_t>(inputs_.grid.tokens() * inputs_.dim()) * elementBytes(inputs_.dtype));
  }

  struct Result {
    double seconds = 0;
    AttentionStatistics statistics;
  };

  Result once(const BlockPlan* plan, const SelectionRule& rule, bool routingOnly = false, AttentionProbe* probe = nullptr) {
    const size_t slice = static_cast<size_t>(inputs_.dim()) * elementBytes(inputs_.dtype);
    cpu::SelfAttention job;
    job.tokens = static_cast<int32_t>(inputs_.grid.tokens());
    job.heads = inputs_.heads;
    job.headDim = inputs_.headDim;
    job.dtype = inputs_.dtype;
    job.q = inputs_.rows.data();
    job.k = inputs_.rows.data() + slice;
    job.v = inputs_.rows.data() + 2 * slice;
    job.rowStride = 3 * inputs_.dim();
    job.ropeCos = inputs_.ropeCos.data();
    job.ropeSin = inputs_.ropeSin.data();
    job.blocks = plan;
    job.rule = rule;
    job.out = out_.data();
    job.outStride = inputs_.dim();
    job.routingOnly = routingOnly;
    job.probe = probe;
    const size_t bytes = cpu::selfAttentionScratchBytes(job, threadCount());
    if (scratch_.size() < bytes) scratch_.resize(bytes);
    scratchBytes_ = std::max(scratchBytes_, bytes);
    Result result;
    const double started = clock_();
    cpu::selfAttention(job, scratch_, nullptr, &result.statistics);
    result.seconds = clock_() - started;
    return result;
  }

  /// Medians of sparse runs and of dense runs between them, so that both meet the same weather.
  struct Pair {
    Result sparse;
    double denseSeconds;
  };
  Pair beside(const BlockPlan& plan, const SelectionRule& rule) {
    Pair pair{once(&plan, rule), 0};
    std::vector<double> sparse, dense, routing, attention;
    for (int64_t i = 0; i < repeats_; ++i) {
      dense.push_back(once(nullptr, {}).seconds);
      const Result result = once(&plan, rule);
      sparse.push_back(result.seconds);
      routing.push_back(result.statistics.routingSeconds);
      attention.push_back(result.statistics.attentionSeconds);
    }
    pair.sparse.seconds = median(sparse);
    pair.sparse.statistics.routingSeconds = median(routing);
    pair.sparse.statistics.attentionSeconds = median(attention);
    pair.denseSeconds = median(dense);
    return pair;
  }

  /// Threshold whose head_global selection comes nearest to a density; empty where the own blocks alone already exceed it.
  std::optional<SelectionRule> ruleFor(const BlockPlan& plan, double density) {
    SelectionRule rule{SelectionMode::Threshold, SelectionScope::HeadGlobal, 0, 1, Semantics::Exact};
    float low = 0, high = 0.999f;
    for (int step = 0; step < 12; ++step) {
      rule.tau = (low + high) / 2;
      const double reached = once(&plan, rule, true).statistics.density;
      if (std::abs(reached - density) < 0.002) return rule;
      (reached < density ? low : high) = rule.tau;
    }
    return std::abs(once(&plan, rule, true).statistics.density - density) < 0.01 ? std::optional(rule) : std::nullopt;
  }

  std::vector<float> output() const {
    std::vector<float> values;
    for (size_t i = 0; i < out_.size() / elementBytes(inputs_.dtype); ++i)
      values.push_back(inputs_.dtype == DType::BF16 ? toFloat(reinterpret_cast<const Bf16*>(out_.data())[i]) : reinterpret_cast<const float*>(out_.data())[i]);
    return values;
  }

  double denseFlops() const {
    const auto tokens = static_cast<double>(inputs_.grid.tokens());
    return 4 * tokens * tokens * static_cast<double>(inputs_.dim());
  }
  const AttentionInputs& inputs() const { return inputs_; }
  size_t scratchBytes() const { return scratchBytes_; }

 private:
  AttentionInputs inputs_;
  std::function<double()> clock_;
  int64_t repeats_;
  std::vector<std::byte> out_, scratch_;
  size_t scratchBytes_ = 0;
};

struct Bar {
  double matrixRate, share;
};

Json resultRow(const std::string& data, const char* partition, double target, double density, double seconds, double dense, double flops, const Bar& bar) {
  Json row;
  row.set("data", data).set("partition", partition).set("target", target).set("density", density).set("seconds", seconds).set("denseSeconds", dense);
  row.set("speedup", dense / seconds).set("efficiency", dense * density / seconds).set("gflops", flops * density / seconds * 1e-9).set("denseGflops", flops / dense * 1e-9);
  row.set("denseOfLibrary", bar.matrixRate > 0 ? flops / dense / bar.matrixRate : 0.0);
  return row.set("valid", bar.matrixRate <= 0 || flops / dense >= bar.share * bar.matrixRate);
}

void compareWithRivals(Measurement& m, const BlockPlan& plan, const char* name, const std::string& data, const SelectionRule& rule, const std::function<double()>& clock,
                       double clockThreads, Json& rivals, const std::function<void(const Json&)>& progress) {
  AttentionProbe probe;
  const auto ours = m.once(&plan, rule, false, nullptr);
  const std::vector<float> expected = m.output();
  m.once(&plan, rule, true, &probe);
  const RivalInputs inputs{&plan, m.inputs().heads, m.inputs().headDim, m.inputs().dtype, &probe.q, &probe.k, &probe.v};
  for (const bool library : {false, true}) {
    if (library && libraryDenseRate(inputs, clock) <= 0) continue;
    const RivalTimes times = publishedAlgorithm(inputs, rule.tau, library, clock, expected);
    const auto again = m.once(&plan, rule);
    const double seconds = std::min(ours.seconds, again.seconds);
    Json row;
    row.set("rival", library ? "published algorithm on oneDNN" : "published algorithm on our tiles").set("data", data).set("partition", name).set("density", times.density);
    row.set("seconds", times.total() / clockThreads).set("routing", times.routing / clockThreads).set("attention", times.attention / clockThreads).set("merge", times.merge / clockThreads);
    row.set("ourSeconds", seconds / clockThreads).set("oursIsFaster", times.total() / seconds).set("worstDifference", times.worstDifference);
    if (library) row.set("libraryDenseGflops", libraryDenseRate(inputs, clock) * clockThreads * 1e-9);
    progress(row);
    rivals.push(row);
  }
}

}  // namespace

Json benchAttention(const Json& options, const std::function<void(const Json&)>& progress) {
  const Grid grid = benchGrid(options, 32760);
  const auto heads = static_cast<int32_t>(std::clamp<int64_t>(options.integerOr("heads", 2), 1, 1024)), headDim = static_cast<int32_t>(std::clamp<int64_t>(options.integerOr("headDim", 128), 2, 1024) / 2 * 2);
  if (const int64_t threads = options.integerOr("threads", 0); threads > 0) setThreadCount(static_cast<int>(std::min<int64_t>(threads, 1024)));
  const std::string wanted = options.stringOr("precision", "auto"), clockName = options.stringOr("clock", "wall");
  if (wanted != "auto" && wanted != "bf16" && wanted != "f32") throw Error(ErrorCode::BadRequest, "precision must be auto, bf16 or f32", "precision");
  if (clockName != "wall" && clockName != "cpu") throw Error(ErrorCode::BadRequest, "clock must be wall or cpu", "clock");
  const DeviceInfo device = listDevices().front();
  const bool fast = std::find(device.precisions.begin(), device.precisions.end(), Precision::BF16) != device.precisions.end();
  const DType dtype = wanted == "bf16" || (wanted == "auto" && fast) ? DType::BF16 : DType::F32;
  const std::function<double()> clock = clockName == "cpu" ? processorSeconds : wallSeconds;
  const double clockThreads = clockName == "cpu" ? threadCount() : 1;
  const int64_t repeats = std::clamp<int64_t>(options.integerOr("repeats", 2), 1, 100);

  std::vector<double> densities{0.13, 0.19, 0.26, 0.31, 0.5};
  if (const Json* list = options.find("densities"); list != nullptr) {
    densities.clear();
    for (const Json& value : list->asArray("densities")) densities.push_back(value.asNumber("densities"));
  }
  std::vector<std::string> kinds;
  if (const Json* list = options.find("data"); list != nullptr) {
    for (const Json& value : list->asArray("data")) kinds.push_back(value.asString("data"));
  } else {
    if (options.find("model") != nullptr) kinds.push_back("captured");
    kinds.insert(kinds.end(), {"smooth", "random"});
  }

  const Bar bar{libraryMatrixRate(dtype, clock), dtype == DType::BF16 ? 0.65 : 0.85};
  Json rows(Json::Array{}), rivals(Json::Array{}), notes(Json::Array{});
  size_t scratchBytes = 0;
  for (const std::string& kind : kinds) {
    if (kind != "captured" && kind != "smooth" && kind != "random") throw Error(ErrorCode::BadRequest, "data are captured, smooth or random, not '" + kind + "'", "data");
    if (kind == "captured" && options.find("model") == nullptr) throw Error(ErrorCode::BadRequest, "captured data need a model folder: model=resources/models/nano", "model");
    Measurement m(kind == "captured" ? capturedInputs(options, grid, heads, headDim, dtype) : kind == "smooth" ? smoothInputs(grid, heads, headDim, dtype) : randomInputs(grid, heads, headDim, dtype), clock, repeats);
    if (!m.inputs().note.empty()) notes.push(m.inputs().note);
    std::vector<BlockPlan> plans;
    for (const PartitionKind partition : kKinds) plans.push_back(planBlocks(grid, choosePartition(grid, partition)));
    for (const double target : densities) {
      double cycleSparse = 0, cycleDense = 0, cycleDensity = 0;
      int measured = 0;
      for (size_t i = 0; i < plans.size(); ++i) {
        const auto rule = m.ruleFor(plans[i], target);
        if (!rule) continue;
        const auto [sparse, dense] = m.beside(plans[i], *rule);
        const AttentionStatistics& s = sparse.statistics;
        Json row = resultRow(kind, partitionName(kKinds[i]), target, s.density, sparse.seconds / clockThreads, dense / clockThreads, m.denseFlops(), {bar.matrixRate * clockThreads, bar.share});
        row.set("routing", s.routingSeconds).set("attention", s.attentionSeconds).set("meanBlocks", s.meanSelectedBlocks).set("tileUnion", s.meanTileUnionBlocks).set("blocks", plans[i].blocks()).set("tau", static_cast<double>(rule->tau));
        progress(row);
        rows.push(row);
        cycleSparse += sparse.seconds, cycleDense += dense, cycleDensity += s.density, ++measured;
      }
      if (measured != 3) continue;
      const Json row = resultRow(kind, "cycle", target, cycleDensity / 3, cycleSparse / 3 / clockThreads, cycleDense / 3 / clockThreads, m.denseFlops(), {bar.matrixRate * clockThreads, bar.share});
      progress(row);
      rows.push(row);
    }
    if (options.boolOr("rivals", true) && kind == kinds.front())
      for (size_t i = 0; i < plans.size(); ++i)
        if (const auto rule = m.ruleFor(plans[i], 0.25)) compareWithRivals(m, plans[i], partitionName(kKinds[i]), kind, *rule, clock, clockThreads, rivals, progress);
    scratchBytes = std::max(scratchBytes, m.scratchBytes());
  }
  Json result;
  result.set("device", device.name).set("instructionSet", cpu::instructionSet(dtype)).set("precision", dtype == DType::BF16 ? "bf16" : "f32").set("threads", threadCount()).set("clock", clockName);
  result.set("grid", Json::list(std::vector<int32_t>{grid.t, grid.h, grid.w})).set("tokens", grid.tokens()).set("heads", heads).set("headDim", headDim).set("repeats", repeats);
  result.set("libraryMatrixGflops", bar.matrixRate * clockThreads * 1e-9).set("scratchBytes", scratchBytes).set("notes", notes).set("rows", rows);
  return result.set("rivals", rivals);
}

}  // namespace vmoba
