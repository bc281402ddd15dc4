#include "native/weights/checkpoint_reader.h"

#include <cmath>
#include <set>
#include <string_view>
#include <utility>

#include "native/base/error.h"
#include "native/base/json.h"
#include "native/weights/names.h"
#include "native/weights/safetensors.h"

namespace vmoba {

namespace {

[[noreturn]] void fail(const std::string& file, const std::string& tensor, const std::string& reason) {
  throw Error(ErrorCode::BadModelFile, file + ": " + printable(tensor) + ": " + reason, tensor);
}

std::string_view textOf(const WeightView& tensor) { return {reinterpret_cast<const char*>(tensor.data), tensor.bytes}; }

bool isFloat(DType type) {
  return type == DType::F32 || type == DType::F16 || type == DType::BF16 || type == DType::F64 || type == DType::F8E4M3;
}

}  // namespace

CheckpointReader::CheckpointReader(std::string path) { checkpoint_.path_ = std::move(path); }

void CheckpointReader::add(const std::string& fileName, std::span<const std::byte> bytes, std::shared_ptr<const void> owner) {
  SafetensorsHeader header = parseSafetensors(bytes, fileName);
  for (SafetensorsEntry& entry : header.tensors) {
    WeightView view;
    view.name = entry.name;
    view.file = fileName;
    view.dtype = entry.dtype;
    view.shape = std::move(entry.shape);
    view.data = bytes.data() + entry.begin;
    view.bytes = entry.end - entry.begin;
    const auto [at, fresh] = raw_.try_emplace(entry.name, std::move(view));
    if (!fresh) fail(fileName, entry.name, "is also in " + at->second.file);
  }
  checkpoint_.metadata_.merge(header.metadata);
  checkpoint_.mappings_.push_back(std::move(owner));
}

bool CheckpointReader::holds(const std::string& fileName, const std::string& rawName) const {
  const auto found = raw_.find(rawName);
  return found != raw_.end() && found->second.file == fileName;
}

Checkpoint CheckpointReader::finish() {
  std::vector<std::string> names;
  names.reserve(raw_.size());
  for (const auto& [name, view] : raw_) names.push_back(name);
  const NameMap map = recogniseNames(names);
  checkpoint_.kind_ = map.kind;
  checkpoint_.naming_ = map.naming;
  for (auto& [rawName, view] : raw_) {
    std::string name = canonicalName(map, rawName);
    if (name.empty()) continue;
    view.name = name;
    const auto [at, fresh] = checkpoint_.tensors_.try_emplace(std::move(name), std::move(view));
    if (!fresh) fail(view.file, rawName, "stands for " + printable(at->first) + ", which the file also holds under another name");
  }
  raw_.clear();
  applyScales();
  return std::move(checkpoint_);
}

// Three layouts. Plain FP8: nothing to do. Older scaled: marker `scaled_fp8`, per layer X.scale_weight (and X.scale_input
// for hardware FP8 products, not used here). Newer: X.weight_scale, declared by the metadata or by X.comfy_quant.
void CheckpointReader::applyScales() {
  auto& tensors = checkpoint_.tensors_;
  std::set<std::string> scaled;
  for (auto at = tensors.begin(); at != tensors.end();) {
    const std::string& name = at->first;
    const auto layerOf = [&](std::string_view suffix) {
      return name.size() > suffix.size() && name.ends_with(suffix) ? name.substr(0, name.size() - suffix.size()) : std::string();
    };
    std::string layer = layerOf(".scale_weight");
    if (layer.empty()) layer = layerOf(".weight_scale");
    if (!layer.empty()) {
      const WeightView& scale = at->second;
      const auto weight = tensors.find(layer + ".weight");
      if (weight == tensors.end()) fail(scale.file, name, "scales a weight that is missing");
      if (!isFloat(scale.dtype) || scale.elements() != 1)
        fail(scale.file, name, std::string("a scale must be one floating-point number, not ") + dtypeName(scale.dtype) + " " + shapeText(scale.shape));
      const float value = scale.toFloat()[0];
      if (!std::isfinite(value) || value <= 0) fail(scale.file, name, "a scale must be a positive finite number");
      if (!isFloat(weight->second.dtype)) fail(scale.file, name, std::string("scales a weight of type ") + dtypeName(weight->second.dtype));
      if (!scaled.insert(layer).second) fail(scale.file, name, "the weight has two scales");
      weight->second.scale = value;
    }
    const bool consumed = !layer.empty() || name == "scaled_fp8" || !layerOf(".scale_input").empty() || !layerOf(".input_scale").empty();
    at = consumed ? tensors.erase(at) : std::next(at);
  }

  for (auto at = tensors.begin(); at != tensors.end();) {
    constexpr std::string_view suffix = ".comfy_quant";
    const WeightView& view = at->second;
    if (!at->first.ends_with(suffix) || view.dtype != DType::U8) {
      ++at;
      continue;
    }
    checkQuantisation(at->first.substr(0, at->first.size() - suffix.size()), std::string(textOf(view)), view);
    at = tensors.erase(at);
  }
  const auto declared = checkpoint_.metadata_.find("_quantization_metadata");
  if (declared == checkpoint_.metadata_.end()) return;
  WeightView whole;
  whole.file = checkpoint_.path_;
  whole.name = declared->first;
  Json json;
  try {
    json = Json::parse(declared->second, 16);
  } catch (const Error& error) {
    fail(whole.file, whole.name, error.what());
  }
  const Json* layers = json.find("layers");
  if (!layers || !layers->isObject()) fail(whole.file, whole.name, "has no object 'layers'");
  for (const auto& [name, value] : layers->asObject()) checkQuantisation(name, value.dump(), whole);
}

// A quantised layer in a format that this reader does not know would be noise if it were read as plain numbers.
void CheckpointReader::checkQuantisation(const std::string& layer, const std::string& description, const WeightView& at) const {
  Json json;
  try {
    json = Json::parse(description, 16);
  } catch (const Error& error) {
    fail(at.file, at.name, error.what());
  }
  const Json* format = json.find("format");
  if (!format || !format->isString()) fail(at.file, at.name, "layer " + printable(layer) + " names no format");
  if (format->asString() != "float8_e4m3fn")
    fail(at.file, at.name, "layer " + printable(layer) + " is quantised as '" + printable(format->asString()) + "', which is not supported");
}

}  // namespace vmoba
