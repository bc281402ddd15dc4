#include "native/tools/random_model/random_model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "native/base/error.h"
#include "native/engine/tokenizer/tokenizer.h"
#include "native/tools/random_model/architectures.h"
#include "native/tools/random_model/random_tensors.h"
#include "native/weights/checkpoint.h"

namespace vmoba {
namespace {

const std::string fixtures = VMOBA_FIXTURES;
const std::string tokenizerPath = fixtures + "/tokenizer/spiece.model";

class RandomModel : public testing::Test {
 protected:
  const std::string folder = testing::TempDir() + "vmoba-random-model-" + testing::UnitTest::GetInstance()->current_test_info()->name();
  void SetUp() override { std::filesystem::remove_all(folder); }
  void TearDown() override { std::filesystem::remove_all(folder); }
  static Json options(const std::string& preset, int seed = 1) {
    Json json;
    return json.set("preset", preset).set("tokenizer", tokenizerPath).set("seed", seed);
  }
  std::string text(const std::string& name) const {
    std::stringstream out;
    out << std::ifstream(folder + "/" + name, std::ios::binary).rdbuf();
    return out.str();
  }
};

std::map<std::string, std::vector<int64_t>> shapes(const Checkpoint& checkpoint) {
  std::map<std::string, std::vector<int64_t>> out;
  for (const auto& [name, tensor] : checkpoint.tensors()) out[name] = tensor.shape;
  return out;
}

TEST_F(RandomModel, TinyHasExactlyTheTensorsOfTheFixtures) {
  writeRandomModel(folder, options("tiny"));
  EXPECT_EQ(shapes(Checkpoint::open(folder + "/dit.safetensors")), shapes(Checkpoint::open(fixtures + "/wan_dit_t2v_tiny.safetensors")));
  EXPECT_EQ(shapes(Checkpoint::open(folder + "/vae.safetensors")), shapes(Checkpoint::open(fixtures + "/wan_vae_tiny.safetensors")));
  std::vector<std::string> names;
  for (const auto& [name, shape] : shapes(Checkpoint::open(fixtures + "/umt5_tiny.safetensors"))) names.push_back(name);
  EXPECT_NO_THROW(Checkpoint::open(folder + "/text_encoder.safetensors").expect(ModelKind::Umt5, names, true));
}

TEST_F(RandomModel, FoldersAreCompleteAndTheirPartsFit) {
  for (const std::string preset : {"tiny", "nano"}) {
    writeRandomModel(folder, options(preset));
    const Json description = Json::parse(text("model.json"));
    EXPECT_EQ(description.at("format").asString(), "vmoba-model/1");
    EXPECT_EQ(description.at("id").asString(), preset);
    EXPECT_TRUE(description.at("randomWeights").asBool());
    EXPECT_EQ(description.at("latent").at("mean").asArray().size(), 16u);
    EXPECT_EQ(description.at("preview").at("factors").asArray().size(), 16u);
    const Json& files = description.at("files");
    const Checkpoint dit = Checkpoint::open(folder + "/" + files.at("dit").asString());
    const Checkpoint encoder = Checkpoint::open(folder + "/" + files.at("textEncoder").asString());
    const Tokenizer tokenizer = Tokenizer::open(folder + "/" + files.at("tokenizer").asString());
    EXPECT_EQ(dit.kind(), ModelKind::WanDit);
    EXPECT_EQ(encoder.kind(), ModelKind::Umt5);
    EXPECT_EQ(Checkpoint::open(folder + "/" + files.at("vae").asString()).kind(), ModelKind::WanVae);
    EXPECT_GE(encoder.require("token_embedding.weight").shape[0], tokenizer.vocabularySize());
    EXPECT_EQ(encoder.require("token_embedding.weight").shape[1], dit.require("text_embedding.0.weight").shape[1]);
    EXPECT_EQ(dit.require("blocks.0.ffn.0.weight").dtype, DType::BF16);
    EXPECT_EQ(dit.require("blocks.0.ffn.0.bias").dtype, DType::F32);
    EXPECT_EQ(dit.require("blocks.0.modulation").dtype, DType::F32);
  }
}

TEST_F(RandomModel, DependsOnTheSeedAndOnNothingElse) {
  writeRandomModel(folder, options("tiny", 1));
  const std::string first = text("dit.safetensors") + text("vae.safetensors") + text("text_encoder.safetensors") + text("model.json");
  writeRandomModel(folder, options("tiny", 1));
  EXPECT_TRUE(text("dit.safetensors") + text("vae.safetensors") + text("text_encoder.safetensors") + text("model.json") == first);
  writeRandomModel(folder, options("tiny", 2));
  EXPECT_FALSE(text("dit.safetensors") + text("vae.safetensors") + text("text_encoder.safetensors") + text("model.json") == first);
}

TEST_F(RandomModel, WeightsHaveTheDeviationOfASaneInitialisation) {
  writeRandomModel(folder, options("nano"));
  const auto weights = Checkpoint::open(folder + "/dit.safetensors").require("blocks.3.ffn.2.weight").toFloat();
  double mean = 0;
  double square = 0;
  for (const float value : weights) mean += static_cast<double>(value) / static_cast<double>(weights.size());
  for (const float value : weights) square += static_cast<double>(value) * static_cast<double>(value) / static_cast<double>(weights.size());
  EXPECT_NEAR(mean, 0, 1e-3);
  EXPECT_NEAR(std::sqrt(square) * std::sqrt(768.0), 1, 0.01);
}

TEST(RandomModelPlan, WanHasItsRealNumberOfParameters) {
  const auto parameters = [](const std::vector<TensorPlan>& plan) {
    int64_t total = 0;
    for (const TensorPlan& tensor : plan) {
      int64_t elements = 1;
      for (const int64_t extent : tensor.shape) elements *= extent;
      total += elements;
    }
    return total;
  };
  const DitShape dit{.dim = 1536, .layers = 30, .heads = 12, .ffnDim = 8960, .freqDim = 256, .textDim = 4096, .textLength = 512};
  EXPECT_EQ(parameters(planTensors(dit)), 1'418'996'800);
  const VaeShape vae{.dim = 96};
  EXPECT_EQ(parameters(planTensors(vae)), 126'892'531);
}

TEST_F(RandomModel, RefusesBadOptions) {
  const auto field = [&](const Json& bad) {
    try {
      writeRandomModel(folder, bad);
    } catch (const Error& error) {
      return error.field();
    }
    return std::string("accepted");
  };
  EXPECT_EQ(field(options("huge")), "preset");
  EXPECT_EQ(field(options("tiny").set("dim", 97)), "heads");
  EXPECT_EQ(field(options("tiny").set("layers", 0)), "layers");
  EXPECT_EQ(field(options("tiny").set("tokenizer", folder + "/none")), "tokenizer");
  EXPECT_EQ(field(Json(Json::Object{})), "preset");
}

}  // namespace
}  // namespace vmoba
