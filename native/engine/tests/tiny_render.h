// A small render of a random model in a temporary folder, for tests that run sessions.
#pragma once
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>

#include "native/engine/session.h"
#include "native/tools/random_model/random_model.h"

namespace vmoba {

class TinyRender : public ::testing::Test {
 protected:
  void SetUp() override { std::filesystem::create_directories(folder_); }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  /// Nano's shape with random weights.
  std::string model() {
    const std::filesystem::path folder = folder_ / "model";
    if (!std::filesystem::exists(folder)) {
      Json options;
      options.set("preset", "nano").set("tokenizer", std::string(VMOBA_FIXTURES) + "/tokenizer/spiece.model").set("seed", int64_t{5});
      writeRandomModel(folder.string(), options);
    }
    return folder.string();
  }

  /// Members of a request: nine frames of 64×48 in three steps of the trained policy, strict f32. Change what a test is about.
  Json requestJson(const std::string& device) {
    const Json policy = Json::parse(R"({"version":1,"name":"trained","mode":"threshold","scope":"head_global","tau":0.25,"minimumTokens":0})");
    Json json;
    json.set("model", model()).set("prompt", "a red ball").set("negativePrompt", "").set("width", int64_t{64}).set("height", int64_t{48}).set("frames", int64_t{9});
    json.set("steps", int64_t{3}).set("guidanceScale", 3.0).set("shift", 3.0).set("scheduler", "unipc").set("seed", "7").set("policy", policy);
    return json.set("precision", "f32").set("device", device).set("threads", int64_t{2});
  }
  RenderRequest request(const std::string& device, double guidanceScale = 3) { return RenderRequest::parse(requestJson(device).set("guidanceScale", guidanceScale)); }

  std::filesystem::path folder_ = std::filesystem::temp_directory_path() / ("vmoba-render-test-" + std::to_string(getpid()));
};

inline double relativeDifference(const std::vector<float>& a, const std::vector<float>& b) {
  double difference = 0, norm = 0;
  for (size_t i = 0; i < a.size(); ++i) {
    difference += std::pow(static_cast<double>(a[i]) - static_cast<double>(b[i]), 2);
    norm += std::pow(static_cast<double>(b[i]), 2);
  }
  return std::sqrt(difference / norm);
}

}  // namespace vmoba
