#include "native/engine/request.h"

#include <charconv>
#include <cmath>

#include "native/base/error.h"

namespace vmoba {
namespace {

constexpr size_t kLongestPrompt = 10'000;
constexpr int64_t kSpatialStride = 8, kTemporalStride = 4;

[[noreturn]] void refuse(const char* field, const std::string& message) { throw Error(ErrorCode::BadRequest, message, field); }

int64_t whole(const Json& json, const char* field, int64_t least, int64_t most) {
  const int64_t value = json.at(field).asInteger(field);
  if (value < least || value > most) refuse(field, std::string(field) + " must be " + std::to_string(least) + " to " + std::to_string(most) + ", not " + std::to_string(value));
  return value;
}

double real(const Json& json, const char* field, double least, double most) {
  const double value = json.at(field).asNumber(field);
  if (!(value >= least && value <= most)) {
    char text[160];
    std::snprintf(text, sizeof text, "%s must be %g to %g, not %g", field, least, most, value);
    refuse(field, text);
  }
  return value;
}

uint64_t parseSeed(const Json& json) {
  const Json& seed = json.at("seed");
  if (seed.isInteger() && seed.asInteger() >= 0) return static_cast<uint64_t>(seed.asInteger());
  if (seed.isString()) {
    const std::string& text = seed.asString();
    uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && !text.empty()) return value;
  }
  refuse("seed", "seed must be a whole number from 0 to 18446744073709551615");
}

std::string promptText(const Json& json, const char* field, bool mayBeEmpty) {
  std::string text = json.stringOr(field, "");
  if (text.size() > kLongestPrompt) refuse(field, std::string(field) + " is longer than " + std::to_string(kLongestPrompt) + " bytes: shorten it");
  if (!mayBeEmpty && text.find_first_not_of(" \t\r\n") == std::string::npos) refuse(field, "the prompt is empty: say what the clip shows");
  return text;
}

}  // namespace

RenderRequest RenderRequest::parse(const Json& json) {
  if (!json.isObject()) refuse("", "the request must be an object");
  RenderRequest r;
  r.model = json.at("model").asString("model");
  r.prompt = promptText(json, "prompt", false);
  r.negativePrompt = promptText(json, "negativePrompt", true);
  r.width = whole(json, "width", 16, 8192);
  r.height = whole(json, "height", 16, 8192);
  r.frames = whole(json, "frames", 1, 4097);
  if ((r.frames - 1) % kTemporalStride != 0) {
    const int64_t below = (r.frames - 1) / kTemporalStride * kTemporalStride + 1;
    refuse("frames", "frames must be 4k+1 (" + std::to_string(below) + " or " + std::to_string(below + kTemporalStride) + "), not " + std::to_string(r.frames));
  }
  r.steps = whole(json, "steps", 1, 1000);
  r.guidanceScale = real(json, "guidanceScale", 0, 100);
  r.shift = real(json, "shift", 0.01, 100);
  r.scheduler = parseScheduler(json.stringOr("scheduler", "unipc"));
  r.seed = parseSeed(json);
  r.policyJson = json.at("policy");
  r.policy = AttentionPolicy::parse(r.policyJson);
  r.precision = json.stringOr("precision", "auto");
  if (r.precision != "auto" && r.precision != "f32" && r.precision != "bf16") refuse("precision", "precision must be auto, f32 or bf16");
  r.device = json.stringOr("device", "cpu");
  r.threads = static_cast<int>(json.integerOr("threads", 0));
  if (r.threads < 0 || r.threads > 1024) refuse("threads", "threads must be 0 (all cores) to 1024");
  const int64_t limit = json.integerOr("memoryLimitBytes", 0);
  if (limit < 0) refuse("memoryLimitBytes", "memoryLimitBytes must not be negative");
  r.memoryLimitBytes = static_cast<size_t>(limit);
  r.runAnyway = json.boolOr("runAnyway", false);
  return r;
}

void RenderRequest::check(const DitConfig& dit) const {
  const auto side = [](const char* field, int64_t value, int64_t multiple) {
    if (value % multiple == 0) return;
    const int64_t below = std::max<int64_t>(multiple, value / multiple * multiple);
    refuse(field, std::string(field) + " must be a multiple of " + std::to_string(multiple) + " for this model (" + std::to_string(below) + " or " +
                      std::to_string(below + multiple) + "), not " + std::to_string(value));
  };
  side("width", width, kSpatialStride * dit.patch[2]);
  side("height", height, kSpatialStride * dit.patch[1]);
  const int64_t latentFrames = (frames - 1) / kTemporalStride + 1;
  if (latentFrames % dit.patch[0] != 0) refuse("frames", "the clip length does not divide by the model's temporal patch");
  if (latentFrames * (height / kSpatialStride) * (width / kSpatialStride) > (int64_t{1} << 24)) refuse("width", "the clip is too large: more than 16 million latent positions");
}

Shape RenderRequest::latentShape(const DitConfig& dit) const {
  return {dit.outChannels, (frames - 1) / kTemporalStride + 1, height / kSpatialStride, width / kSpatialStride};
}

Grid RenderRequest::grid(const DitConfig& dit) const {
  const Shape latent = latentShape(dit);
  return {static_cast<int32_t>(latent[1] / dit.patch[0]), static_cast<int32_t>(latent[2] / dit.patch[1]), static_cast<int32_t>(latent[3] / dit.patch[2])};
}

std::string RenderRequest::identity() const {
  Json json;
  json.set("prompt", prompt).set("negativePrompt", negativePrompt).set("width", width).set("height", height).set("frames", frames).set("steps", steps);
  json.set("guidanceScale", guidanceScale).set("shift", shift).set("scheduler", schedulerName(scheduler)).set("seed", std::to_string(seed)).set("policy", policy.toJson());
  return json.dump();
}

}  // namespace vmoba
