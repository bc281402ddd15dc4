#include "native/tools/random_model/architectures.h"

#include <cmath>

namespace vmoba {

namespace {

class Plan {
 public:
  std::vector<TensorPlan> tensors;

  void matrix(const std::string& name, std::vector<int64_t> shape, float gain = 1) {
    int64_t fanIn = 1;
    for (size_t i = 1; i < shape.size(); ++i) fanIn *= shape[i];
    tensors.push_back({name + ".weight", std::move(shape), 0, gain / std::sqrt(static_cast<float>(fanIn)), true});
  }
  /// Linear or convolution: weight [out, in, ...] and bias [out].
  void layer(const std::string& name, const std::vector<int64_t>& shape, float gain = 1) {
    matrix(name, shape, gain);
    tensors.push_back({name + ".bias", {shape[0]}, 0, 0.02f, false});
  }
  void gain(const std::string& name, std::vector<int64_t> shape) { tensors.push_back({name, std::move(shape), 1, 0.05f, false}); }
};

void residual(Plan& plan, const std::string& name, int64_t in, int64_t out) {
  plan.gain(name + ".residual.0.gamma", {in, 1, 1, 1});
  plan.layer(name + ".residual.2", {out, in, 3, 3, 3});
  plan.gain(name + ".residual.3.gamma", {out, 1, 1, 1});
  plan.layer(name + ".residual.6", {out, out, 3, 3, 3}, 0.5f);
  if (in != out) plan.layer(name + ".shortcut", {out, in, 1, 1, 1});
}

void middle(Plan& plan, const std::string& name, int64_t width) {
  residual(plan, name + ".0", width, width);
  plan.gain(name + ".1.norm.gamma", {width, 1, 1});
  plan.layer(name + ".1.to_qkv", {3 * width, width, 1, 1});
  plan.layer(name + ".1.proj", {width, width, 1, 1});
  residual(plan, name + ".2", width, width);
}

void head(Plan& plan, const std::string& name, int64_t in, int64_t out) {
  plan.gain(name + ".0.gamma", {in, 1, 1, 1});
  plan.layer(name + ".2", {out, in, 3, 3, 3});
}

std::string text(int64_t value) { return std::to_string(value); }

}  // namespace

std::vector<TensorPlan> planTensors(const DitShape& s) {
  Plan plan;
  const float modulation = 1 / std::sqrt(static_cast<float>(s.dim));
  plan.layer("patch_embedding", {s.dim, s.inChannels, s.patch[0], s.patch[1], s.patch[2]});
  plan.layer("text_embedding.0", {s.dim, s.textDim});
  plan.layer("text_embedding.2", {s.dim, s.dim});
  plan.layer("time_embedding.0", {s.dim, s.freqDim});
  plan.layer("time_embedding.2", {s.dim, s.dim});
  plan.layer("time_projection.1", {6 * s.dim, s.dim});
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string block = "blocks." + text(i) + ".";
    plan.tensors.push_back({block + "modulation", {1, 6, s.dim}, 0, modulation, false});
    for (const std::string part : {"self_attn.", "cross_attn."}) {
      for (const std::string projection : {"q", "k", "v", "o"}) plan.layer(block + part + projection, {s.dim, s.dim});
      plan.gain(block + part + "norm_q.weight", {s.dim});
      plan.gain(block + part + "norm_k.weight", {s.dim});
    }
    plan.gain(block + "norm3.weight", {s.dim});
    plan.tensors.push_back({block + "norm3.bias", {s.dim}, 0, 0.02f, false});
    plan.layer(block + "ffn.0", {s.ffnDim, s.dim});
    plan.layer(block + "ffn.2", {s.dim, s.ffnDim});
  }
  plan.layer("head.head", {s.outChannels * s.patch[0] * s.patch[1] * s.patch[2], s.dim});
  plan.tensors.push_back({"head.modulation", {1, 2, s.dim}, 0, modulation, false});
  return plan.tensors;
}

std::vector<TensorPlan> planTensors(const VaeShape& s) {
  Plan plan;
  const int64_t widest = s.dim * s.widths.back();
  plan.layer("encoder.conv1", {s.dim * s.widths[0], 3, 3, 3, 3});
  int64_t in = s.dim * s.widths[0];
  int64_t index = 0;
  const auto next = [&](const char* sequence) { return std::string(sequence) + text(index++); };
  for (size_t stage = 0; stage < s.widths.size(); ++stage) {
    const int64_t out = s.dim * s.widths[stage];
    for (int64_t block = 0; block < s.residualBlocks; ++block, in = out) residual(plan, next("encoder.downsamples."), in, out);
    if (stage + 1 == s.widths.size()) break;
    const std::string resampler = next("encoder.downsamples.");
    plan.layer(resampler + ".resample.1", {out, out, 3, 3});
    if (s.temporalDownsample[stage]) plan.layer(resampler + ".time_conv", {out, out, 3, 1, 1});
  }
  middle(plan, "encoder.middle", widest);
  head(plan, "encoder.head", widest, 2 * s.latentChannels);
  plan.layer("conv1", {2 * s.latentChannels, 2 * s.latentChannels, 1, 1, 1});
  plan.layer("conv2", {s.latentChannels, s.latentChannels, 1, 1, 1});

  plan.layer("decoder.conv1", {widest, s.latentChannels, 3, 3, 3});
  middle(plan, "decoder.middle", widest);
  in = widest;
  index = 0;
  for (size_t stage = 0; stage < s.widths.size(); ++stage) {
    const int64_t out = s.dim * s.widths[s.widths.size() - 1 - stage];
    for (int64_t block = 0; block <= s.residualBlocks; ++block, in = out) residual(plan, next("decoder.upsamples."), in, out);
    if (stage + 1 == s.widths.size()) break;
    const std::string resampler = next("decoder.upsamples.");
    plan.layer(resampler + ".resample.1", {out / 2, out, 3, 3});
    if (s.temporalDownsample[s.temporalDownsample.size() - 1 - stage]) plan.layer(resampler + ".time_conv", {2 * out, out, 3, 1, 1});
    in = out / 2;
  }
  head(plan, "decoder.head", in, 3);
  return plan.tensors;
}

std::vector<TensorPlan> planTensors(const TextEncoderShape& s) {
  Plan plan;
  plan.tensors.push_back({"token_embedding.weight", {s.vocabulary, s.dim}, 0, 1, true});
  for (int64_t i = 0; i < s.layers; ++i) {
    const std::string block = "blocks." + text(i) + ".";
    plan.gain(block + "norm1.weight", {s.dim});
    // T5 has no 1/sqrt(d) in its attention: the query's weights make up for it.
    plan.matrix(block + "attn.q", {s.attentionDim, s.dim}, 1 / std::sqrt(static_cast<float>(s.attentionDim / s.heads)));
    plan.matrix(block + "attn.k", {s.attentionDim, s.dim});
    plan.matrix(block + "attn.v", {s.attentionDim, s.dim});
    plan.matrix(block + "attn.o", {s.dim, s.attentionDim});
    plan.gain(block + "norm2.weight", {s.dim});
    plan.matrix(block + "ffn.gate.0", {s.ffnDim, s.dim});
    plan.matrix(block + "ffn.fc1", {s.ffnDim, s.dim});
    plan.matrix(block + "ffn.fc2", {s.dim, s.ffnDim});
    plan.tensors.push_back({block + "pos_embedding.embedding.weight", {s.buckets, s.heads}, 0, 0.5f, true});
  }
  plan.gain("norm.weight", {s.dim});
  return plan.tensors;
}

std::map<std::string, std::string> describe(const DitShape& s) {
  return {{"model_type", "t2v"},
          {"patch_size", text(s.patch[0]) + "," + text(s.patch[1]) + "," + text(s.patch[2])},
          {"text_len", text(s.textLength)},
          {"in_dim", text(s.inChannels)},
          {"dim", text(s.dim)},
          {"ffn_dim", text(s.ffnDim)},
          {"freq_dim", text(s.freqDim)},
          {"text_dim", text(s.textDim)},
          {"out_dim", text(s.outChannels)},
          {"num_heads", text(s.heads)},
          {"num_layers", text(s.layers)},
          {"head_dim", text(s.dim / s.heads)},
          {"eps", "1e-06"}};
}

std::map<std::string, std::string> describe(const VaeShape& s) {
  std::string widths;
  for (const int64_t width : s.widths) widths += (widths.empty() ? "" : ",") + text(width);
  std::string temporal;
  for (const bool yes : s.temporalDownsample) temporal += std::string(temporal.empty() ? "" : ",") + (yes ? "True" : "False");
  return {{"dim", text(s.dim)}, {"z_dim", text(s.latentChannels)}, {"dim_mult", widths}, {"num_res_blocks", text(s.residualBlocks)}, {"temperal_downsample", temporal}};
}

std::map<std::string, std::string> describe(const TextEncoderShape& s) {
  return {{"vocab", text(s.vocabulary)},   {"dim", text(s.dim)},           {"dim_attn", text(s.attentionDim)}, {"dim_ffn", text(s.ffnDim)},
          {"num_heads", text(s.heads)},    {"num_layers", text(s.layers)}, {"num_buckets", text(s.buckets)},   {"shared_pos", "False"},
          {"norm_eps", "1e-06"},           {"max_dist", "128"}};
}

}  // namespace vmoba
