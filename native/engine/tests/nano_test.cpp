// Nano, the model that comes with the studio, through the whole engine: the same noise and prompt end where PyTorch ends
// (tests/reference/nano.safetensors, written by training/reference.py with every export).
#include <gtest/gtest.h>

#include <cmath>

#include "native/engine/session.h"
#include "native/weights/checkpoint.h"

namespace vmoba {
namespace {

const std::string kModel = VMOBA_ROOT "/resources/models/nano", kReference = VMOBA_ROOT "/tests/reference/nano.safetensors";

double number(const Checkpoint& file, const char* name) { return std::stod(file.metadata().at(name)); }

/// The latent after all steps from the reference's noise.
std::vector<float> finalLatent(const Checkpoint& reference, const std::string& precision) {
  Json request;
  for (const char* name : {"width", "height", "frames", "steps"}) request.set(name, static_cast<int64_t>(number(reference, name)));
  request.set("model", kModel).set("prompt", reference.metadata().at("prompt")).set("negativePrompt", "").set("guidanceScale", number(reference, "guidance"));
  request.set("shift", number(reference, "shift")).set("scheduler", "unipc").set("seed", "1").set("device", "cpu").set("threads", int64_t{1}).set("precision", precision);
  Json policy = Json::parse(R"({"version":1,"name":"nano","mode":"threshold","scope":"head_global","tau":0.25,"denseSteps":0,"minimumTokens":0,"cycle":["1d","2d","3d"],
                                "partitions":{"1d":1,"2d":[2,2],"3d":[2,2,2]}})");
  ModelCache cache;
  Session session(cache, RenderRequest::parse(request.set("policy", policy)), {});
  session.encodeText();
  session.setNoise(reference.require("noise").toFloat());
  while (!session.finished()) session.step({});
  return session.latent();
}

double relativeError(const std::vector<float>& actual, const std::vector<float>& expected) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    difference += std::pow(static_cast<double>(actual[i]) - expected[i], 2);
    norm += std::pow(static_cast<double>(expected[i]), 2);
  }
  return std::sqrt(difference / norm);
}

TEST(Nano, EndsWherePyTorchEndsInF32) {
  const Checkpoint reference = Checkpoint::open(kReference);
  const double error = relativeError(finalLatent(reference, "f32"), reference.require("latent").toFloat());
  RecordProperty("relative_error", std::to_string(error));
  EXPECT_LE(error, 1e-3);
}

TEST(Nano, StraysInBf16AtMostTwiceAsFarAsPyTorch) {
  const Checkpoint reference = Checkpoint::open(kReference);
  const double error = relativeError(finalLatent(reference, "bf16"), reference.require("latent").toFloat());
  RecordProperty("relative_error", std::to_string(error));
  EXPECT_LE(error, 2 * number(reference, "bf16_error"));
  EXPECT_GT(error, 0) << "bf16 was not used";
}

}  // namespace
}  // namespace vmoba
