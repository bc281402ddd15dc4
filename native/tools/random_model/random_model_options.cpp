#include "native/tools/random_model/random_model_options.h"

#include "native/base/error.h"

namespace vmoba {

namespace {

Json limits(int64_t minSide, int64_t maxTrainedSide, int64_t minFrames, int64_t maxTrainedFrames) {
  Json json;
  return json.set("sideMultiple", 16)
      .set("minSide", minSide)
      .set("maxTrainedSide", maxTrainedSide)
      .set("minFrames", minFrames)
      .set("maxTrainedFrames", maxTrainedFrames);
}

Json defaults(int64_t width, int64_t height, int64_t frames, int64_t fps, int64_t steps, int64_t guidanceScale, int64_t shift) {
  Json json;
  return json.set("width", width)
      .set("height", height)
      .set("frames", frames)
      .set("fps", fps)
      .set("steps", steps)
      .set("guidanceScale", guidanceScale)
      .set("shift", shift)
      .set("scheduler", "unipc")
      .set("negativePrompt", "");
}

Json policy(const std::string& name, const Json& partition1, const Json& partition2, const Json& partition3) {
  Json partitions;
  partitions.set("1d", partition1).set("2d", partition2).set("3d", partition3);
  Json json;
  return json.set("version", 1)
      .set("name", name)
      .set("mode", "threshold")
      .set("scope", "head_global")
      .set("tau", 0.25)
      .set("semantics", "exact")
      .set("partitions", partitions)
      .set("denseSteps", 0)
      .set("denseLayers", Json(Json::Array{}))
      .set("minimumTokens", 0);
}

Json list(const std::vector<int64_t>& values) { return Json::list(values); }

void applyPreset(RandomModelOptions& o) {
  if (o.preset == "tiny") {
    o.name = "Tiny (random weights)";
    o.dit = {.dim = 96, .layers = 3, .heads = 3, .ffnDim = 192, .freqDim = 64, .textDim = 48, .textLength = 32};
    o.vae = {.dim = 6};
    o.textEncoder = {.dim = 48, .attentionDim = 64, .heads = 4, .ffnDim = 160, .layers = 3};
    o.limits = limits(48, 96, 5, 33);
    o.defaults = defaults(64, 48, 9, 8, 4, 3, 2);
    o.policy = policy("tiny-untrained", 1, list({2, 2}), list({2, 2, 2}));
  } else if (o.preset == "nano") {
    o.name = "Nano (random weights)";
    o.dit = {.dim = 192, .layers = 4, .heads = 6, .ffnDim = 768, .freqDim = 128, .textDim = 128, .textLength = 32};
    o.vae = {.dim = 16};
    o.textEncoder = {.dim = 128, .attentionDim = 128, .heads = 4, .ffnDim = 256, .layers = 2};
    o.limits = limits(48, 96, 9, 33);
    o.defaults = defaults(64, 64, 17, 8, 20, 3, 2);
    o.policy = policy("nano-untrained", 1, list({2, 2}), list({2, 2, 2}));
  } else if (o.preset == "1.3b") {
    o.name = "Wan 1.3B shape (random weights)";
    o.dit = {.dim = 1536, .layers = 30, .heads = 12, .ffnDim = 8960, .freqDim = 256, .textDim = 4096, .textLength = 512};
    o.vae = {.dim = 96};
    o.textEncoder = {.dim = 4096, .attentionDim = 4096, .heads = 64, .ffnDim = 10240, .layers = 1};
    o.limits = limits(64, 832, 5, 81);
    o.defaults = defaults(832, 480, 81, 16, 50, 6, 8);
    o.policy = policy("1.3b-untrained", 3, list({10, 13}), list({3, 10, 13}));
  } else if (o.preset == "14b") {
    o.name = "Wan 14B shape (random weights)";
    o.dit = {.dim = 5120, .layers = 40, .heads = 40, .ffnDim = 13824, .freqDim = 256, .textDim = 4096, .textLength = 512};
    o.vae = {.dim = 96};
    o.textEncoder = {.dim = 4096, .attentionDim = 4096, .heads = 64, .ffnDim = 10240, .layers = 1};
    o.limits = limits(64, 1280, 5, 81);
    o.defaults = defaults(1280, 720, 81, 16, 50, 5, 5);
    o.policy = policy("14b-untrained", 3, list({9, 8}), list({3, 9, 8}));
  } else {
    throw Error(ErrorCode::BadRequest, "preset must be tiny, nano, 1.3b or 14b, not '" + o.preset + "'", "preset");
  }
}

}  // namespace

RandomModelOptions RandomModelOptions::read(const Json& options) {
  RandomModelOptions o;
  (void)options.asObject("options");
  o.preset = options.at("preset").asString("preset");
  o.tokenizer = options.at("tokenizer").asString("tokenizer");
  applyPreset(o);
  o.id = options.stringOr("id", o.preset);
  o.name = options.stringOr("name", o.name);
  o.seed = static_cast<uint64_t>(options.integerOr("seed", 0));
  for (const auto& [key, member] : {std::pair<const char*, int64_t*>{"dim", &o.dit.dim}, {"layers", &o.dit.layers}, {"heads", &o.dit.heads},
                                    {"ffnDim", &o.dit.ffnDim}, {"textLength", &o.dit.textLength}, {"textLayers", &o.textEncoder.layers}}) {
    *member = options.integerOr(key, *member);
    if (*member < 1 || *member > 65536) throw Error(ErrorCode::BadRequest, std::string(key) + " must lie between 1 and 65536", key);
  }
  if (o.dit.dim % (2 * o.dit.heads) != 0)
    throw Error(ErrorCode::BadRequest, "dim " + std::to_string(o.dit.dim) + " must be an even multiple of heads " + std::to_string(o.dit.heads), "heads");
  return o;
}

}  // namespace vmoba
