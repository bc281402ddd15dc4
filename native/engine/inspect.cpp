#include "native/engine/inspect.h"

#include <filesystem>
#include <map>

#include "native/base/parallel.h"
#include "native/engine/dit.h"
#include "native/engine/loaded_model.h"
#include "native/engine/session.h"
#include "native/engine/text_encoder.h"
#include "native/engine/vae.h"

namespace vmoba {
namespace {

const char* namingName(NamingScheme naming) {
  switch (naming) {
    case NamingScheme::Official: return "official";
    case NamingScheme::ComfyUi: return "comfyui";
    case NamingScheme::Diffusers: return "diffusers";
    case NamingScheme::HuggingFace: return "huggingface";
  }
  return "official";
}

Json configOf(const Checkpoint& checkpoint) {
  Json config(Json::Object{});
  if (checkpoint.kind() == ModelKind::WanDit) {
    const DitConfig dit = DitConfig::read(checkpoint);
    config.set("dim", dit.dim).set("layers", dit.layers).set("heads", dit.heads).set("headDim", dit.headDim).set("ffnDim", dit.ffnDim);
    config.set("textDim", dit.textDim).set("textLength", dit.textLength).set("inChannels", dit.inChannels).set("outChannels", dit.outChannels);
    config.set("patch", std::to_string(dit.patch[0]) + "x" + std::to_string(dit.patch[1]) + "x" + std::to_string(dit.patch[2]));
    config.set("task", dit.imageToVideo ? "image-to-video" : "text-to-video");
  } else if (checkpoint.kind() == ModelKind::Umt5) {
    const TextEncoderConfig text = TextEncoderConfig::read(checkpoint);
    config.set("dim", text.dim).set("layers", text.layers).set("heads", text.heads).set("ffnDim", text.ffnDim).set("vocabulary", text.vocabulary);
  } else if (checkpoint.kind() == ModelKind::WanVae) {
    config.set("latentChannels", VaeConfig::read(checkpoint).latentChannels);
  }
  return config;
}

const char* kindName(ModelKind kind) {
  return kind == ModelKind::WanDit ? "wan-dit" : kind == ModelKind::WanVae ? "wan-vae" : kind == ModelKind::Umt5 ? "umt5" : "unknown";
}

}  // namespace

Json inspectModel(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  Json json, warnings(Json::Array{});
  if (fs::path(path).filename() == "model.json" || fs::exists(fs::path(path) / "model.json", ignored)) {
    const ModelFiles files = ModelFiles::open(path);
    Json config = configOf(*files.dit);
    int64_t tensors = 0;
    uint64_t bytes = 0;
    for (const auto& file : {files.dit, files.vae, files.textEncoder}) {
      tensors += static_cast<int64_t>(file->tensors().size());
      bytes += file->totalBytes();
    }
    config.set("id", files.description.id).set("name", files.description.name).set("latentChannels", VaeConfig::read(*files.vae).latentChannels);
    config.set("textEncoderLayers", TextEncoderConfig::read(*files.textEncoder).layers);
    if (files.description.json.boolOr("randomWeights", false)) warnings.push("random weights: renders are noise");
    return json.set("kind", "model").set("naming", namingName(files.dit->naming())).set("tensors", tensors).set("bytes", bytes).set("dtypes", Json(Json::Object{})).set("config", config).set("warnings", warnings);
  }
  const Checkpoint checkpoint = Checkpoint::open(path);
  std::map<std::string, int64_t> dtypes;
  for (const auto& [name, view] : checkpoint.tensors()) ++dtypes[dtypeName(view.dtype)];
  Json types(Json::Object{});
  for (const auto& [name, count] : dtypes) types.set(name, count);
  if (checkpoint.kind() == ModelKind::Unknown) warnings.push("neither a Wan transformer, a Wan VAE nor a umT5 encoder");
  json.set("kind", kindName(checkpoint.kind())).set("naming", namingName(checkpoint.naming())).set("tensors", static_cast<int64_t>(checkpoint.tensors().size()));
  return json.set("bytes", checkpoint.totalBytes()).set("dtypes", types).set("config", configOf(checkpoint)).set("warnings", warnings);
}

Json describeEngine() {
  Json devices(Json::Array{});
  bool oneDnn = false;
  std::string library;
  for (const DeviceInfo& device : listDevices()) {
    Json entry, precisions(Json::Array{});
    for (const Precision precision : device.precisions) precisions.push(precision == Precision::BF16 ? "bf16" : "f32");
    entry.set("id", device.id).set("name", device.name).set("kind", device.kind).set("usable", device.usable);
    entry.set("reason", device.reason.empty() ? Json() : Json(device.reason)).set("memoryBytes", device.memoryBytes);
    entry.set("instructionSet", device.instructionSet.empty() ? Json() : Json(device.instructionSet)).set("precisions", precisions);
    devices.push(entry);
    if (const size_t at = device.instructionSet.find("oneDNN"); device.kind == "cpu" && at != std::string::npos) {
      oneDnn = true;
      library = device.instructionSet.substr(at);
    }
  }
  Json json;
  json.set("version", VMOBA_VERSION).set("build", buildId()).set("oneDnn", oneDnn ? Json(library) : Json());
  return json.set("threads", int64_t{threadsFor(0)}).set("devices", devices);
}

}  // namespace vmoba
