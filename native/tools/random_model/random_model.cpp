#include "native/tools/random_model/random_model.h"

#include <filesystem>
#include <fstream>
#include <iterator>
#include <span>

#include "native/base/error.h"
#include "native/engine/tokenizer/tokenizer.h"
#include "native/tools/random_model/random_model_options.h"
#include "native/tools/random_model/random_tensors.h"
#include "native/weights/atomic_file.h"

namespace vmoba {

namespace {

// Wan 2.1's latent statistics; a random VAE has none of its own, and these keep latents in the usual range.
constexpr double latentMean[] = {-0.7571, -0.7089, -0.9113, 0.1075, -0.1745, 0.9653, -0.1517, 1.5508, 0.4134, -0.0715, 0.5517, -0.3632, -0.1922, -0.9497, 0.2503, -0.2921};
constexpr double latentStd[] = {2.8184, 1.4541, 2.3275, 2.6558, 1.2196, 1.7708, 2.6052, 2.0743, 3.2687, 2.1526, 2.8652, 1.5579, 1.6382, 1.1253, 2.8251, 1.9160};

std::filesystem::path fromUtf8(const std::string& path) { return {reinterpret_cast<const char8_t*>(path.c_str())}; }

std::string readWhole(const std::string& path) {
  std::ifstream file(fromUtf8(path), std::ios::binary);
  if (!file) throw Error(ErrorCode::Io, path + ": cannot be read", "tokenizer");
  return {std::istreambuf_iterator<char>(file), {}};
}

void writeWhole(const std::string& path, const std::string& text) {
  AtomicFile file(path);
  file.write(text.data(), text.size());
  file.commit();
}

Json description(const RandomModelOptions& options) {
  Json files;
  files.set("dit", "dit.safetensors").set("vae", "vae.safetensors").set("textEncoder", "text_encoder.safetensors").set("tokenizer", "spiece.model");
  Json latent;
  latent.set("mean", Json::list(std::vector<double>(std::begin(latentMean), std::end(latentMean))));
  latent.set("std", Json::list(std::vector<double>(std::begin(latentStd), std::end(latentStd))));
  Json factors;
  for (int64_t channel = 0; channel < options.vae.latentChannels; ++channel) {
    std::vector<double> rgb;
    for (int64_t colour = 0; colour < 3; ++colour) rgb.push_back(0.15 * static_cast<double>(randomNumber(options.seed, static_cast<uint64_t>(channel * 3 + colour))));
    factors.push(Json::list(rgb));
  }
  Json preview;
  preview.set("factors", factors).set("bias", Json::list(std::vector<double>{0, 0, 0}));
  Json json;
  return json.set("format", "vmoba-model/1")
      .set("id", options.id)
      .set("name", options.name)
      .set("architecture", "wan-t2v")
      .set("licence", "random numbers: free of rights")
      .set("files", files)
      .set("sha256", Json(Json::Object{}))
      .set("bytes", Json(Json::Object{}))
      .set("limits", options.limits)
      .set("defaults", options.defaults)
      .set("latent", latent)
      .set("preview", preview)
      .set("policy", options.policy)
      .set("randomWeights", true)
      .set("trainedOn", "nothing: random weights");
}

}  // namespace

void writeRandomModel(const std::string& directory, const Json& options) {
  RandomModelOptions o = RandomModelOptions::read(options);
  const bool durable = options.boolOr("durable", true);
  const std::string spiece = readWhole(o.tokenizer);
  const Tokenizer tokenizer = Tokenizer::parse(std::as_bytes(std::span<const char>(spiece)), o.tokenizer);
  o.textEncoder.vocabulary = (tokenizer.vocabularySize() + 63) / 64 * 64;

  std::error_code failed;
  std::filesystem::create_directories(fromUtf8(directory), failed);
  if (failed) throw Error(ErrorCode::Io, directory + ": cannot be made: " + failed.message(), "directory");
  writeWhole(directory + "/spiece.model", spiece);
  writeRandomTensors(directory + "/vae.safetensors", planTensors(o.vae), describe(o.vae), o.seed, durable);
  writeRandomTensors(directory + "/text_encoder.safetensors", planTensors(o.textEncoder), describe(o.textEncoder), o.seed, durable);
  writeRandomTensors(directory + "/dit.safetensors", planTensors(o.dit), describe(o.dit), o.seed, durable);
  writeWhole(directory + "/model.json", description(o).dump() + "\n");  // last: a folder with it is complete
}

}  // namespace vmoba
