#include "native/engine/session.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <utility>

#include "native/base/error.h"
#include "native/base/parallel.h"
#include "native/engine/noise.h"
#include "native/engine/prompt_words.h"

namespace vmoba {
namespace {

DitConfig checkedConfig(const RenderRequest& request, const Checkpoint& dit) {
  DitConfig config = DitConfig::read(dit);
  if (config.imageToVideo)
    throw Error(ErrorCode::Unsupported, "this checkpoint is image-to-video; only text-to-video renders are offered", "model");
  request.check(config);
  return config;
}

MemoryPlan planFor(const RenderRequest& request, const ModelFiles& files) {
  const DeviceInfo device = describeDevice(request.device);
  return planMemory(request, *files.dit, *files.vae, *files.textEncoder, choosePrecision(request), threadsFor(request.threads),
                    request.memoryLimitBytes != 0 ? request.memoryLimitBytes : device.memoryBytes / 10 * 9);
}

std::string megabytes(size_t bytes) { return std::to_string(bytes >> 20) + " MiB"; }

/// Colours from -1 to 1 as bytes.
std::vector<uint8_t> toBytes(const std::vector<float>& values) {
  std::vector<uint8_t> bytes(values.size());
  parallelForRanges(static_cast<int64_t>(values.size()), 1 << 16, [&](int64_t begin, int64_t end) {
    std::transform(values.begin() + begin, values.begin() + end, bytes.begin() + begin,
                   [](float value) { return static_cast<uint8_t>(std::lround((std::clamp(value, -1.0f, 1.0f) + 1.0f) * 127.5f)); });
  });
  return bytes;
}

}  // namespace

Json planRender(const RenderRequest& request) {
  const ModelFiles files = ModelFiles::open(request.model);
  const DitConfig config = checkedConfig(request, *files.dit);
  const MemoryPlan plan = planFor(request, files);
  const Grid grid = request.grid(config);
  const AttentionPlan attention(request.policy, grid, config.layers, request.steps);
  const FlopCount flops = countFlops(request, config, *files.vae, attention.expectedDensity());
  const Shape latent = request.latentShape(config);
  Json json;
  json.set("grid", Json::list(std::vector<int32_t>{grid.t, grid.h, grid.w})).set("tokens", grid.tokens());
  json.set("latentShape", Json::list(std::vector<int64_t>{latent[0], latent[1], latent[2], latent[3]}));
  json.set("precision", choosePrecision(request) == Precision::BF16 ? "bf16" : "f32");
  Json memory;
  memory.set("weights", plan.weights).set("encoding", plan.encoding).set("sampling", plan.sampling).set("decoding", plan.decoding).set("peak", plan.peak);
  json.set("memory", memory).set("weightsStreamed", plan.streamWeights).set("decodeTiled", plan.decodeTile != 0).set("fitsLimit", plan.fits);
  Json work;
  work.set("linears", flops.linears).set("attentionDense", flops.attentionDense).set("attentionPolicy", flops.attentionPolicy).set("text", flops.text).set("decode", flops.decode);
  json.set("flops", work);
  Json partitions(Json::Array{});
  for (const auto& use : attention.partitions()) {
    Json entry, block;
    const Partition& p = use.blocks.partition;
    if (use.kind == PartitionKind::Temporal1D) block.push(p.frames);
    if (use.kind == PartitionKind::SpaceTime3D) block.push(p.blockT);
    if (use.kind != PartitionKind::Temporal1D) {
      block.push(p.blockH);
      block.push(p.blockW);
    }
    entry.set("name", partitionName(use.kind)).set("block", block).set("blocks", use.blocks.blocks()).set("expectedDensity", use.expectedDensity);
    partitions.push(entry);
  }
  json.set("partitions", partitions);
  Json warnings(Json::Array{});
  const Json* limits = files.description.json.find("limits");
  if (limits != nullptr) {
    const int64_t side = limits->integerOr("maxTrainedSide", 0), frames = limits->integerOr("maxTrainedFrames", 0), least = limits->integerOr("minSide", 0);
    if (side > 0 && std::max(request.width, request.height) > side)
      warnings.push(files.description.name + " was trained up to " + std::to_string(side) + " pixels a side; larger clips may lose their shapes");
    if (least > 0 && std::min(request.width, request.height) < least)
      warnings.push(files.description.name + " was trained from " + std::to_string(least) + " pixels a side; smaller clips may lose their shapes");
    if (frames > 0 && request.frames > frames)
      warnings.push(files.description.name + " was trained up to " + std::to_string(frames) + " frames; longer clips may lose their motion");
  }
  if (!plan.fits) warnings.push("needs about " + megabytes(plan.peak) + ", more than the memory limit");
  return json.set("warnings", warnings);
}

/// Wires cancel flag and heartbeat into the backend for the duration of one call.
class Session::Running {
 public:
  Running(Session& session, const char* phase) : session_(session) {
    session.cancelled_ = false;
    progress_ = {phase, 0};
    session.model_->backend().setCancelFlag(&session.cancelled_);
    session.model_->backend().setHeartbeat([this] { report(); });
  }
  ~Running() {
    session_.model_->backend().setHeartbeat({});
    session_.model_->backend().setCancelFlag(nullptr);
  }
  void report() const {
    if (session_.progress_) session_.progress_(progress_);
  }
  Progress progress_;

 private:
  Session& session_;
};

template <class Work>
auto Session::withFallback(const Work& work) {
  while (true) {
    try {
      return work();
    } catch (const Error& error) {
      std::string how;
      const bool resident = !plan_.streamWeights;
      if (error.code() != ErrorCode::OutOfMemory || !shrinkSampling(plan_, request_.guided(), &how)) throw;
      notices_.push_back("memory ran out (" + std::string(error.what()) + "); the render goes on with " + how);
      if (!(resident && plan_.streamWeights)) continue;
      // Everything that lives on the device goes, before the model is loaded the other way.
      stored();
      state_ = {state_.step, state_.lastOrder};
      conditional_.reset();
      unconditional_.reset();
      decoder_.reset();
      rope_ = {};
      model_.reset();
      cache_.clear();
    }
  }
}

Session::Session(ModelCache& cache, RenderRequest request, ProgressCallback progress)
    : cache_(cache),
      request_(std::move(request)),
      progress_(std::move(progress)),
      attention_({}, {1, 1, 1}, 1, 1),
      scheduler_(request_.scheduler, makeSigmas(request_.steps, request_.shift, highestSigma(request_.scheduler))) {
  const ModelFiles files = ModelFiles::open(request_.model);
  const DitConfig config = checkedConfig(request_, *files.dit);
  plan_ = planFor(request_, files);
  if (!plan_.fits && !request_.runAnyway)
    throw Error(ErrorCode::OutOfMemory, "this render needs about " + megabytes(plan_.peak) + ", more than the memory limit; choose a smaller size or length, raise the limit, or run it anyway", "memoryLimitBytes");
  latentShape_ = request_.latentShape(config);
  attention_ = AttentionPlan(request_.policy, request_.grid(config), config.layers, request_.steps);
  stored_ = StoredState{0, 0, gaussianNoise(request_.seed, 0, latentShape_.elements())};
  withFallback([&] { load(); });
}

void Session::load() {
  if (!model_)
    model_ = cache_.get(request_, plan_, ModelFiles::open(request_.model), [this](double fraction) {
      if (progress_) progress_({"loading", fraction});
    });
  if (!rope_.cosine) rope_ = model_->dit().ropeTable(request_.grid(model_->dit().config()));
  if (!state_.x) state_ = upload(model_->backend(), *stored_, latentShape_);
}

const StoredState& Session::stored() const {
  if (!stored_) stored_ = download(model_->backend(), state_);
  return *stored_;
}

Session::~Session() = default;

void Session::setNoise(std::vector<float> noise) {
  if (state_.step != 0 || static_cast<int64_t>(noise.size()) != latentShape_.elements()) throw Error(ErrorCode::Internal, "noise can only replace the start");
  stored_ = StoredState{0, 0, std::move(noise)};
  state_ = {};
  load();
}

Json Session::encodeText() {
  load();
  const auto started = std::chrono::steady_clock::now();
  Running running(*this, "encoding");
  prompt_ = model_->encode(request_.prompt);
  conditional_ = model_->dit().condition(prompt_->rows);
  if (request_.guided()) unconditional_ = model_->dit().condition(model_->encode(request_.negativePrompt)->rows);
  model_->backend().takeSeconds();
  running.progress_.fraction = 1;
  running.report();
  Json words(Json::Array{});
  for (const PromptWord& word : promptWords(request_.prompt, prompt_->tokens)) {
    Json entry;
    entry.set("text", word.text).set("firstRow", word.firstRow).set("rows", word.rows);
    words.push(entry);
  }
  Json json;
  json.set("tokens", static_cast<int64_t>(prompt_->tokens.size())).set("truncated", prompt_->truncated).set("words", words);
  return json.set("seconds", std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count());
}

Session::StepResult Session::step(const Json& options) {
  return withFallback([&] { return stepOnce(options); });
}

Session::StepResult Session::stepOnce(const Json& options) {
  if (!conditional_) encodeText();
  if (finished()) throw Error(ErrorCode::BadRequest, "all steps are done", "step");
  const auto started = std::chrono::steady_clock::now();
  Running running(*this, "sampling");
  Backend& backend = model_->backend();
  Dit& dit = model_->dit();
  const DitConfig& config = dit.config();
  const int64_t index = state_.step, layers = config.layers, steps = scheduler_.steps();
  running.progress_ = {"sampling", static_cast<double>(index) / static_cast<double>(steps), index, 0};
  backend.takeSeconds();

  std::vector<AttentionPlan::Decision> decisions;
  std::vector<LayerAttention> layerAttention;
  for (int64_t layer = 0; layer < layers; ++layer) {
    decisions.push_back(attention_.decide(layer, index));
    layerAttention.push_back(decisions.back().attention);
  }

  std::vector<AttentionStatistics> statistics;
  WordMap words;
  const Json* maps = options.find("maps");
  std::vector<Dit::Branch> branches;
  Dit::Branch conditional{state_.x, &*conditional_, backend.allocate(DType::F32, latentShape_), &statistics};
  if (maps != nullptr && maps->isObject()) {
    conditional.mapLayer = static_cast<int32_t>(maps->integerOr("layer", 0));
    conditional.mapRequest = {true, static_cast<int32_t>(maps->integerOr("head", -1))};
    if (maps->boolOr("words", false)) {
      const auto groups = promptWords(request_.prompt, prompt_->tokens);
      words.groups = static_cast<int32_t>(groups.size());
      words.keyGroup.assign(static_cast<size_t>(config.textLength), -1);
      for (size_t g = 0; g < groups.size(); ++g)
        for (int64_t row = 0; row < groups[g].rows; ++row) words.keyGroup[static_cast<size_t>(groups[g].firstRow + row)] = static_cast<int32_t>(g);
      words.mass = backend.allocate(DType::F32, {std::max<int64_t>(1, words.groups), rope_.grid.tokens()});
      backend.zero(words.mass);
      conditional.words = &words;
    }
  }
  branches.push_back(conditional);
  if (request_.guided()) branches.push_back({state_.x, &*unconditional_, backend.allocate(DType::F32, latentShape_)});

  const auto timestep = static_cast<float>(scheduler_.schedule().timesteps[static_cast<size_t>(index)]);
  const int64_t passes = plan_.sequentialBranches ? static_cast<int64_t>(branches.size()) : 1;
  int64_t layersDone = 0;
  const auto onLayer = [&](int64_t) {
    ++layersDone;
    running.progress_.layer = layersDone / passes;
    running.progress_.fraction = (static_cast<double>(index) + static_cast<double>(layersDone) / static_cast<double>(layers * passes)) / static_cast<double>(steps);
    running.report();
  };
  if (plan_.sequentialBranches) {
    for (Dit::Branch& branch : branches) dit.forward(std::span(&branch, 1), timestep, rope_, layerAttention, onLayer);
  } else {
    dit.forward(branches, timestep, rope_, layerAttention, onLayer);
  }

  Tensor velocity = branches[0].velocity;
  if (request_.guided()) velocity = guide(backend, velocity, branches[1].velocity, static_cast<float>(request_.guidanceScale));
  if (!backend.allFinite(velocity))
    throw Error(ErrorCode::NumericalFault, "the model gave NaN or infinity at step " + std::to_string(index + 1) + ": the checkpoint may be damaged, or needs f32 precision");
  const float sigma = scheduler_.schedule().sigmas[static_cast<size_t>(index)];
  state_ = scheduler_.advance(backend, state_, velocity);
  stored_.reset();

  StepResult result;
  const KindSeconds kinds = backend.takeSeconds();
  const double total = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  Json seconds;
  seconds.set("total", total).set("linears", kinds.linears).set("attention", kinds.attention).set("routing", kinds.routing);
  seconds.set("other", std::max(0.0, total - kinds.linears - kinds.attention - kinds.routing));
  Json layerReports(Json::Array{});
  for (int64_t layer = 0; layer < layers; ++layer) {
    const auto& decision = decisions[static_cast<size_t>(layer)];
    const AttentionStatistics& s = statistics[static_cast<size_t>(layer)];
    Json entry;
    entry.set("layer", layer).set("partition", decision.partition ? Json(partitionName(*decision.partition)) : Json());
    entry.set("dense", !decision.partition.has_value()).set("reason", decision.partition ? Json() : Json(decision.reason)).set("density", s.density);
    entry.set("selectedBlocks", s.meanSelectedBlocks).set("tileUnionBlocks", s.meanTileUnionBlocks).set("attentionSeconds", s.attentionSeconds);
    entry.set("routingSeconds", s.routingSeconds).set("headDensity", Json::list(s.headDensity));
    layerReports.push(entry);
  }
  result.report.set("step", index).set("steps", steps).set("timestep", static_cast<double>(timestep)).set("sigma", static_cast<double>(sigma));
  result.report.set("seconds", seconds).set("layers", layerReports).set("peakBytes", peakResidentBytes());
  if (!notices_.empty()) result.report.set("notices", Json::list(std::exchange(notices_, {})));
  if (options.boolOr("preview", false)) result.preview = previewFrames();
  fillMaps(result, options, statistics, words.groups > 0 ? &words : nullptr);
  return result;
}

void Session::fillMaps(StepResult& result, const Json& options, const std::vector<AttentionStatistics>& statistics, WordMap* words) const {
  const Json* maps = options.find("maps");
  if (maps == nullptr || !maps->isObject()) return;
  const int64_t layer = maps->integerOr("layer", 0);
  if (layer < 0 || layer >= static_cast<int64_t>(statistics.size())) throw Error(ErrorCode::BadRequest, "maps.layer is outside the model's layers", "maps.layer");
  const AttentionStatistics& s = statistics[static_cast<size_t>(layer)];
  Json parts(Json::Array{});
  const auto add = [&](const char* name, const std::vector<float>& values, std::vector<int64_t> shape) {
    Json part;
    part.set("name", name).set("offset", static_cast<int64_t>(result.maps.size())).set("shape", Json::list(shape));
    parts.push(part);
    result.maps.insert(result.maps.end(), values.begin(), values.end());
  };
  const auto blocks = static_cast<int64_t>(s.blockReceived.size());
  if (blocks > 0) {
    add("blockReceived", s.blockReceived, {blocks});
    add("selectionMap", s.selectionMap, {blocks, blocks});
    // Which block every token belongs to, so that a client can paint blocks over frames without knowing partitions.
    const AttentionPlan::Decision decision = attention_.decide(layer, state_.step - 1);
    if (decision.attention.blocks != nullptr) {
      const BlockPlan& plan = *decision.attention.blocks;
      std::vector<float> owner(static_cast<size_t>(plan.tokens()));
      for (int32_t block = 0; block < plan.blocks(); ++block)
        for (int32_t at = plan.start[static_cast<size_t>(block)]; at < plan.start[static_cast<size_t>(block) + 1]; ++at)
          owner[static_cast<size_t>(plan.permutation.empty() ? at : plan.permutation[static_cast<size_t>(at)])] = static_cast<float>(block);
      add("blockOfToken", owner, {rope_.grid.t, rope_.grid.h, rope_.grid.w});
    }
  }
  if (words != nullptr) {
    std::vector<float> mass(static_cast<size_t>(words->mass.elements()));
    model_->backend().download(words->mass, mass.data());
    for (float& value : mass) value /= static_cast<float>(statistics.size());
    add("wordMass", mass, {words->groups, rope_.grid.t, rope_.grid.h, rope_.grid.w});
  }
  result.mapHeader.set("layer", layer).set("head", maps->integerOr("head", -1)).set("step", state_.step - 1);
  result.mapHeader.set("grid", Json::list(std::vector<int32_t>{rope_.grid.t, rope_.grid.h, rope_.grid.w})).set("parts", parts);
}

RgbFrames Session::previewFrames() {
  const LoadedModel::PreviewProjection& projection = model_->preview();
  Backend& backend = model_->backend();
  const Tensor factors = backend.makeVector(std::span(projection.factors.front().data(), projection.factors.size() * 3)).reshaped({latentShape_[0], 3});
  const Tensor colours = backend.allocate(DType::F32, {latentShape_[1], latentShape_[2], latentShape_[3], 3});
  backend.projectChannels(state_.estimate1, factors, backend.makeVector(projection.bias), colours);
  std::vector<float> values(static_cast<size_t>(colours.elements()));
  backend.download(colours, values.data());
  return {latentShape_[1], latentShape_[3], latentShape_[2], toBytes(values)};
}

std::string Session::hashOf(const std::vector<float>& latent) {
  uint64_t hash = 14695981039346656037ull;
  const auto* bytes = reinterpret_cast<const unsigned char*>(latent.data());
  for (size_t i = 0; i < latent.size() * sizeof(float); ++i) hash = (hash ^ bytes[i]) * 1099511628211ull;
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(hash));
  return text;
}

RgbFrames Session::decodeFrames() {
  if (!finished()) throw Error(ErrorCode::BadRequest, "sampling is not finished", "step");
  load();
  DecodedFrames decoded;
  for (bool done = false; !done;) {
    try {
      Running running(*this, "decoding");
      // What sampling left in the pool fits no image, and what the single first frame leaves fits no later run of four.
      if (!decoder_ || framesDecoded_ == 1) model_->backend().trim();
      if (!decoder_) decoder_ = std::make_unique<Vae::Decoder>(model_->vae(), stored().x, latentShape_, plan_.decodeTile);
      running.progress_.fraction = decoder_->fraction();
      decoded = decoder_->next();
      running.progress_.fraction = decoder_->fraction();
      running.report();
      done = true;
    } catch (const Error& error) {
      // Smaller tiles, but never in the middle of a clip: their seams would show there.
      if (error.code() != ErrorCode::OutOfMemory || framesDecoded_ > 0 || !shrinkDecoding(plan_, latentShape_)) throw;
      decoder_.reset();
    }
  }
  framesDecoded_ += decoded.count;
  return {decoded.count, decoded.width, decoded.height, toBytes(decoded.pixels)};
}

}  // namespace vmoba
