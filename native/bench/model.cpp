#include "native/bench/model.h"

#include <algorithm>
#include <chrono>
#include <ctime>
#include <filesystem>

#include "native/backends/backend.h"
#include "native/base/error.h"
#include "native/bench/attention_rivals.h"
#include "native/bench/bench_options.h"
#include "native/engine/dit.h"
#include "native/engine/noise.h"
#include "native/engine/policy.h"
#include "native/engine/session.h"
#include "native/tools/random_model/random_model_options.h"
#include "native/tools/random_model/random_tensors.h"

namespace vmoba {
namespace {

Json namedPolicy(const Json& entry) {
  if (entry.isObject()) return entry;
  const std::string& name = entry.asString("policies");
  Json policy;
  policy.set("name", name);
  if (name == "dense") return policy.set("mode", "dense");
  if (name == "vmoba-training-free") return policy.set("mode", "topk").set("scope", "query_head").set("kShare", 0.25);
  if (name == "vmoba-trained") return policy.set("mode", "threshold").set("scope", "head_global").set("tau", 0.25);
  throw Error(ErrorCode::BadRequest, "policies are dense, vmoba-training-free, vmoba-trained or a policy object, not '" + name + "'", "policies");
}

}  // namespace

Json benchModel(const Json& options, const std::function<void(const Json&)>& progress) {
  namespace fs = std::filesystem;
  const Grid grid = benchGrid(options, 2550);
  std::string folder = options.stringOr("model", "");
  fs::path scratch;
  if (folder.empty()) {
    scratch = fs::path(options.stringOr("scratch", fs::temp_directory_path().string())) / "vmoba-bench-model";
    folder = scratch.string();
    Json made;
    made.set("preset", options.stringOr("preset", "1.3b")).set("tokenizer", "");  // only the transformer is written
    if (const int64_t layers = options.integerOr("layers", 0); layers > 0) made.set("layers", layers);
    const DitShape shape = RandomModelOptions::read(made).dit;
    Json line;
    progress(line.set("phase", "making random weights").set("folder", folder));
    fs::create_directories(scratch);
    writeRandomTensors((scratch / "dit.safetensors").string(), planTensors(shape), describe(shape), 1);
  }
  const auto checkpoint = std::make_shared<const Checkpoint>(Checkpoint::open((fs::path(folder) / "dit.safetensors").string()));
  RenderRequest wanted;
  wanted.device = benchDevice(options);
  wanted.precision = options.stringOr("precision", "auto");
  const Precision precision = choosePrecision(wanted);
  const auto backend = makeBackend(wanted.device, {precision, static_cast<int>(options.integerOr("threads", 0)), 0});
  Dit dit(*backend, checkpoint, options.boolOr("stream", false));
  const DitConfig& config = dit.config();

  const Shape latentShape{config.inChannels, int64_t{grid.t} * config.patch[0], int64_t{grid.h} * config.patch[1], int64_t{grid.w} * config.patch[2]};
  const Tensor latent = backend->allocate(DType::F32, latentShape);
  backend->upload(latent, gaussianNoise(1, 0, latentShape.elements()).data());
  const std::vector<float> text = gaussianNoise(2, 0, std::min<int64_t>(config.textLength, 40) * config.textDim);
  Conditioning conditioning = dit.condition(text);
  const RopeTable rope = dit.ropeTable(grid);

  std::vector<Json> policies;
  if (const Json* list = options.find("policies"); list != nullptr) {
    if (list->isString()) policies.push_back(namedPolicy(*list));
    else
      for (const Json& entry : list->asArray("policies")) policies.push_back(namedPolicy(entry));
  } else {
    for (const char* name : {"dense", "vmoba-trained", "vmoba-training-free"}) policies.push_back(namedPolicy(Json(name)));
  }
  const int64_t repeats = std::clamp<int64_t>(options.integerOr("repeats", 3), 1, 100);

  Json rows(Json::Array{});
  double denseSeconds = 0, denseProcessor = 0;
  for (const Json& policyJson : policies) {
    const AttentionPolicy policy = AttentionPolicy::parse(policyJson);
    const AttentionPlan plan(policy, grid, config.layers, 1);
    std::vector<LayerAttention> attention;
    for (int64_t layer = 0; layer < config.layers; ++layer) attention.push_back(plan.decide(layer, 0).attention);
    std::vector<double> total, processor, linears, attending, routing, other;
    double flops = 0, density = 0;
    // The first pass fills pools and caches and is not counted; where a pass takes a minute, that no longer matters.
    for (int64_t repeat = options.boolOr("warmUp", true) ? 0 : 1; repeat <= repeats; ++repeat) {
      std::vector<AttentionStatistics> statistics;
      Dit::Branch branch{latent, &conditioning, backend->allocate(DType::F32, {config.outChannels, latentShape[1], latentShape[2], latentShape[3]}), &statistics};
      backend->takeSeconds();
      const auto started = std::chrono::steady_clock::now();
      const std::clock_t processorStarted = std::clock();
      dit.forward(std::span(&branch, 1), 500, rope, attention);
      const double seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
      const KindSeconds kinds = backend->takeSeconds();
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
    const double seconds = median(total);
    if (policy.dense) denseSeconds = seconds, denseProcessor = median(processor);
    Json row;
    row.set("policy", policy.name).set("seconds", seconds).set("processorSeconds", median(processor)).set("linears", median(linears)).set("attention", median(attending)).set("routing", median(routing));
    row.set("other", median(other)).set("linearGflops", flops / median(linears) * 1e-9).set("density", density);
    if (denseSeconds > 0) row.set("speedup", denseSeconds / seconds).set("processorSpeedup", denseProcessor / median(processor));
    // What the arithmetic alone would allow: all work of a dense pass over what is left at this density.
    const double tokens = static_cast<double>(grid.tokens()), attentionFlops = 4 * tokens * tokens * static_cast<double>(config.dim * config.layers);
    row.set("ceiling", (flops + attentionFlops) / (flops + attentionFlops * density));
    row.set("poolPeakBytes", backend->peakBytes()).set("peakResidentBytes", peakResidentBytes());
    progress(row);
    rows.push(row);
  }
  if (!scratch.empty()) fs::remove_all(scratch);
  Json result;
  result.set("tokens", grid.tokens()).set("grid", Json::list(std::vector<int32_t>{grid.t, grid.h, grid.w})).set("layers", config.layers).set("dim", config.dim);
  result.set("heads", config.heads).set("precision", precision == Precision::BF16 ? "bf16" : "f32").set("device", backend->name());
  result.set("instructionSet", backend->instructionSet()).set("threads", backend->threads()).set("weightBytes", dit.residentBytes()).set("repeats", repeats);
  // What the library makes of a bare product in the same run; after the rows, whose peak memory it would raise.
  if (wanted.device == "cpu") result.set("libraryGflops", 1e-9 * libraryMatrixRate(precision == Precision::BF16 ? DType::BF16 : DType::F32, grid.tokens(), [] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
  }));
  return result.set("rows", rows);
}

}  // namespace vmoba
