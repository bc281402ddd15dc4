#include "native/bench/attention.h"

#include <algorithm>
#include <cmath>
#include <ctime>
#include <memory>
#include <optional>

#include "kernels/cpu/tile.h"
#include "kernels/partition.h"
#include "native/backends/backend.h"
#include "native/base/parallel.h"
#include "native/bench/attention_check.h"
#include "native/bench/attention_export.h"
#include "native/bench/attention_inputs.h"
#include "native/bench/attention_rivals.h"
#include "native/bench/attention_runner.h"
#include "native/bench/bench_options.h"
#include "native/engine/policy.h"

namespace vmoba {
namespace {

constexpr PartitionKind kKinds[] = {PartitionKind::Temporal1D, PartitionKind::Spatial2D, PartitionKind::SpaceTime3D};

/// Processor time of all threads: unaffected by what else the machine does, except through caches and clock rates.
double processorSeconds() { return static_cast<double>(std::clock()) / CLOCKS_PER_SEC; }

/// What every measurement of one call of benchAttention shares.
struct Setting {
  DeviceInfo device;
  std::unique_ptr<Backend> backend;  ///< null = the CPU
  std::string instructionSet;        ///< of the CPU's tile kernel; empty = the best
  DType dtype;
  std::function<double()> clock;
  double clockThreads;               ///< seconds of `clock` per second of the measured work
  double matrixRate;                 ///< FLOP per second of `clock`, 0 = unknown
  int64_t repeats;
  std::function<void(const Json&)> progress;
  std::string exportFolder;          ///< empty = nothing is exported
  std::vector<double> exported;      ///< densities

  const char* kernelName() const { return instructionSet.empty() ? nullptr : instructionSet.c_str(); }
  double seconds(double clocked) const { return clocked / clockThreads; }
};

Setting readSetting(const Json& options, int64_t tokens, const std::function<void(const Json&)>& progress) {
  const std::string wanted = benchPrecision(options), clockName = options.stringOr("clock", "wall");
  if (clockName != "wall" && clockName != "cpu") throw Error(ErrorCode::BadRequest, "clock must be wall or cpu", "clock");
  if (const int64_t threads = options.integerOr("threads", 0); threads > 0) setThreadCount(static_cast<int>(std::min<int64_t>(threads, 1024)));
  Setting s;
  s.progress = progress;
  s.device = describeDevice(benchDevice(options));
  if (!s.device.usable) throw Error(ErrorCode::Unsupported, s.device.id + ": " + s.device.reason, "backend");
  const bool fast = std::find(s.device.precisions.begin(), s.device.precisions.end(), Precision::BF16) != s.device.precisions.end();
  s.dtype = wanted == "bf16" || (wanted == "auto" && fast) ? DType::BF16 : DType::F32;
  s.repeats = std::clamp<int64_t>(options.integerOr("repeats", 2), 1, 100);
  s.clock = clockName == "cpu" ? processorSeconds : wallSeconds;
  s.clockThreads = clockName == "cpu" ? threadCount() : 1;
  s.instructionSet = options.stringOr("instructionSet", "");
  s.exportFolder = options.stringOr("export", "");
  if (s.device.kind == "cpu") {
    cpu::chooseTileKernel(s.dtype, s.kernelName());  // refuses an unknown name before anything is measured
    s.matrixRate = libraryMatrixRate(s.dtype, tokens, s.clock);
    return s;
  }
  if (clockName == "cpu") throw Error(ErrorCode::BadRequest, "clock=cpu measures the CPU; a device is timed by its own events", "clock");
  s.backend = makeBackend(s.device.id, {s.dtype == DType::BF16 ? Precision::BF16 : Precision::F32, 0, 0});
  s.matrixRate = s.device.kind == "emulated" ? 0 : deviceMatrixRate(*s.backend);
  return s;
}

double densityOf(const Json& value, const char* option) {
  const double density = value.asNumber(option);
  if (!(density > 0 && density <= 1)) throw Error(ErrorCode::BadRequest, std::string(option) + " must be above 0 and at most 1", option);
  return density;
}

AttentionInputs makeInputs(const std::string& kind, const Json& options, const Grid& grid, int32_t heads, int32_t headDim, DType dtype) {
  if (kind == "smooth") return smoothInputs(grid, heads, headDim, dtype);
  if (kind == "random") return randomInputs(grid, heads, headDim, dtype);
  return capturedInputs(options, grid, heads, headDim, dtype);
}

/// Threshold whose head_global selection comes nearest to a density; empty where the own blocks alone already exceed it.
std::optional<SelectionRule> ruleFor(AttentionRunner& runner, const BlockPlan& plan, double density) {
  SelectionRule rule{SelectionMode::Threshold, SelectionScope::HeadGlobal, 0, 1, Semantics::Exact};
  double low = 0, high = 1, lowDensity = 0, highDensity = 1, reached = 0;
  for (int step = 0; step < 14; ++step) {
    // Where the line between the known points meets the density; every third time the middle, should one end stay put.
    const double share = step % 3 == 2 ? 0.5 : std::clamp((density - lowDensity) / (highDensity - lowDensity), 0.02, 0.98);
    rule.tau = static_cast<float>(low + share * (high - low));
    reached = runner.run({.plan = &plan, .rule = rule, .routingOnly = true}).statistics.density;
    if (std::abs(reached - density) < 0.002) return rule;
    (reached < density ? low : high) = static_cast<double>(rule.tau);
    (reached < density ? lowDensity : highDensity) = reached;
  }
  return std::abs(reached - density) < 0.01 ? std::optional(rule) : std::nullopt;
}

/// What statistics and maps of a call cost: routing with them less routing without.
double statisticsSeconds(AttentionRunner& runner, const BlockPlan& plan, const SelectionRule& rule) {
  std::vector<double> with, without;
  for (int repeat = 0; repeat < 5; ++repeat)
    for (const bool described : {true, false}) (described ? with : without).push_back(runner.run({.plan = &plan, .rule = rule, .routingOnly = true, .described = described}).seconds);
  return std::max(0.0, median(with) - median(without));
}

Json resultRow(const Setting& s, const AttentionRunner& runner, const std::string& data, const char* partition, double target, double density, double sparse, double dense) {
  const double flops = runner.denseFlops(), bar = s.dtype == DType::BF16 ? 0.65 : 0.85;
  Json row;
  row.set("data", data).set("partition", partition).set("target", target).set("density", density).set("seconds", s.seconds(sparse)).set("denseSeconds", s.seconds(dense));
  row.set("speedup", dense / sparse).set("efficiency", dense * density / sparse).set("gflops", flops * density / s.seconds(sparse) * 1e-9);
  row.set("denseGflops", flops / s.seconds(dense) * 1e-9).set("denseOfLibrary", s.matrixRate > 0 ? flops / dense / s.matrixRate : 0.0);
  return row.set("valid", s.matrixRate <= 0 || flops / dense >= bar * s.matrixRate);
}

/// One call as a file for other programs, once its times are known.
void exportCall(const Setting& s, AttentionRunner& runner, const AttentionRunner::Call& call, const std::string& name, Json row) {
  const Grid& grid = runner.inputs().grid;
  row.set("device", s.device.name).set("instructionSet", s.backend ? s.backend->instructionSet() : cpu::chooseTileKernel(s.dtype, s.kernelName()).name).set("precision", s.dtype == DType::BF16 ? "bf16" : "f32");
  row.set("grid", Json::list(std::vector<int32_t>{grid.t, grid.h, grid.w})).set("tokens", grid.tokens()).set("heads", runner.inputs().heads).set("headDim", runner.inputs().headDim).set("repeats", s.repeats);
  exportAttention(s.exportFolder + "/" + row.stringOr("data", "") + "-" + name + ".safetensors", runner, call, row);
}

/// Rows of one density: dense and every partition in turn, so that all meet the same weather.
void measureDensity(const Setting& s, AttentionRunner& runner, const std::vector<BlockPlan>& plans, const std::string& data, double target, bool exported, Json& rows) {
  std::vector<std::optional<SelectionRule>> rules;
  for (const BlockPlan& plan : plans) rules.push_back(ruleFor(runner, plan, target));
  std::vector<double> dense;
  std::vector<std::vector<double>> total(plans.size()), routing(plans.size()), attention(plans.size());
  std::vector<AttentionStatistics> last(plans.size());
  for (int64_t repeat = 0; repeat < s.repeats; ++repeat) {
    dense.push_back(runner.run({}).seconds);
    for (size_t i = 0; i < plans.size(); ++i) {
      if (!rules[i]) continue;
      const auto result = runner.run({.plan = &plans[i], .rule = *rules[i]});
      last[i] = result.statistics;
      total[i].push_back(result.seconds);
      routing[i].push_back(last[i].routingSeconds);
      attention[i].push_back(last[i].attentionSeconds);
    }
  }
  double cycleSeconds = 0, cycleDensity = 0;
  bool whole = true;
  const auto publish = [&](const Json& row) {
    s.progress(row);
    rows.push(row);
  };
  for (size_t i = 0; i < plans.size(); ++i) {
    whole = whole && rules[i];
    if (!rules[i]) continue;
    Json row = resultRow(s, runner, data, partitionName(kKinds[i]), target, last[i].density, median(total[i]), median(dense));
    row.set("routing", median(routing[i])).set("attention", median(attention[i]));
    if (!s.backend) row.set("statistics", s.seconds(statisticsSeconds(runner, plans[i], *rules[i])));
    row.set("blocks", plans[i].blocks()).set("meanBlocks", last[i].meanSelectedBlocks).set("tileUnion", last[i].meanTileUnionBlocks).set("tau", static_cast<double>(rules[i]->tau));
    publish(row);
    if (exported) exportCall(s, runner, {.plan = &plans[i], .rule = *rules[i]}, std::string(partitionName(kKinds[i])) + "-" + Json(target).dump(), row);
    cycleSeconds += median(total[i]) / 3;
    cycleDensity += last[i].density / 3;
  }
  if (exported && target == s.exported.front()) exportCall(s, runner, {}, "dense", resultRow(s, runner, data, "dense", 1, 1, median(dense), median(dense)));
  if (whole) publish(resultRow(s, runner, data, "cycle", target, cycleDensity, cycleSeconds, median(dense)));
}

/// Dense and every partition at one density; false where one is wrong.
bool checkOnDevice(const Setting& s, AttentionRunner& runner, const std::vector<BlockPlan>& plans, const std::string& data, double target, Json& checks) {
  bool right = true;
  const auto check = [&](const char* name, const AttentionRunner::Call& call) {
    const Accuracy accuracy = checkAttention(runner, call);
    right = right && accuracy.holds();
    Json row;
    row.set("check", data).set("partition", name).set("error", accuracy.error).set("allowed", accuracy.allowed).set("holds", accuracy.holds());
    s.progress(row);
    checks.push(row);
  };
  check("dense", {});
  for (size_t i = 0; i < plans.size(); ++i)
    if (const auto rule = ruleFor(runner, plans[i], target)) check(partitionName(kKinds[i]), {.plan = &plans[i], .rule = *rule});
  return right;
}

void compareWithRivals(const Setting& s, AttentionRunner& runner, const BlockPlan& plan, const char* name, const std::string& data, const SelectionRule& rule, Json& rivals) {
  AttentionProbe probe;
  runner.run({.plan = &plan, .rule = rule, .probe = &probe});
  const std::vector<float> expected = runner.output();
  const RivalInputs inputs{&plan, runner.inputs().heads, runner.inputs().headDim, runner.inputs().dtype, &probe, s.kernelName()};
  for (const bool library : {false, true}) {
    const double libraryRate = library ? libraryDenseRate(inputs, s.clock) : 0;
    if (library && libraryRate <= 0) continue;
    const RivalTimes times = publishedAlgorithm(inputs, rule.tau, library, s.clock, expected);
    const double ours = runner.run({.plan = &plan, .rule = rule}).seconds;
    Json row;
    row.set("rival", library ? "published algorithm on oneDNN" : "published algorithm on our tiles").set("data", data).set("partition", name).set("density", times.density);
    row.set("seconds", s.seconds(times.total())).set("routing", s.seconds(times.routing)).set("attention", s.seconds(times.attention)).set("merge", s.seconds(times.merge));
    row.set("ourSeconds", s.seconds(ours)).set("oursIsFaster", times.total() / ours).set("selectedElsewhere", times.selectedElsewhere).set("worstDifference", times.worstDifference);
    if (library) row.set("libraryDenseGflops", libraryRate * s.clockThreads * 1e-9);
    s.progress(row);
    rivals.push(row);
  }
}

}  // namespace

Json benchAttention(const Json& options, const std::function<void(const Json&)>& progress) {
  const Grid grid = benchGrid(options, 32760);
  const auto heads = static_cast<int32_t>(std::clamp<int64_t>(options.integerOr("heads", 2), 1, 1024)), headDim = static_cast<int32_t>(std::clamp<int64_t>(options.integerOr("headDim", 128), 2, 1024) / 2 * 2);
  std::vector<double> densities;
  if (const Json* list = options.find("densities"); list != nullptr)
    for (const Json& value : list->asArray("densities")) densities.push_back(densityOf(value, "densities"));
  const Json* exportDensity = options.find("exportDensity");
  std::vector<double> exported = densities.empty() ? std::vector{0.25} : densities;
  if (exportDensity != nullptr) exported = {densityOf(*exportDensity, "exportDensity")};
  std::vector<std::string> kinds;
  if (const Json* list = options.find("data"); list != nullptr) {
    for (const Json& value : list->asArray("data")) kinds.push_back(value.asString("data"));
  } else {
    if (options.find("model") != nullptr) kinds.push_back("captured");
    kinds.insert(kinds.end(), {"smooth", "random"});
  }
  for (const std::string& kind : kinds) {
    if (kind != "captured" && kind != "smooth" && kind != "random") throw Error(ErrorCode::BadRequest, "data are captured, smooth or random, not '" + kind + "'", "data");
    if (kind == "captured" && options.find("model") == nullptr) throw Error(ErrorCode::BadRequest, "captured data need a model folder: model=resources/models/nano", "model");
  }
  Setting s = readSetting(options, grid.tokens(), progress);
  if (!s.exportFolder.empty()) s.exported = exported;

  Json rows(Json::Array{}), rivals(Json::Array{}), notes(Json::Array{}), checks(Json::Array{});
  bool accurate = true;
  size_t scratchBytes = 0;
  for (const std::string& kind : kinds) {
    AttentionInputs inputs = makeInputs(kind, options, grid, heads, headDim, s.dtype);
    if (!inputs.note.empty()) notes.push(inputs.note);
    const auto runner = s.backend ? runOnDevice(std::move(inputs), *s.backend) : runOnCpu(std::move(inputs), s.clock, s.kernelName());
    std::vector<BlockPlan> plans;
    for (const PartitionKind partition : kKinds) plans.push_back(planBlocks(grid, choosePartition(grid, partition)));
    runner->run({});  // pools, pages and clock rates
    const bool first = kind == kinds.front();
    if (first && s.backend) accurate = checkOnDevice(s, *runner, plans, kind, densities.empty() ? 0.26 : densities.front(), checks);
    std::vector<double> targets = !densities.empty() ? densities : first ? std::vector{0.13, 0.19, 0.26, 0.31, 0.5} : std::vector{0.19, 0.26, 0.31};
    const auto among = [](const std::vector<double>& list, double target) { return std::find(list.begin(), list.end(), target) != list.end(); };
    if (first)
      for (const double target : s.exported)
        if (!among(targets, target)) targets.push_back(target);
    for (const double target : targets) measureDensity(s, *runner, plans, kind, target, first && among(s.exported, target), rows);
    if (first && !s.backend && options.boolOr("rivals", true))
      for (size_t i = 0; i < plans.size(); ++i)
        if (const auto rule = ruleFor(*runner, plans[i], 0.25)) compareWithRivals(s, *runner, plans[i], partitionName(kKinds[i]), kind, *rule, rivals);
    scratchBytes = std::max(scratchBytes, runner->scratchBytes());
  }
  Json result;
  result.set("device", s.device.name).set("instructionSet", s.backend ? s.backend->instructionSet() : cpu::chooseTileKernel(s.dtype, s.kernelName()).name).set("precision", s.dtype == DType::BF16 ? "bf16" : "f32");
  result.set("threads", threadCount()).set("clock", s.backend ? "device" : s.clockThreads > 1 ? "cpu" : "wall");
  result.set("grid", Json::list(std::vector<int32_t>{grid.t, grid.h, grid.w})).set("tokens", grid.tokens()).set("heads", heads).set("headDim", headDim).set("repeats", s.repeats);
  result.set("libraryMatrixGflops", s.matrixRate * s.clockThreads * 1e-9).set("scratchBytes", scratchBytes).set("notes", notes).set("rows", rows);
  return result.set("rivals", rivals).set("checks", checks).set("accurate", accurate);
}

}  // namespace vmoba
