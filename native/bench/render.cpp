#include "native/bench/render.h"

#include <algorithm>
#include <cstdio>
#include <optional>

#include "native/base/error.h"
#include "native/bench/bench_options.h"
#include "native/bench/scratch_folder.h"
#include "native/engine/loaded_model.h"
#include "native/engine/session.h"
#include "native/tools/random_model/random_model.h"
#include "native/tools/random_model/random_model_options.h"

namespace vmoba {
namespace {

constexpr int64_t kStepsPerLine = 10;

/// What the random model is made of.
Json randomModelOf(const Json& options) {
  Json made;
  made.set("preset", options.stringOr("preset", "1.3b")).set("tokenizer", options.stringOr("tokenizer", "resources/models/nano/spiece.model")).set("durable", false);
  for (const char* name : {"layers", "textLayers"})
    if (const Json* value = options.find(name)) made.set(name, *value);
  return made;
}

Json policyOf(const Json& options) {
  const Json* given = options.find("policy");
  Json policy = namedPolicy(given != nullptr ? *given : Json("vmoba-training-free"), "policy");
  if (given != nullptr && given->isObject()) return policy;
  const std::string name = policy.stringOr("name", "");
  return name == "dense" ? policy : policy.set("denseSteps", options.numberOr("denseSteps", name == "vmoba-training-free" ? 0.25 : 0));
}

/// What the app would send, with the model's own defaults (or null) for what is not asked for.
RenderRequest requestOf(const std::string& folder, const Json* defaults, const Json& options) {
  Json request;
  request.set("model", folder).set("prompt", options.stringOr("prompt", "A red ball rolls over a wooden table, then falls to the floor."));
  request.set("negativePrompt", options.stringOr("negativePrompt", "")).set("seed", options.integerOr("seed", 0)).set("policy", policyOf(options));
  for (const char* name : {"width", "height", "frames", "steps", "guidanceScale", "shift", "scheduler"}) {
    const Json* value = options.find(name);
    if (value == nullptr && defaults != nullptr) value = defaults->find(name);
    if (value == nullptr) throw Error(ErrorCode::BadRequest, std::string(name) + " is needed: model.json has no default", name);
    request.set(name, *value);
  }
  request.set("device", benchDevice(options));
  for (const char* name : {"precision", "threads", "memoryLimitBytes", "runAnyway"})
    if (const Json* value = options.find(name)) request.set(name, *value);
  return RenderRequest::parse(request);
}

/// The request for a random model that has yet to be made: whatever would be refused is refused before gigabytes are written.
RenderRequest requestOfRandomModel(const RandomModelOptions& model, const Json& options) {
  RenderRequest request = requestOf("random", &model.defaults, options);
  DitConfig dit;
  std::copy(model.dit.patch.begin(), model.dit.patch.end(), dit.patch.begin());
  request.check(dit);
  makeBackend(request.device, {choosePrecision(request), request.threads, request.memoryLimitBytes});
  return request;
}

/// Steps as their reports tell of them.
class Steps {
 public:
  void add(const Json& report) {
    const Json& seconds = report.at("seconds");
    for (size_t kind = 0; kind < 4; ++kind) kinds_[kind] += seconds.numberOr(kKinds[kind], 0);
    bool dense = true;
    double density = 0;
    const auto& layers = report.at("layers").asArray("layers");
    for (const Json& layer : layers) {
      dense = dense && layer.boolOr("dense", false);
      density += layer.numberOr("density", 1) / static_cast<double>(layers.size());
    }
    (dense ? dense_ : sparse_).push_back(seconds.numberOr("total", 0));
    if (!dense) sparseDensity_ += density;
    density_ += density;
    if (first_ == 0) first_ = seconds.numberOr("total", 0);
    if (const Json* notices = report.find("notices"))
      for (const Json& notice : notices->asArray("notices")) notices_.push(notice);
  }

  void describe(Json& result) const {
    const size_t count = dense_.size() + sparse_.size();
    const auto medianOf = [](const std::vector<double>& values) { return values.empty() ? Json() : Json(median(values)); };
    Json kinds, seconds;
    for (size_t kind = 0; kind < 4; ++kind) kinds.set(kKinds[kind], kinds_[kind]);
    double total = 0;
    for (const auto* part : {&dense_, &sparse_})
      for (const double step : *part) total += step;
    seconds.set("first", first_).set("dense", medianOf(dense_)).set("sparse", medianOf(sparse_));
    result.set("denoiseByKind", kinds).set("denseSteps", static_cast<int64_t>(dense_.size())).set("sparseSteps", static_cast<int64_t>(sparse_.size())).set("stepSeconds", seconds);
    result.set("density", sparse_.empty() ? Json() : Json(sparseDensity_ / static_cast<double>(sparse_.size()))).set("meanDensity", density_ / static_cast<double>(count));
    const bool both = !dense_.empty() && !sparse_.empty();
    result.set("sparseSpeedup", both ? Json(median(dense_) / median(sparse_)) : Json());
    result.set("mixedSpeedup", both ? Json(median(dense_) * static_cast<double>(count) / (median(dense_) * static_cast<double>(dense_.size()) + median(sparse_) * static_cast<double>(sparse_.size()))) : Json());
    result.set("notices", notices_);
  }

 private:
  static constexpr const char* kKinds[] = {"linears", "attention", "routing", "other"};
  double kinds_[4] = {}, first_ = 0, density_ = 0, sparseDensity_ = 0;
  std::vector<double> dense_, sparse_;
  Json notices_{Json::Array{}};
};

}  // namespace

Json benchRender(const Json& options, const std::function<void(const Json&)>& progress) {
  const auto tell = [&](const char* phase, const Json& more = {}) {
    Json line;
    line.set("phase", phase);
    if (more.isObject())
      for (const auto& [name, value] : more.asObject("more")) line.set(name, value);
    progress(line);
  };
  std::string folder = options.stringOr("model", "");
  std::optional<ScratchFolder> scratch;
  double making = 0;
  RenderRequest request;
  if (folder.empty()) {
    const Json made = randomModelOf(options);
    request = requestOfRandomModel(RandomModelOptions::read(made), options);
    request.model = folder = scratch.emplace(options, "vmoba-bench-render").path();
    tell("making a random model", Json().set("folder", folder));
    const double started = wallSeconds();
    writeRandomModel(folder, made);
    making = wallSeconds() - started;
  } else {
    const Json description = ModelDescription::read(folder).json;
    request = requestOf(folder, description.find("defaults"), options);
  }
  const Json plan = planRender(request);
  tell("loading", Json().set("plan", plan).set("modelMadeInSeconds", making));

  ModelCache models;
  const double started = wallSeconds();
  Session session(models, request, {});
  const double loaded = wallSeconds();
  tell("encoding the text", Json().set("seconds", loaded - started));
  session.encodeText();
  const double encoded = wallSeconds();
  tell("denoising", Json().set("seconds", encoded - loaded));
  Steps steps;
  const Json stepOptions = Json().set("preview", options.boolOr("preview", false));
  for (int64_t step = 1; !session.finished(); ++step) {
    const Json report = session.step(stepOptions).report;
    steps.add(report);
    if (step % kStepsPerLine == 0) tell("denoising", Json().set("step", step).set("seconds", wallSeconds() - encoded).set("lastStep", report.at("seconds")));
  }
  const double denoised = wallSeconds();
  Backend& backend = *session.backend();
  const size_t samplingPeak = backend.peakBytes(), samplingHeld = backend.peakHeldBytes();
  tell("decoding", Json().set("seconds", denoised - encoded));
  backend.takeSeconds();
  double decoding = 0;
  int64_t frames = 0, width = 0, height = 0;
  uint64_t hash = 14695981039346656037ull;  // FNV-1a
  while (true) {
    const double before = wallSeconds();
    const RgbFrames decoded = session.decodeFrames();
    decoding += wallSeconds() - before;
    if (decoded.count == 0) break;
    frames += decoded.count;
    width = decoded.width;
    height = decoded.height;
    for (const uint8_t byte : decoded.rgb) hash = (hash ^ byte) * 1099511628211ull;
  }
  const KindSeconds decodeKinds = session.backend()->takeSeconds();
  tell("done", Json().set("seconds", decoding));

  Json seconds, decodeByKind, result;
  seconds.set("load", loaded - started).set("text", encoded - loaded).set("denoise", denoised - encoded).set("decode", decoding).set("total", denoised - started + decoding);
  decodeByKind.set("convolutions", decodeKinds.linears).set("attention", decodeKinds.attention).set("other", std::max(0.0, decoding - decodeKinds.linears - decodeKinds.attention));
  result.set("model", ModelDescription::read(folder).name).set("device", backend.name()).set("instructionSet", backend.instructionSet()).set("threads", backend.threads());
  result.set("precision", plan.at("precision")).set("width", width).set("height", height).set("frames", frames).set("tokens", plan.at("tokens")).set("steps", request.steps);
  result.set("guidanceScale", request.guidanceScale).set("policy", request.policy.toJson()).set("seconds", seconds).set("decodeByKind", decodeByKind);
  steps.describe(result);
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  result.set("poolPeakBytesSampling", samplingPeak).set("poolPeakBytes", session.backend()->peakBytes()).set("poolHeldPeakBytesSampling", samplingHeld).set("poolHeldPeakBytes", session.backend()->peakHeldBytes());
  result.set("peakResidentBytes", peakResidentBytes()).set("latentHash", session.latentHash()).set("framesHash", text).set("modelMadeInSeconds", making);
  return result.set("plan", plan);
}

}  // namespace vmoba
