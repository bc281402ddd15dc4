#include "native/weights/tests/rewrite.h"

#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <regex>
#include <sstream>
#include <stdexcept>

#include "native/base/json.h"

namespace vmoba::test {

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "vmoba-test-XXXXXX").string();
  if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
  path_ = pattern;
}
TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

void writeText(const std::string& path, const std::string& text) { std::ofstream(path, std::ios::binary) << text; }
std::string readText(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

namespace {

uint8_t toFp8(float value) {
  uint8_t best = 0;
  float distance = INFINITY;
  for (int bits = 0; bits < 256; ++bits) {
    const float candidate = fp8E4M3ToFloat(static_cast<uint8_t>(bits));
    if (!(std::abs(candidate - value) < distance)) continue;
    distance = std::abs(candidate - value);
    best = static_cast<uint8_t>(bits);
  }
  return best;
}

template <class T>
void append(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

std::vector<float> floats(const Tensor& tensor) {
  WeightView view;
  view.dtype = tensor.dtype;
  view.shape = tensor.shape;
  view.data = reinterpret_cast<const std::byte*>(tensor.bytes.data());
  view.bytes = tensor.bytes.size();
  return view.toFloat();
}

std::string replaceAll(std::string text, const std::vector<std::pair<const char*, const char*>>& rules) {
  for (const auto& [from, to] : rules) {
    const std::string next = std::regex_replace(text, std::regex(from), to);
    if (next != text) return next;
  }
  return text;
}

}  // namespace

Tensors renamed(const Checkpoint& source, const Rename& rename) {
  Tensors out;
  for (const auto& [name, view] : source.tensors())
    out[rename(name)] = {view.dtype, view.shape, std::string(reinterpret_cast<const char*>(view.data), view.bytes)};
  return out;
}

Tensors converted(const Tensors& tensors, DType type) {
  Tensors out = tensors;
  for (auto& [name, tensor] : out) {
    if (tensor.shape.size() < 2) continue;
    std::string bytes;
    for (const float value : floats(tensor)) type == DType::F16 ? append(bytes, toF16(value)) : append(bytes, toBf16(value));
    tensor = {type, tensor.shape, bytes};
  }
  return out;
}

Tensors quantised(const Tensors& tensors, Fp8Layout layout, std::map<std::string, std::string>& metadata) {
  Tensors out;
  Json layers(Json::Object{});
  for (const auto& [name, tensor] : tensors) {
    if (tensor.shape.size() != 2 || !name.ends_with(".weight")) {
      out[name] = tensor;
      continue;
    }
    const std::string layer = name.substr(0, name.size() - std::strlen(".weight"));
    float scale = 1;
    if (layout != Fp8Layout::Plain) {
      for (const float value : floats(tensor)) scale = std::max(scale == 1 ? 0 : scale, std::abs(value));
      scale /= 448;
    }
    std::string bytes;
    for (const float value : floats(tensor)) bytes.push_back(static_cast<char>(toFp8(value / scale)));
    out[name] = {DType::F8E4M3, tensor.shape, bytes};
    std::string scaleBytes;
    append(scaleBytes, scale);
    const std::string format = R"({"format":"float8_e4m3fn"})";
    if (layout == Fp8Layout::ScaleWeight) {
      out[layer + ".scale_weight"] = {DType::F32, {1}, scaleBytes};
      out[layer + ".scale_input"] = {DType::F32, {1}, scaleBytes};
    } else if (layout != Fp8Layout::Plain) {
      out[layer + ".weight_scale"] = {DType::F32, {}, scaleBytes};
    }
    if (layout == Fp8Layout::WeightScaleTensor) out[layer + ".comfy_quant"] = {DType::U8, {static_cast<int64_t>(format.size())}, format};
    if (layout == Fp8Layout::WeightScaleMetadata) layers.set(layer, Json::parse(format));
  }
  if (layout == Fp8Layout::ScaleWeight) out["scaled_fp8"] = {DType::F8E4M3, {0}, ""};
  if (layout == Fp8Layout::WeightScaleMetadata) {
    Json description;
    description.set("format_version", "1.0").set("layers", layers);
    metadata["_quantization_metadata"] = description.dump();
  }
  return out;
}

void write(const std::string& path, const Tensors& tensors, const std::map<std::string, std::string>& metadata) {
  std::vector<TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) list.push_back({name, tensor.dtype, tensor.shape, tensor.bytes.data(), tensor.bytes.size()});
  writeSafetensors(path, list, metadata);
}

std::string writeShards(const std::string& folder, const Tensors& tensors, int count) {
  Json map;
  int at = 0;
  std::vector<Tensors> shards(static_cast<size_t>(count));
  const auto fileName = [&](int shard) { return "model-0000" + std::to_string(shard + 1) + "-of-0000" + std::to_string(count) + ".safetensors"; };
  for (const auto& [name, tensor] : tensors) {
    const int shard = at++ % count;
    shards[static_cast<size_t>(shard)][name] = tensor;
    map.set(name, fileName(shard));
  }
  for (int shard = 0; shard < count; ++shard) write(folder + "/" + fileName(shard), shards[static_cast<size_t>(shard)], {{"shard" + std::to_string(shard), "yes"}});
  Json index;
  index.set("metadata", Json().set("total_size", 1)).set("weight_map", map);
  writeText(folder + "/model.safetensors.index.json", index.dump());
  return folder + "/model.safetensors.index.json";
}

std::string comfyUiName(const std::string& official) { return "model.diffusion_model." + official; }

std::string diffusersDitName(const std::string& official) {
  return replaceAll(official, {{R"(^(blocks\.\d+)\.self_attn\.([qkv])\.)", "$1.attn1.to_$2."},
                               {R"(^(blocks\.\d+)\.cross_attn\.([qkv])\.)", "$1.attn2.to_$2."},
                               {R"(^(blocks\.\d+)\.self_attn\.o\.)", "$1.attn1.to_out.0."},
                               {R"(^(blocks\.\d+)\.cross_attn\.o\.)", "$1.attn2.to_out.0."},
                               {R"(^(blocks\.\d+)\.cross_attn\.([kv])_img\.)", "$1.attn2.add_$2_proj."},
                               {R"(^(blocks\.\d+)\.cross_attn\.norm_k_img\.)", "$1.attn2.norm_added_k."},
                               {R"(^(blocks\.\d+)\.self_attn\.)", "$1.attn1."},
                               {R"(^(blocks\.\d+)\.cross_attn\.)", "$1.attn2."},
                               {R"(^(blocks\.\d+)\.norm3\.)", "$1.norm2."},
                               {R"(^(blocks\.\d+)\.ffn\.0\.)", "$1.ffn.net.0.proj."},
                               {R"(^(blocks\.\d+)\.ffn\.2\.)", "$1.ffn.net.2."},
                               {R"(^(blocks\.\d+)\.modulation$)", "$1.scale_shift_table"},
                               {R"(^head\.modulation$)", "scale_shift_table"},
                               {R"(^head\.head\.)", "proj_out."},
                               {R"(^time_embedding\.0\.)", "condition_embedder.time_embedder.linear_1."},
                               {R"(^time_embedding\.2\.)", "condition_embedder.time_embedder.linear_2."},
                               {R"(^time_projection\.1\.)", "condition_embedder.time_proj."},
                               {R"(^text_embedding\.0\.)", "condition_embedder.text_embedder.linear_1."},
                               {R"(^text_embedding\.2\.)", "condition_embedder.text_embedder.linear_2."},
                               {R"(^img_emb\.proj\.0\.)", "condition_embedder.image_embedder.norm1."},
                               {R"(^img_emb\.proj\.1\.)", "condition_embedder.image_embedder.ff.net.0.proj."},
                               {R"(^img_emb\.proj\.3\.)", "condition_embedder.image_embedder.ff.net.2."},
                               {R"(^img_emb\.proj\.4\.)", "condition_embedder.image_embedder.norm2."}});
}

std::string huggingFaceT5Name(const std::string& official) {
  return replaceAll(official, {{R"(^token_embedding\.)", "shared."},
                               {R"(^norm\.)", "encoder.final_layer_norm."},
                               {R"(^blocks\.(\d+)\.attn\.)", "encoder.block.$1.layer.0.SelfAttention."},
                               {R"(^blocks\.(\d+)\.pos_embedding\.embedding\.)", "encoder.block.$1.layer.0.SelfAttention.relative_attention_bias."},
                               {R"(^blocks\.(\d+)\.norm1\.)", "encoder.block.$1.layer.0.layer_norm."},
                               {R"(^blocks\.(\d+)\.norm2\.)", "encoder.block.$1.layer.1.layer_norm."},
                               {R"(^blocks\.(\d+)\.ffn\.gate\.0\.)", "encoder.block.$1.layer.1.DenseReluDense.wi_0."},
                               {R"(^blocks\.(\d+)\.ffn\.fc1\.)", "encoder.block.$1.layer.1.DenseReluDense.wi_1."},
                               {R"(^blocks\.(\d+)\.ffn\.fc2\.)", "encoder.block.$1.layer.1.DenseReluDense.wo."}});
}

std::string diffusersVaeName(const std::string& official) {
  std::smatch match;
  std::string name = official;
  if (std::regex_match(name, match, std::regex(R"(decoder\.upsamples\.(\d+)\.(.*))"))) {
    const int flat = std::stoi(match[1]);  // stages of three residual blocks and one resampler
    const std::string stage = "decoder.up_blocks." + std::to_string(flat / 4) + (flat % 4 == 3 ? ".upsamplers.0." : ".resnets." + std::to_string(flat % 4) + ".");
    name = stage + match[2].str();
  }
  for (const auto& [from, to] : std::vector<std::pair<const char*, const char*>>{{R"(^conv1\.)", "quant_conv."},
                                                                                 {R"(^conv2\.)", "post_quant_conv."},
                                                                                 {R"(^(encoder|decoder)\.conv1\.)", "$1.conv_in."},
                                                                                 {R"(\.head\.0\.)", ".norm_out."},
                                                                                 {R"(\.head\.2\.)", ".conv_out."},
                                                                                 {R"(\.middle\.0\.)", ".mid_block.resnets.0."},
                                                                                 {R"(\.middle\.1\.)", ".mid_block.attentions.0."},
                                                                                 {R"(\.middle\.2\.)", ".mid_block.resnets.1."},
                                                                                 {R"(\.downsamples\.)", ".down_blocks."},
                                                                                 {R"(\.residual\.0\.)", ".norm1."},
                                                                                 {R"(\.residual\.2\.)", ".conv1."},
                                                                                 {R"(\.residual\.3\.)", ".norm2."},
                                                                                 {R"(\.residual\.6\.)", ".conv2."},
                                                                                 {R"(\.shortcut\.)", ".conv_shortcut."}})
    name = std::regex_replace(name, std::regex(from), to);
  return name;
}

}  // namespace vmoba::test
