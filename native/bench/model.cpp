#include "native/bench/model.h"

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <optional>

#include "native/backends/backend.h"
#include "native/base/error.h"
#include "native/bench/attention_rivals.h"
#include "native/bench/bench_options.h"
#include "native/bench/scratch_folder.h"
#include "native/engine/dit.h"
#include "native/engine/noise.h"
#include "native/engine/policy.h"
#include "native/engine/session.h"
#include "native/tools/random_model/random_model_options.h"
#include "native/tools/random_model/random_tensors.h"

namespace vmoba {
namespace {

std::vector<bool> streamModes(const Json& options) {
  const Json* stream = options.find("stream");
  if (stream == nullptr) return {false};
  if (stream->isString() && stream->asString("stream") == "both") return {false, true};
  return {stream->asBool("stream")};
}

std::vector<AttentionPolicy> policiesOf(const Json& options) {
  std::vector<AttentionPolicy> policies;
  const auto add = [&](const Json& policy) { policies.push_back(AttentionPolicy::parse(namedPolicy(policy, "policies"))); };
  if (const Json* list = options.find("policies"); list != nullptr) {
    if (list->isString()) add(*list);
    else
      for (const Json& entry : list->asArray("policies")) add(entry);
  } else {
    for (const char* name : {"dense", "vmoba-trained", "vmoba-training-free"}) add(name);
  }
  return policies;
}

/// What all rows of one run share.
struct Passes {
  Backend& backend;
  Dit& dit;
  Grid grid;
  int64_t repeats, branches;
  bool warmUp;
  Tensor latent;
  std::vector<Conditioning> conditioning;  ///< of each branch
  RopeTable rope;

  Passes(Backend& on, Dit& model, const Grid& tokens, const Json& options)
      : backend(on),
        dit(model),
        grid(tokens),
        repeats(std::clamp<int64_t>(options.integerOr("repeats", 3), 1, 100)),
        branches(std::clamp<int64_t>(options.integerOr("branches", 1), 1, 2)),
        warmUp(options.boolOr("warmUp", true)),
        rope(dit.ropeTable(grid)) {
    const DitConfig& config = dit.config();
    latent = backend.allocate(DType::F32, {config.inChannels, int64_t{grid.t} * config.patch[0], int64_t{grid.h} * config.patch[1], int64_t{grid.w} * config.patch[2]});
    backend.upload(latent, gaussianNoise(1, 0, latent.elements()).data());
    for (int64_t branch = 0; branch < branches; ++branch)
      conditioning.push_back(dit.condition(gaussianNoise(2, static_cast<uint64_t>(branch), std::min<int64_t>(config.textLength, 40) * config.textDim)));
  }

  /// Medians over the repeats.
  Json row(const AttentionPolicy& policy) {
    const DitConfig& config = dit.config();
    const AttentionPlan plan(policy, grid, config.layers, 1);
    std::vector<LayerAttention> attention;
    for (int64_t layer = 0; layer < config.layers; ++layer) attention.push_back(plan.decide(layer, 0).attention);
    std::vector<double> total, processor, linears, attending, routing, other;
    double flops = 0, density = 0;
    // The first pass fills pools and caches and is not counted; where a pass takes a minute, that no longer matters.
    for (int64_t repeat = warmUp ? 0 : 1; repeat <= repeats; ++repeat) {
      std::vector<AttentionStatistics> statistics;
      std::vector<Dit::Branch> passes;
      for (Conditioning& text : conditioning)
        passes.push_back({latent, &text, backend.allocate(DType::F32, {config.outChannels, latent.shape[1], latent.shape[2], latent.shape[3]}), passes.empty() ? &statistics : nullptr});
      backend.takeSeconds();
      const double started = wallSeconds();
      const std::clock_t processorStarted = std::clock();
      dit.forward(passes, 500, rope, attention);
      const double seconds = wallSeconds() - started;
      const KindSeconds kinds = backend.takeSeconds();
      const double processorSeconds = static_cast<double>(std::clock() - processorStarted) / CLOCKS_PER_SEC;
      if (repeat == 0) continue;
      processor.push_back(processorSeconds);
      total.push_back(seconds);
      linears.push_back(kinds.linears);
      attending.push_back(kinds.attention);
      routing.push_back(kinds.routing);
      other.push_back(seconds - kinds.linears - kinds.attention - kinds.routing);
      flops = kinds.linearFlops;
      density = 0;
      for (const AttentionStatistics& s : statistics) density += s.density / static_cast<double>(config.layers);
    }
    Json row;
    row.set("policy", policy.name).set("seconds", median(total)).set("processorSeconds", median(processor)).set("linears", median(linears)).set("attention", median(attending));
    row.set("routing", median(routing)).set("other", median(other)).set("linearGflops", flops / median(linears) * 1e-9).set("density", density);
    // What the arithmetic alone would allow: all work of a dense pass over what is left at this density.
    const double tokens = static_cast<double>(grid.tokens()), attentionFlops = 4 * tokens * tokens * static_cast<double>(config.dim * config.layers * branches);
    return row.set("ceiling", (flops + attentionFlops) / (flops + attentionFlops * density));
  }
};

}  // namespace

Json benchModel(const Json& options, const std::function<void(const Json&)>& progress) {
  namespace fs = std::filesystem;
  const Grid grid = benchGrid(options, 2550);
  const double denseShare = options.numberOr("denseShare", 0.25);
  if (!(denseShare >= 0 && denseShare <= 1)) throw Error(ErrorCode::BadRequest, "denseShare must be 0 to 1", "denseShare");
  // Whatever would be refused is refused before gigabytes are written.
  const std::vector<AttentionPolicy> policies = policiesOf(options);
  const std::vector<bool> modes = streamModes(options);
  RenderRequest wanted;
  wanted.device = benchDevice(options);
  wanted.precision = benchPrecision(options);
  const Precision precision = choosePrecision(wanted);
  const auto newBackend = [&] { return makeBackend(wanted.device, {precision, static_cast<int>(std::clamp<int64_t>(options.integerOr("threads", 0), 0, 1024)), 0}); };
  newBackend();
  std::string folder = options.stringOr("model", "");
  std::optional<ScratchFolder> scratch;
  if (folder.empty()) {
    folder = scratch.emplace(options, "vmoba-bench-model").path();
    Json made;
    made.set("preset", options.stringOr("preset", "1.3b")).set("tokenizer", "");  // only the transformer is written
    if (const int64_t layers = options.integerOr("layers", 0); layers > 0) made.set("layers", layers);
    const DitShape shape = RandomModelOptions::read(made).dit;
    Json line;
    progress(line.set("phase", "making random weights").set("folder", folder));
    writeRandomTensors(folder + "/dit.safetensors", planTensors(shape), describe(shape), 1, false);
  }
  const auto checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open((fs::path(folder) / "dit.safetensors").string()));
  Json rows(Json::Array{}), result;
  for (const bool streamed : modes) {
    const auto backend = newBackend();
    Dit dit(*backend, checkpoint, streamed);
    Passes passes(*backend, dit, grid, options);
    double denseSeconds = 0, denseProcessor = 0;
    for (const AttentionPolicy& policy : policies) {
      backend->restartPeaks();
      Json row = passes.row(policy);
      row.set("streamed", streamed);
      const double seconds = row.numberOr("seconds", 0), processor = row.numberOr("processorSeconds", 0);
      if (policy.dense) denseSeconds = seconds, denseProcessor = processor;
      if (denseSeconds > 0) row.set("speedup", denseSeconds / seconds).set("processorSpeedup", denseProcessor / processor);
      if (denseSeconds > 0 && !policy.dense) row.set("mixedSpeedup", denseSeconds / (denseShare * denseSeconds + (1 - denseShare) * seconds));
      // In the second round, the same policy's row of the first.
      if (const auto& known = rows.asArray("rows"); known.size() >= policies.size()) row.set("streamSlowdown", seconds / known[known.size() - policies.size()].numberOr("seconds", 0) - 1);
      row.set("poolPeakBytes", backend->peakBytes()).set("peakResidentBytes", peakResidentBytes());
      progress(row);
      rows.push(row);
    }
    if (!result.isNull()) continue;
    const DitConfig& config = dit.config();
    result.set("tokens", grid.tokens()).set("grid", Json::list(std::vector<int32_t>{grid.t, grid.h, grid.w})).set("layers", config.layers).set("dim", config.dim);
    result.set("heads", config.heads).set("branches", passes.branches).set("denseShare", denseShare).set("precision", precision == Precision::BF16 ? "bf16" : "f32").set("device", backend->name());
    result.set("instructionSet", backend->instructionSet()).set("threads", backend->threads()).set("weightBytes", dit.residentBytes()).set("repeats", passes.repeats);
  }
  // What the library makes of a bare product in the same run; after the rows, whose peak memory it would raise.
  if (wanted.device == "cpu") result.set("libraryGflops", 1e-9 * libraryMatrixRate(precision == Precision::BF16 ? DType::BF16 : DType::F32, grid.tokens(), wallSeconds));
  return result.set("rows", rows);
}

}  // namespace vmoba
