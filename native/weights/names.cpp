#include "native/weights/names.h"

#include <algorithm>
#include <charconv>
#include <initializer_list>
#include <string_view>
#include <unordered_set>
#include <utility>

namespace vmoba {

namespace {

using Renames = std::initializer_list<std::pair<std::string_view, std::string_view>>;

// `from` and `to` are dotted paths; a rename applies when the rest of the name starts with `from` at a segment border.
bool rename(std::string_view rest, const Renames& renames, std::string& out) {
  for (const auto& [from, to] : renames) {
    if (!rest.starts_with(from) || (rest.size() > from.size() && rest[from.size()] != '.')) continue;
    out += to;
    out += rest.substr(from.size());
    return true;
  }
  return false;
}

// Splits "<head>N.<rest>": the number and what follows its dot.
bool numbered(std::string_view name, std::string_view head, int& number, std::string_view& rest) {
  if (!name.starts_with(head)) return false;
  const char* first = name.data() + head.size();
  const char* last = name.data() + name.size();
  const auto [end, failed] = std::from_chars(first, last, number);
  if (failed != std::errc() || number < 0 || number > 9999 || end == last || *end != '.') return false;
  rest = name.substr(static_cast<size_t>(end + 1 - name.data()));
  return true;
}

std::string diffusersDit(const std::string& name) {
  static const Renames top = {{"condition_embedder.time_embedder.linear_1", "time_embedding.0"},
                              {"condition_embedder.time_embedder.linear_2", "time_embedding.2"},
                              {"condition_embedder.time_proj", "time_projection.1"},
                              {"condition_embedder.text_embedder.linear_1", "text_embedding.0"},
                              {"condition_embedder.text_embedder.linear_2", "text_embedding.2"},
                              {"condition_embedder.image_embedder.norm1", "img_emb.proj.0"},
                              {"condition_embedder.image_embedder.ff.net.0.proj", "img_emb.proj.1"},
                              {"condition_embedder.image_embedder.ff.net.2", "img_emb.proj.3"},
                              {"condition_embedder.image_embedder.norm2", "img_emb.proj.4"},
                              {"condition_embedder.image_embedder.pos_embed", "img_emb.emb_pos"},
                              {"scale_shift_table", "head.modulation"},
                              {"proj_out", "head.head"}};
  static const Renames block = {{"attn1.to_q", "self_attn.q"},
                                {"attn1.to_k", "self_attn.k"},
                                {"attn1.to_v", "self_attn.v"},
                                {"attn1.to_out.0", "self_attn.o"},
                                {"attn1", "self_attn"},
                                {"attn2.to_q", "cross_attn.q"},
                                {"attn2.to_k", "cross_attn.k"},
                                {"attn2.to_v", "cross_attn.v"},
                                {"attn2.to_out.0", "cross_attn.o"},
                                {"attn2.add_k_proj", "cross_attn.k_img"},
                                {"attn2.add_v_proj", "cross_attn.v_img"},
                                {"attn2.norm_added_k", "cross_attn.norm_k_img"},
                                {"attn2", "cross_attn"},
                                {"norm2", "norm3"},
                                {"ffn.net.0.proj", "ffn.0"},
                                {"ffn.net.2", "ffn.2"},
                                {"scale_shift_table", "modulation"}};
  int number = 0;
  std::string_view rest;
  if (numbered(name, "blocks.", number, rest)) {
    std::string out = "blocks." + std::to_string(number) + ".";
    return rename(rest, block, out) ? out : name;
  }
  std::string out;
  return rename(name, top, out) ? out : name;
}

std::string huggingFaceT5(const std::string& name, bool sharedTable) {
  // A text-to-text checkpoint also holds a decoder, and may store the shared table a second time.
  if (name.starts_with("decoder.") || name.starts_with("lm_head.")) return {};
  if (sharedTable && name.starts_with("encoder.embed_tokens.")) return {};
  static const Renames top = {{"shared", "token_embedding"}, {"encoder.embed_tokens", "token_embedding"}, {"encoder.final_layer_norm", "norm"}};
  static const Renames block = {{"layer.0.SelfAttention.relative_attention_bias", "pos_embedding.embedding"},
                                {"layer.0.SelfAttention", "attn"},
                                {"layer.0.layer_norm", "norm1"},
                                {"layer.1.DenseReluDense.wi_0", "ffn.gate.0"},
                                {"layer.1.DenseReluDense.wi_1", "ffn.fc1"},
                                {"layer.1.DenseReluDense.wo", "ffn.fc2"},
                                {"layer.1.layer_norm", "norm2"}};
  int number = 0;
  std::string_view rest;
  if (numbered(name, "encoder.block.", number, rest)) {
    std::string out = "blocks." + std::to_string(number) + ".";
    return rename(rest, block, out) ? out : name;
  }
  std::string out;
  return rename(name, top, out) ? out : name;
}

std::string diffusersVae(const std::string& name, int stageLength) {
  static const Renames top = {{"quant_conv", "conv1"}, {"post_quant_conv", "conv2"}};
  static const Renames half = {{"conv_in", "conv1"},
                               {"norm_out", "head.0"},
                               {"conv_out", "head.2"},
                               {"mid_block.attentions.0", "middle.1"}};
  static const Renames residual = {{"norm1", "residual.0"},
                                   {"conv1", "residual.2"},
                                   {"norm2", "residual.3"},
                                   {"conv2", "residual.6"},
                                   {"conv_shortcut", "shortcut"},
                                   {"resample", "resample"},
                                   {"time_conv", "time_conv"}};
  std::string out;
  if (rename(name, top, out)) return out;
  for (const std::string head : {"encoder.", "decoder."}) {
    if (!name.starts_with(head)) continue;
    int outer = 0;
    int inner = 0;
    std::string_view rest;
    std::string_view tail;
    if (numbered(name, head + "mid_block.resnets.", outer, rest)) {
      out = head + "middle." + std::to_string(outer * 2) + ".";  // middle.1 is the attention between them
      return rename(rest, residual, out) ? out : name;
    }
    if (numbered(name, head + "down_blocks.", outer, rest)) {  // diffusers keeps the flat numbering here
      out = head + "downsamples." + std::to_string(outer) + ".";
      return rename(rest, residual, out) ? out : name;
    }
    if (numbered(name, head + "up_blocks.", outer, rest)) {
      const bool resnet = numbered(rest, "resnets.", inner, tail);
      if (!resnet && !numbered(rest, "upsamplers.", inner, tail)) return name;
      const int within = resnet ? inner : stageLength - 1;
      out = head + "upsamples." + std::to_string(outer * stageLength + within) + ".";
      return rename(tail, residual, out) ? out : name;
    }
    out = head;
    return rename(std::string_view(name).substr(head.size()), half, out) ? out : name;
  }
  return name;
}

}  // namespace

NameMap recogniseNames(const std::vector<std::string>& names) {
  const std::unordered_set<std::string_view> set(names.begin(), names.end());
  const auto has = [&](const std::string& name) { return set.contains(name); };
  NameMap map;
  for (const std::string prefix : {"model.diffusion_model.", "diffusion_model."}) {
    if (!has(prefix + "head.modulation")) continue;
    map.naming = NamingScheme::ComfyUi;
    map.kind = ModelKind::WanDit;
    map.prefix = prefix;
    return map;
  }
  if (has("head.modulation")) {
    map.kind = ModelKind::WanDit;
  } else if (has("scale_shift_table") && (has("condition_embedder.time_proj.weight") || has("proj_out.weight"))) {
    map.kind = ModelKind::WanDit;
    map.naming = NamingScheme::Diffusers;
  } else if (has("token_embedding.weight")) {
    map.kind = ModelKind::Umt5;
  } else if (has("shared.weight") || has("encoder.embed_tokens.weight")) {
    map.kind = ModelKind::Umt5;
    map.naming = NamingScheme::HuggingFace;
    map.sharedTable = has("shared.weight");
  } else if (has("decoder.conv1.weight") || has("encoder.conv1.weight")) {
    map.kind = ModelKind::WanVae;
  } else if (has("decoder.conv_in.weight") && has("post_quant_conv.weight") && has("decoder.norm_out.gamma")) {
    map.kind = ModelKind::WanVae;
    map.naming = NamingScheme::Diffusers;
    int most = 0;
    for (const std::string& name : names) {
      int stage = 0;
      int resnet = 0;
      std::string_view rest;
      std::string_view tail;
      if (numbered(name, "decoder.up_blocks.", stage, rest) && numbered(rest, "resnets.", resnet, tail)) most = std::max(most, resnet + 1);
    }
    map.decoderStageLength = most + 1;
  }
  return map;
}

std::string canonicalName(const NameMap& map, const std::string& name) {
  if (!map.prefix.empty()) {
    if (name.starts_with(map.prefix)) return name.substr(map.prefix.size());
    for (const std::string_view other : {"vae.", "first_stage_model.", "text_encoders.", "cond_stage_model."})
      if (name.starts_with(other)) return {};
    return name;
  }
  if (map.naming == NamingScheme::Diffusers) return map.kind == ModelKind::WanVae ? diffusersVae(name, map.decoderStageLength) : diffusersDit(name);
  if (map.naming == NamingScheme::HuggingFace) return huggingFaceT5(name, map.sharedTable);
  return name;
}

}  // namespace vmoba
