// Fixtures with weights: transformer (text- and image-to-video, with the VMoBA pass), umT5, VAE.
#include <algorithm>
#include <map>

#include "kernels/partition.h"
#include "native/base/error.h"
#include "native/engine/dit.h"
#include "native/engine/text_encoder.h"
#include "native/engine/vae.h"
#include "native/engine/verify/attention_names.h"
#include "native/engine/verify/comparison.h"

namespace vmoba::verify {
namespace {

using Values = std::map<std::string, std::vector<float>>;

Trace collect(Comparison& c, Values& into) {
  return [&c, &into](const std::string& name, const Tensor& tensor) { into[name] = c.host(tensor); };
}

/// Compares whatever the run produced with everything stored under `prefix`.
void compareAll(Comparison& c, const std::string& prefix, const Values& values, double tolerance = kOutputTolerance) {
  for (const auto& [name, value] : values)
    if (c.has(prefix + name)) c.close(prefix + name, value, tolerance);
}

void compareProjections(Comparison& c, const std::string& prefix, const Dit& dit, const Checkpoint& weights, const RopeTable& rope, const Values& values) {
  const auto qkv = values.find("block0.qkv");
  if (qkv == values.end() || !c.has(prefix + "block0.q_prerope")) return;
  const DitConfig& config = dit.config();
  const int64_t tokens = rope.grid.tokens();
  const Tensor input = c.backend.allocate(DType::F32, {tokens, 3 * config.dim});
  c.backend.upload(input, qkv->second.data());
  for (const bool rotated : {false, true}) {
    AttentionProbe probe;
    SelfAttentionOp op;
    op.qkv = input;
    op.heads = static_cast<int32_t>(config.heads);
    op.normQ = c.backend.makeVector(weights.require("blocks.0.self_attn.norm_q.weight"));
    op.normK = c.backend.makeVector(weights.require("blocks.0.self_attn.norm_k.weight"));
    if (rotated) {
      op.ropeCos = rope.cosine;
      op.ropeSin = rope.sine;
    }
    op.out = c.backend.allocate(DType::F32, {tokens, config.dim});
    op.probe = &probe;
    c.backend.selfAttention(op);
    c.backend.synchronize();
    const std::string suffix = rotated ? "_rope" : "_prerope";
    c.close(prefix + "block0.q" + suffix, probe.q, kOutputTolerance);
    c.close(prefix + "block0.k" + suffix, probe.k, kOutputTolerance);
    if (rotated) c.close(prefix + "block0.v", probe.v, kOutputTolerance);
  }
}

void runVmoba(Comparison& c, const std::string& variant, Dit& dit, Conditioning& conditioning, const Tensor& latent, float timestep, const RopeTable& rope) {
  const std::string prefix = variant + "vmoba.";
  if (c.metadata(prefix + "select_mode").empty()) return;
  const int64_t layers = dit.config().layers;
  std::vector<BlockPlan> plans;
  std::vector<AttentionProbe> probes(static_cast<size_t>(layers));
  for (int64_t i = 0; i < layers; ++i) plans.push_back(planBlocks(rope.grid, partitionFromChunk(c.metadata(prefix + "chunk_size" + std::to_string(i)))));
  std::vector<LayerAttention> attention;
  for (int64_t i = 0; i < layers; ++i) {
    SelectionRule rule;
    rule.mode = c.metadata(prefix + "select_mode") == "topk" ? SelectionMode::TopK : SelectionMode::Threshold;
    rule.scope = scopeFromName(c.metadata(prefix + "threshold_type"));
    rule.tau = std::strtof(c.metadata(prefix + "simsum_threshold").c_str(), nullptr);
    rule.semantics = Semantics::Upstream;
    attention.push_back({&plans[static_cast<size_t>(i)], rule, &probes[static_cast<size_t>(i)]});
  }
  Values values;
  std::vector<AttentionStatistics> statistics;
  Dit::Branch branch{latent, &conditioning, c.backend.allocate(DType::F32, latent.shape), &statistics};
  branch.velocity = c.backend.allocate(DType::F32, {dit.config().outChannels, latent.shape[1], latent.shape[2], latent.shape[3]});
  dit.forward(std::span(&branch, 1), timestep, rope, attention, {}, collect(c, values));
  compareAll(c, prefix, values);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string number = std::to_string(i);
    const auto& selection = probes[static_cast<size_t>(i)].selection;
    if (c.has(prefix + "mask" + number)) c.exact(prefix + "mask" + number, std::vector<int64_t>(selection.begin(), selection.end()));
    const double density = std::strtod(c.metadata(prefix + "density" + number).c_str(), nullptr);
    const double measured = statistics[static_cast<size_t>(i)].density;
    c.report({c.file, prefix + "density" + number, std::abs(density - measured), 1e-9, std::abs(density - measured) <= 1e-9, ""});
  }
}

}  // namespace

void verifyDit(Comparison& c, std::shared_ptr<const Checkpoint> weights) {
  Dit dit(c.backend, weights, false);
  const DitConfig& config = dit.config();
  for (int v = 1; c.has("v" + std::to_string(v) + ".in.latent"); ++v) {
    const std::string variant = "v" + std::to_string(v) + ".";
    std::vector<float> latent = c.input(variant + "in.latent");
    const auto& extents = c.shape(variant + "in.latent");
    if (c.has(variant + "in.y")) {
      const std::vector<float> y = c.input(variant + "in.y");
      latent.insert(latent.end(), y.begin(), y.end());
    }
    const Tensor input = c.backend.allocate(DType::F32, {config.inChannels, extents[1], extents[2], extents[3]});
    if (static_cast<size_t>(input.elements()) != latent.size()) return c.fail(variant + "in.latent", "does not match the weights' input channels");
    c.backend.upload(input, latent.data());
    const Grid grid{static_cast<int32_t>(extents[1] / config.patch[0]), static_cast<int32_t>(extents[2] / config.patch[1]),
                    static_cast<int32_t>(extents[3] / config.patch[2])};
    const RopeTable rope = dit.ropeTable(grid);
    Values values;
    const Trace trace = collect(c, values);
    std::vector<float> clip;
    if (c.has(variant + "in.clip_fea")) clip = c.input(variant + "in.clip_fea");
    Conditioning conditioning = dit.condition(c.input(variant + "in.context"), clip, trace);
    if (c.has(variant + "text_embedding_head")) {
      const auto rows = static_cast<size_t>(c.shape(variant + "text_embedding_head")[0] * config.dim);
      const auto& text = values.at("text_embedding");
      values["text_embedding_head"].assign(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(rows));
    }
    compareAll(c, variant, values);

    const auto evaluate = [&](const std::string& prefix) {
      values.erase("text_embedding_head");
      const float timestep = c.input(prefix + "in.timestep").at(0);
      const std::vector<LayerAttention> attention(static_cast<size_t>(config.layers));
      Dit::Branch branch{input, &conditioning, c.backend.allocate(DType::F32, {config.outChannels, extents[1], extents[2], extents[3]})};
      dit.forward(std::span(&branch, 1), timestep, rope, attention, {}, trace);
      Values here = values;
      if (prefix != variant)  // the position table belongs to the variant, not to a timestep
        for (const char* name : {"rope.cos", "rope.sin"}) {
          if (c.has(variant + name) && !c.seen.contains(variant + name)) c.close(variant + name, values.at(name), kTableTolerance);
          here.erase(name);
        }
      compareAll(c, prefix, here);
      compareProjections(c, prefix, dit, *weights, rope, values);
      if (prefix == variant) runVmoba(c, variant, dit, conditioning, input, timestep, rope);
    };
    if (c.has(variant + "in.timestep")) evaluate(variant);
    for (int t = 0; c.has(variant + "t" + std::to_string(t) + ".in.timestep"); ++t) evaluate(variant + "t" + std::to_string(t) + ".");
  }
}

void verifyTextEncoder(Comparison& c, std::shared_ptr<const Checkpoint> weights) {
  TextEncoder encoder(c.backend, weights);
  if (c.has("bucket.rel_pos")) {
    std::vector<int64_t> buckets;
    for (const int64_t distance : c.integers("bucket.rel_pos")) buckets.push_back(relativePositionBucket(distance, encoder.config().buckets));
    c.exact("bucket.index", buckets);
  }
  const std::vector<int64_t> ids = c.integers("in.ids"), mask = c.integers("in.mask");
  if (c.has("in.lens")) c.integers("in.lens");
  const int64_t batch = c.shape("in.ids")[0], length = c.shape("in.ids")[1];
  Values joined;
  for (int64_t b = 0; b < batch; ++b) {
    Values values;
    const auto from = static_cast<std::ptrdiff_t>(b * length), to = from + static_cast<std::ptrdiff_t>(length);
    const std::vector<int32_t> row(ids.begin() + from, ids.begin() + to);
    const std::vector<uint8_t> visible(mask.begin() + from, mask.begin() + to);
    values["out"] = encoder.encode(row, visible, collect(c, values));
    for (auto& [name, value] : values) joined[name].insert(joined[name].end(), value.begin(), value.end());
  }
  joined["block0.pos_bias"] = encoder.positionBias(0, length);
  compareAll(c, "", joined);
  if (c.has("long.in.ids")) {
    const std::vector<int64_t> longIds = c.integers("long.in.ids");
    c.close("long.out", encoder.encode(std::vector<int32_t>(longIds.begin(), longIds.end())), kOutputTolerance);
  }
}

namespace {

/// Chunks of [T, H, W, C] collected in order -> [C, sum T, H, W].
class Clip {
 public:
  void append(const Tensor& tensor, std::vector<float> values) {
    shape_ = tensor.shape;
    frames_ += tensor.shape[0];
    values_.insert(values_.end(), values.begin(), values.end());
  }
  std::vector<float> channelsFirst() const {
    const int64_t pixels = shape_[1] * shape_[2], channels = shape_[3];
    std::vector<float> out(values_.size());
    for (int64_t f = 0; f < frames_; ++f)
      for (int64_t p = 0; p < pixels; ++p)
        for (int64_t ch = 0; ch < channels; ++ch)
          out[static_cast<size_t>((ch * frames_ + f) * pixels + p)] = values_[static_cast<size_t>((f * pixels + p) * channels + ch)];
    return out;
  }
  int64_t frames() const { return frames_; }

 private:
  Shape shape_;
  int64_t frames_ = 0;
  std::vector<float> values_;
};

/// Frames `picks` of [C, T, H, W].
std::vector<float> selectFrames(const std::vector<float>& clip, int64_t channels, int64_t frames, const std::vector<int64_t>& picks) {
  const auto pixels = static_cast<int64_t>(clip.size()) / (channels * frames);
  std::vector<float> out;
  for (int64_t ch = 0; ch < channels; ++ch)
    for (const int64_t pick : picks) {
      const auto from = clip.begin() + static_cast<std::ptrdiff_t>((ch * frames + pick) * pixels);
      out.insert(out.end(), from, from + static_cast<std::ptrdiff_t>(pixels));
    }
  return out;
}

std::vector<float> decodeAll(Vae& vae, const std::vector<float>& latent, const Shape& shape, const Trace& trace, int64_t* frames) {
  Vae::Decoder decoder(vae, latent, shape, 0, trace);
  Clip clip;
  for (DecodedFrames chunk = decoder.next(); chunk.count > 0; chunk = decoder.next()) {
    Tensor tensor;
    tensor.shape = {chunk.count, chunk.height, chunk.width, 3};
    clip.append(tensor, std::move(chunk.pixels));
  }
  *frames = clip.frames();
  return clip.channelsFirst();
}

}  // namespace

void verifyVae(Comparison& c, std::shared_ptr<const Checkpoint> weights) {
  Vae vae(c.backend, weights);
  c.sameBits("const.mean", vae.config().mean);
  c.sameBits("const.std", vae.config().std);
  std::map<std::string, Clip> clips;
  const Trace trace = [&](const std::string& name, const Tensor& tensor) { clips[name].append(tensor, c.host(tensor)); };

  const auto& z = c.shape("in.z");
  int64_t frames = 0;
  const std::vector<float> decoded = decodeAll(vae, c.input("in.z"), {z[0], z[1], z[2], z[3]}, trace, &frames);
  const auto& video = c.shape("in.video");
  const Vae::Encoded encoded = vae.encode(c.input("in.video"), {video[0], video[1], video[2], video[3]}, trace);
  for (const auto& [name, clip] : clips) {
    if (name == "enc.moments") {
      std::vector<float> mu = clip.channelsFirst();
      mu.resize(encoded.mu.size());
      c.close("enc.mu_raw", mu, kOutputTolerance);
    } else if (c.has(name + "_frames")) {
      const auto channels = c.shape(name)[0];
      c.close(name, selectFrames(clip.channelsFirst(), channels, clip.frames(), c.integers(name + "_frames")), kOutputTolerance);
    } else if (c.has(name)) {
      c.close(name, clip.channelsFirst(), kOutputTolerance);
    }
  }
  c.close("dec.out", decoded, kOutputTolerance);
  c.close("enc.mu", encoded.mu, kOutputTolerance);
  if (c.has("dec.roundtrip")) {
    const std::vector<float> roundtrip = decodeAll(vae, encoded.mu, encoded.shape, {}, &frames);
    std::vector<int64_t> picks;
    for (int64_t f = 0; f < frames; f += 4) picks.push_back(f);
    c.close("dec.roundtrip", selectFrames(roundtrip, 3, frames, picks), kOutputTolerance);
  }
}

}  // namespace vmoba::verify
