#include "native/weights/checkpoint.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>

#include "native/base/error.h"
#include "native/weights/tests/rewrite.h"

namespace vmoba::test {
namespace {

std::string fixture(const std::string& name) { return std::string(VMOBA_FIXTURES) + "/" + name; }
std::string unchanged(const std::string& name) { return name; }

// Same names, shapes and values, up to `relative` times the value plus `share` times the tensor's largest magnitude.
void expectSameTensors(const Checkpoint& actual, const Checkpoint& expected, float relative = 0, float share = 0) {
  ASSERT_EQ(actual.tensors().size(), expected.tensors().size());
  for (const auto& [name, wanted] : expected.tensors()) {
    const WeightView* found = actual.find(name);
    ASSERT_NE(found, nullptr) << name;
    EXPECT_EQ(found->name, name);
    ASSERT_EQ(found->shape, wanted.shape) << name;
    const auto a = found->toFloat();
    const auto b = wanted.toFloat();
    float largest = 0;
    for (const float value : b) largest = std::max(largest, std::abs(value));
    for (size_t i = 0; i < b.size(); ++i) ASSERT_LE(std::abs(a[i] - b[i]), relative * std::abs(b[i]) + share * largest) << name << " at " << i;
  }
}

TEST(Checkpoint, ReadsEveryFixture) {
  int files = 0;
  for (const auto& entry : std::filesystem::directory_iterator(VMOBA_FIXTURES)) {
    if (entry.path().extension() != ".safetensors") continue;
    const Checkpoint checkpoint = Checkpoint::open(entry.path().string());
    EXPECT_FALSE(checkpoint.tensors().empty());
    EXPECT_FALSE(checkpoint.metadata().empty());
    for (const auto& [name, tensor] : checkpoint.tensors())
      for (const float value : tensor.toFloat()) ASSERT_FALSE(std::isnan(value)) << entry.path() << " " << name;
    ++files;
  }
  EXPECT_GE(files, 22);
}

TEST(Checkpoint, KnowsWhatItHolds) {
  EXPECT_EQ(Checkpoint::open(fixture("wan_dit_t2v_tiny.safetensors")).kind(), ModelKind::WanDit);
  EXPECT_EQ(Checkpoint::open(fixture("wan_dit_i2v_tiny.safetensors")).kind(), ModelKind::WanDit);
  EXPECT_EQ(Checkpoint::open(fixture("wan_vae_tiny.safetensors")).kind(), ModelKind::WanVae);
  EXPECT_EQ(Checkpoint::open(fixture("umt5_tiny.safetensors")).kind(), ModelKind::Umt5);
  EXPECT_EQ(Checkpoint::open(fixture("wan_dit_t2v_tiny.io.safetensors")).kind(), ModelKind::Unknown);
}

TEST(Checkpoint, GivesShapesAndValues) {
  const Checkpoint dit = Checkpoint::open(fixture("wan_dit_t2v_tiny.safetensors"));
  const WeightView& patch = dit.require("patch_embedding.weight", {96, 16, 1, 2, 2});
  EXPECT_EQ(patch.dtype, DType::F32);
  EXPECT_EQ(patch.elements(), 96 * 16 * 4);
  EXPECT_NO_THROW(dit.require("patch_embedding.weight", {96, -1, -1, 2, 2}));
  EXPECT_EQ(dit.metadata().at("num_heads"), "3");
  const auto before = patch.toFloat();
  patch.release();
  EXPECT_EQ(patch.toFloat(), before);
}

class SameDit : public testing::TestWithParam<const char*> {
 protected:
  TemporaryFolder folder;
  const Checkpoint original = Checkpoint::open(fixture(GetParam()));
  Checkpoint rewritten(const Tensors& tensors, const std::map<std::string, std::string>& metadata = {}) {
    write(folder.file("dit.safetensors"), tensors, metadata);
    return Checkpoint::open(folder.file("dit.safetensors"));
  }
};
INSTANTIATE_TEST_SUITE_P(Dits, SameDit, testing::Values("wan_dit_t2v_tiny.safetensors", "wan_dit_i2v_tiny.safetensors"),
                         [](const auto& run) { return std::string(run.param).substr(8, 3); });

TEST_P(SameDit, UnderComfyUiNames) {
  const Checkpoint copy = rewritten(renamed(original, comfyUiName));
  EXPECT_EQ(copy.naming(), NamingScheme::ComfyUi);
  expectSameTensors(copy, original);
}

TEST_P(SameDit, UnderDiffusersNames) {
  const auto tensors = renamed(original, diffusersDitName);
  EXPECT_TRUE(tensors.contains("condition_embedder.time_proj.weight"));
  const Checkpoint copy = rewritten(tensors);
  EXPECT_EQ(copy.naming(), NamingScheme::Diffusers);
  EXPECT_EQ(copy.kind(), ModelKind::WanDit);
  expectSameTensors(copy, original);
}

TEST_P(SameDit, InShardsUnderEveryNaming) {
  for (const auto& [label, rename] : std::map<std::string, Rename>{{"official", unchanged}, {"comfyui", comfyUiName}, {"diffusers", diffusersDitName}}) {
    const std::string place = folder.file(label);
    std::filesystem::create_directory(place);
    const std::string index = writeShards(place, renamed(original, rename), 3);
    expectSameTensors(Checkpoint::open(index), original);
    const Checkpoint byFolder = Checkpoint::open(place);
    expectSameTensors(byFolder, original);
    EXPECT_TRUE(byFolder.metadata().contains("shard0") && byFolder.metadata().contains("shard2"));
  }
}

TEST_P(SameDit, InHalfPrecision) {
  const auto tensors = renamed(original, unchanged);
  expectSameTensors(rewritten(converted(tensors, DType::F16)), original, 0x1p-11f, 1e-7f);
  expectSameTensors(rewritten(converted(tensors, DType::BF16)), original, 0x1p-8f);
}

TEST_P(SameDit, InPlainFp8) {
  std::map<std::string, std::string> metadata;
  const auto tensors = quantised(renamed(original, unchanged), Fp8Layout::Plain, metadata);
  const Checkpoint copy = rewritten(tensors);
  EXPECT_EQ(copy.require("blocks.0.self_attn.q.weight").dtype, DType::F8E4M3);
  // Half a step of a 3-bit fraction, and half the smallest step where the numbers get subnormal.
  for (const auto& [name, wanted] : original.tensors()) {
    const auto a = copy.require(name).toFloat();
    const auto b = wanted.toFloat();
    for (size_t i = 0; i < b.size(); ++i) ASSERT_LE(std::abs(a[i] - b[i]), std::max(0x1p-4f * std::abs(b[i]), 0x1p-10f)) << name;
  }
}

TEST_P(SameDit, InScaledFp8OfEveryLayoutAndNaming) {
  for (const auto layout : {Fp8Layout::ScaleWeight, Fp8Layout::WeightScaleMetadata, Fp8Layout::WeightScaleTensor})
    for (const Rename& rename : {Rename(unchanged), Rename(comfyUiName), Rename(diffusersDitName)}) {
      std::map<std::string, std::string> metadata;
      auto tensors = quantised(renamed(original, rename), layout, metadata);
      if (layout == Fp8Layout::ScaleWeight && tensors.contains("model.diffusion_model.head.modulation")) {
        tensors["model.diffusion_model.scaled_fp8"] = tensors["scaled_fp8"];
        tensors.erase("scaled_fp8");
      }
      const Checkpoint copy = rewritten(tensors, metadata);
      EXPECT_NE(copy.require("blocks.0.self_attn.q.weight").scale, 1.0f);
      expectSameTensors(copy, original, 0x1p-4f, 0x1p-10f / 448);
    }
}

TEST(Checkpoint, LeavesOutOtherModelsOfABundle) {
  TemporaryFolder folder;
  const Checkpoint original = Checkpoint::open(fixture("wan_dit_t2v_tiny.safetensors"));
  auto tensors = renamed(original, comfyUiName);
  tensors["vae.decoder.conv1.weight"] = tensors["text_encoders.umt5xxl.shared.weight"] = {DType::U8, {1}, "x"};
  write(folder.file("all.safetensors"), tensors);
  expectSameTensors(Checkpoint::open(folder.file("all.safetensors")), original);
}

TEST(Checkpoint, ReadsHuggingFaceTextEncoders) {
  TemporaryFolder folder;
  const Checkpoint original = Checkpoint::open(fixture("umt5_tiny.safetensors"));
  auto tensors = renamed(original, huggingFaceT5Name);
  EXPECT_TRUE(tensors.contains("encoder.block.2.layer.1.DenseReluDense.wi_0.weight"));
  tensors["encoder.embed_tokens.weight"] = tensors["shared.weight"];
  tensors["decoder.final_layer_norm.weight"] = tensors["encoder.final_layer_norm.weight"];
  write(folder.file("t5.safetensors"), tensors);
  const Checkpoint copy = Checkpoint::open(folder.file("t5.safetensors"));
  EXPECT_EQ(copy.naming(), NamingScheme::HuggingFace);
  expectSameTensors(copy, original);

  // Some files keep only the encoder's own name of the table, and ComfyUI's hold the tokeniser as bytes.
  tensors.erase("shared.weight");
  tensors["spiece_model"] = {DType::U8, {3}, "abc"};
  write(folder.file("t5.safetensors"), tensors);
  const Checkpoint other = Checkpoint::open(folder.file("t5.safetensors"));
  EXPECT_EQ(other.require("token_embedding.weight").shape, (std::vector<int64_t>{512, 64}));
  EXPECT_EQ(other.require("spiece_model").bytes, 3u);
  std::vector<std::string> required;
  for (const auto& [name, tensor] : original.tensors()) required.push_back(name);
  EXPECT_NO_THROW(other.expect(ModelKind::Umt5, required, true));
}

TEST(Checkpoint, ReadsDiffusersVaes) {
  TemporaryFolder folder;
  const Checkpoint original = Checkpoint::open(fixture("wan_vae_tiny.safetensors"));
  const auto tensors = renamed(original, diffusersVaeName);
  EXPECT_TRUE(tensors.contains("decoder.up_blocks.1.upsamplers.0.time_conv.weight"));
  EXPECT_TRUE(tensors.contains("decoder.up_blocks.1.resnets.0.conv_shortcut.weight"));
  write(folder.file("vae.safetensors"), tensors);
  const Checkpoint copy = Checkpoint::open(folder.file("vae.safetensors"));
  EXPECT_EQ(copy.naming(), NamingScheme::Diffusers);
  EXPECT_EQ(copy.kind(), ModelKind::WanVae);
  expectSameTensors(copy, original);
}

TEST(Checkpoint, ReadsUnalignedData) {
  TemporaryFolder folder;
  std::string header = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";
  header.append(5, ' ');
  const auto length = static_cast<char>(header.size());
  const float values[2] = {1.5f, -2.25f};
  writeText(folder.file("odd.safetensors"),
            std::string(1, length) + std::string(7, '\0') + header + std::string(reinterpret_cast<const char*>(values), sizeof values));
  const Checkpoint odd = Checkpoint::open(folder.file("odd.safetensors"));
  EXPECT_NE(reinterpret_cast<uintptr_t>(odd.require("a").data) % 4, 0u);
  EXPECT_EQ(odd.require("a").toFloat(), (std::vector<float>{1.5f, -2.25f}));
}

TEST(WriteSafetensors, LeavesNothingBehindWhenItFails) {
  TemporaryFolder folder;
  const float value = 1;
  EXPECT_THROW(writeSafetensors(folder.file("a.safetensors"), {{"a", DType::F32, {2}, &value, sizeof value}}), Error);
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  EXPECT_THROW(writeSafetensors(folder.file("none/a.safetensors"), {{"a", DType::F32, {1}, &value, sizeof value}}), Error);
}

TEST(WriteSafetensors, RoundTripsAwkwardNamesAndEmptyTensors) {
  TemporaryFolder folder;
  const float value = 3;
  writeSafetensors(folder.file("a.safetensors"), {{"é \"quoted\"", DType::F32, {}, &value, sizeof value}, {"empty", DType::F16, {0, 4}, nullptr, 0}},
                   {{"note", "tab\tand ü"}});
  const Checkpoint back = Checkpoint::open(folder.file("a.safetensors"));
  EXPECT_EQ(back.require("é \"quoted\"").toFloat(), std::vector<float>{3});
  EXPECT_EQ(back.require("empty").elements(), 0);
  EXPECT_EQ(back.metadata().at("note"), "tab\tand ü");
}

}  // namespace
}  // namespace vmoba::test
