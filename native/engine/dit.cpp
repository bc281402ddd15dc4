#include "native/engine/dit.h"

#include <algorithm>
#include <cmath>

#include "native/base/error.h"
#include "native/base/parallel.h"
#include "native/engine/time_embedding.h"

namespace vmoba {
namespace {

// Rows of the feed-forward's hidden layer held at once: bounds memory at any clip length and costs nothing in speed.
constexpr int64_t kFeedForwardRows = 8192;

std::string blockName(int64_t index, const std::string& part) { return "blocks." + std::to_string(index) + "." + part; }

int64_t metadataInteger(const Checkpoint& checkpoint, const std::string& key, int64_t fallback) {
  const auto found = checkpoint.metadata().find(key);
  if (found == checkpoint.metadata().end()) return fallback;
  char* end = nullptr;
  const long long value = std::strtoll(found->second.c_str(), &end, 10);
  if (end == found->second.c_str() || *end != '\0' || value <= 0 || value > (1 << 20))
    throw Error(ErrorCode::BadModelFile, checkpoint.path() + ": metadata " + key + ": not a positive number");
  return value;
}

[[noreturn]] void refuse(const Checkpoint& checkpoint, const std::string& reason) {
  throw Error(ErrorCode::BadModelFile, checkpoint.path() + ": " + reason);
}

}  // namespace

DitConfig DitConfig::read(const Checkpoint& checkpoint) {
  if (checkpoint.kind() != ModelKind::WanDit)
    refuse(checkpoint, std::string("expected a Wan diffusion transformer, found ") + modelKindName(checkpoint.kind()));
  DitConfig c;
  c.dim = checkpoint.require("head.modulation", {1, 2, -1}).shape[2];
  const WeightView& patch = checkpoint.require("patch_embedding.weight", {c.dim, -1, -1, -1, -1});
  c.inChannels = patch.shape[1];
  int64_t patchVolume = 1;
  for (size_t i = 0; i < 3; ++i) {
    if (patch.shape[2 + i] < 1 || patch.shape[2 + i] > 16) refuse(checkpoint, "patch_embedding.weight: absurd patch size");
    c.patch[i] = static_cast<int32_t>(patch.shape[2 + i]);
    patchVolume *= patch.shape[2 + i];
  }
  const int64_t headRows = checkpoint.require("head.head.weight", {-1, c.dim}).shape[0];
  if (headRows % patchVolume != 0) refuse(checkpoint, "head.head.weight: rows do not divide by the patch");
  c.outChannels = headRows / patchVolume;
  c.ffnDim = checkpoint.require("blocks.0.ffn.0.weight", {-1, c.dim}).shape[0];
  c.textDim = checkpoint.require("text_embedding.0.weight", {c.dim, -1}).shape[1];
  c.freqDim = checkpoint.require("time_embedding.0.weight", {c.dim, -1}).shape[1];
  c.textLength = metadataInteger(checkpoint, "text_len", 512);
  c.heads = metadataInteger(checkpoint, "num_heads", c.dim % 128 == 0 ? c.dim / 128 : 1);
  if (c.dim % c.heads != 0 || c.dim / c.heads % 2 != 0) refuse(checkpoint, "num_heads: " + std::to_string(c.heads) + " heads do not divide a width of " + std::to_string(c.dim));
  c.headDim = c.dim / c.heads;
  if (c.freqDim % 2 != 0) refuse(checkpoint, "time_embedding.0.weight: odd frequency width");
  while (checkpoint.find(blockName(c.layers, "modulation")) != nullptr) ++c.layers;
  c.imageToVideo = checkpoint.find("blocks.0.cross_attn.k_img.weight") != nullptr;

  std::vector<std::string> required{"patch_embedding.weight", "patch_embedding.bias", "head.head.weight", "head.head.bias", "head.modulation"};
  const auto linearPair = [&](const std::string& name) {
    required.push_back(name + ".weight");
    required.push_back(name + ".bias");
  };
  for (const char* name : {"text_embedding.0", "text_embedding.2", "time_embedding.0", "time_embedding.2", "time_projection.1"}) linearPair(name);
  if (c.imageToVideo)
    for (const char* name : {"img_emb.proj.0", "img_emb.proj.1", "img_emb.proj.3", "img_emb.proj.4"}) linearPair(name);
  for (int64_t i = 0; i < c.layers; ++i) {
    for (const char* part : {"self_attn", "cross_attn"}) {
      for (const char* projection : {".q", ".k", ".v", ".o"}) linearPair(blockName(i, std::string(part) + projection));
      for (const char* norm : {".norm_q.weight", ".norm_k.weight"}) required.push_back(blockName(i, std::string(part) + norm));
    }
    if (c.imageToVideo) {
      linearPair(blockName(i, "cross_attn.k_img"));
      linearPair(blockName(i, "cross_attn.v_img"));
      required.push_back(blockName(i, "cross_attn.norm_k_img.weight"));
    }
    for (const char* name : {"norm3", "ffn.0", "ffn.2"}) linearPair(blockName(i, name));
    required.push_back(blockName(i, "modulation"));
  }
  checkpoint.expect(ModelKind::WanDit, required, true);
  for (int64_t i = 0; i < c.layers; ++i) {
    for (const char* part : {"self_attn.q", "self_attn.k", "self_attn.v", "self_attn.o", "cross_attn.q", "cross_attn.k", "cross_attn.v", "cross_attn.o"}) {
      checkpoint.require(blockName(i, std::string(part) + ".weight"), {c.dim, c.dim});
      checkpoint.require(blockName(i, std::string(part) + ".bias"), {c.dim});
    }
    for (const char* part : {"self_attn.norm_q", "self_attn.norm_k", "cross_attn.norm_q", "cross_attn.norm_k", "norm3"})
      checkpoint.require(blockName(i, std::string(part) + ".weight"), {c.dim});
    checkpoint.require(blockName(i, "ffn.0.weight"), {c.ffnDim, c.dim});
    checkpoint.require(blockName(i, "ffn.2.weight"), {c.dim, c.ffnDim});
    checkpoint.require(blockName(i, "modulation"), {1, 6, c.dim});
  }
  checkpoint.require("text_embedding.2.weight", {c.dim, c.dim});
  checkpoint.require("time_embedding.2.weight", {c.dim, c.dim});
  checkpoint.require("time_projection.1.weight", {6 * c.dim, c.dim});
  return c;
}

struct Dit::Layer {
  std::shared_ptr<LinearWeight> qkv, out, crossQ, crossKeyValue, crossOut, imageKeyValue, ffn0, ffn2;
  Tensor normQ, normK, crossNormQ, crossNormK, imageNormK, norm3Weight, norm3Bias;
  std::vector<float> modulation;
  size_t bytes() const {
    size_t sum = 0;
    for (const auto& weight : {qkv, out, crossQ, crossKeyValue, crossOut, imageKeyValue, ffn0, ffn2})
      if (weight) sum += weight->bytes;
    return sum;
  }
};

/// Buffers of one branch while it moves through the layers.
struct Dit::Flow {
  Tensor x;                        ///< residual stream, f32 [S, dim]
  Tensor normed, attended, branch; ///< [S, dim] activation type
  Tensor qkv;                      ///< [S, 3*dim]
  Tensor hidden;                   ///< [min(S, kFeedForwardRows), ffnDim]
  std::vector<float> projection;   ///< e6
};

std::shared_ptr<LinearWeight> Dit::linear(const std::string& prefix) const { return stacked({prefix}); }

std::shared_ptr<LinearWeight> Dit::stacked(std::initializer_list<std::string> prefixes) const {
  std::vector<const WeightView*> weights, biases;
  for (const std::string& prefix : prefixes) {
    weights.push_back(&checkpoint_->require(prefix + ".weight"));
    if (const WeightView* bias = checkpoint_->find(prefix + ".bias")) biases.push_back(bias);
  }
  return backend_.makeLinear(weights, biases);
}

Dit::Dit(Backend& backend, std::shared_ptr<const Checkpoint> checkpoint, bool stream, const std::function<void(double)>& loaded)
    : backend_(backend), checkpoint_(std::move(checkpoint)), config_(DitConfig::read(*checkpoint_)), stream_(stream) {
  patchEmbedding_ = linear("patch_embedding");
  text0_ = linear("text_embedding.0");
  text2_ = linear("text_embedding.2");
  head_ = linear("head.head");
  headModulation_ = checkpoint_->require("head.modulation").toFloat();
  residentBytes_ = patchEmbedding_->bytes + text0_->bytes + text2_->bytes + head_->bytes;
  if (stream_) return;
  for (int64_t i = 0; i < config_.layers; ++i) {
    layers_.push_back(loadLayer(i));
    residentBytes_ += layers_.back()->bytes();
    if (loaded) loaded(static_cast<double>(i + 1) / static_cast<double>(config_.layers));
  }
}

std::shared_ptr<Dit::Layer> Dit::loadLayer(int64_t i) const {
  auto layer = std::make_shared<Layer>();
  const auto name = [&](const std::string& part) { return blockName(i, part); };
  const auto vector = [&](const std::string& part) { return backend_.makeVector(checkpoint_->require(name(part))); };
  layer->qkv = stacked({name("self_attn.q"), name("self_attn.k"), name("self_attn.v")});
  layer->out = linear(name("self_attn.o"));
  layer->crossQ = linear(name("cross_attn.q"));
  layer->crossKeyValue = stacked({name("cross_attn.k"), name("cross_attn.v")});
  layer->crossOut = linear(name("cross_attn.o"));
  layer->ffn0 = linear(name("ffn.0"));
  layer->ffn2 = linear(name("ffn.2"));
  layer->normQ = vector("self_attn.norm_q.weight");
  layer->normK = vector("self_attn.norm_k.weight");
  layer->crossNormQ = vector("cross_attn.norm_q.weight");
  layer->crossNormK = vector("cross_attn.norm_k.weight");
  layer->norm3Weight = vector("norm3.weight");
  layer->norm3Bias = vector("norm3.bias");
  if (config_.imageToVideo) {
    layer->imageKeyValue = stacked({name("cross_attn.k_img"), name("cross_attn.v_img")});
    layer->imageNormK = vector("cross_attn.norm_k_img.weight");
  }
  layer->modulation = checkpoint_->require(name("modulation")).toFloat();
  return layer;
}

RopeTable Dit::ropeTable(const Grid& grid) const {
  const int64_t pairs = config_.headDim / 2, spatial = pairs / 3, temporal = pairs - 2 * spatial;
  const int64_t tokens = grid.tokens();
  std::vector<float> cosine(static_cast<size_t>(tokens * pairs)), sine(cosine.size());
  const auto fill = [&](int64_t token, int64_t first, int64_t count, int64_t position) {
    for (int64_t j = 0; j < count; ++j) {
      const double angle = static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(j) / static_cast<double>(count));
      cosine[static_cast<size_t>(token * pairs + first + j)] = static_cast<float>(std::cos(angle));
      sine[static_cast<size_t>(token * pairs + first + j)] = static_cast<float>(std::sin(angle));
    }
  };
  parallelForRanges(tokens, 256, [&](int64_t begin, int64_t end) {
    for (int64_t token = begin; token < end; ++token) {
      fill(token, 0, temporal, token / (int64_t{grid.h} * grid.w));
      fill(token, temporal, spatial, token / grid.w % grid.h);
      fill(token, temporal + spatial, spatial, token % grid.w);
    }
  });
  RopeTable table{grid, backend_.allocate(DType::F32, {tokens, pairs}), backend_.allocate(DType::F32, {tokens, pairs})};
  backend_.upload(table.cosine, cosine.data());
  backend_.upload(table.sine, sine.data());
  return table;
}

Conditioning Dit::condition(std::span<const float> text, std::span<const float> image, const Trace& trace) const {
  const DType act = backend_.activationType();
  const int64_t rows = static_cast<int64_t>(text.size()) / config_.textDim;
  if (rows > config_.textLength) throw Error(ErrorCode::Internal, "more text rows than the model takes");
  std::vector<float> padded(static_cast<size_t>(config_.textLength * config_.textDim), 0.0f);
  std::copy(text.begin(), text.end(), padded.begin());
  const Tensor wide = backend_.allocate(DType::F32, {config_.textLength, config_.textDim});
  backend_.upload(wide, padded.data());
  const Tensor input = backend_.allocate(act, wide.shape);
  backend_.convert(wide, input);
  const Tensor hidden = backend_.allocate(act, {config_.textLength, config_.dim});
  Conditioning result;
  result.text = backend_.allocate(act, {config_.textLength, config_.dim});
  backend_.linear(input, *text0_, hidden, Activation::GeluTanh);
  backend_.linear(hidden, *text2_, result.text);
  if (trace) trace("text_embedding", result.text);

  if (!image.empty()) {
    const auto vector = [&](const char* name) { return backend_.makeVector(checkpoint_->require(name)); };
    const int64_t clipDim = checkpoint_->require("img_emb.proj.1.weight").shape.at(1);
    const int64_t imageRows = static_cast<int64_t>(image.size()) / clipDim;
    const Tensor clip = backend_.allocate(DType::F32, {imageRows, clipDim});
    backend_.upload(clip, image.data());
    const Tensor normed = backend_.allocate(act, clip.shape), middle = backend_.allocate(act, clip.shape);
    backend_.layerNorm(clip, vector("img_emb.proj.0.weight"), vector("img_emb.proj.0.bias"), false, 1e-5f, normed);
    backend_.linear(normed, *linear("img_emb.proj.1"), middle, Activation::GeluErf);
    const Tensor projected = backend_.allocate(DType::F32, {imageRows, config_.dim});
    backend_.linear(middle, *linear("img_emb.proj.3"), projected);
    result.image = backend_.allocate(act, projected.shape);
    backend_.layerNorm(projected, vector("img_emb.proj.4.weight"), vector("img_emb.proj.4.bias"), false, 1e-5f, result.image);
    if (trace) trace("img_emb", result.image);
  }
  result.textKeyValue.resize(static_cast<size_t>(config_.layers));
  result.imageKeyValue.resize(static_cast<size_t>(config_.layers));
  return result;
}

void Dit::ensureKeyValue(const Layer& layer, int64_t index, Conditioning& conditioning) const {
  const auto i = static_cast<size_t>(index);
  const auto project = [&](const Tensor& rows, const LinearWeight& weight) {
    const Tensor keyValue = backend_.allocate(backend_.activationType(), {rows.shape[0], 2 * config_.dim});
    backend_.linear(rows, weight, keyValue);
    return keyValue;
  };
  if (!conditioning.textKeyValue[i]) conditioning.textKeyValue[i] = project(conditioning.text, *layer.crossKeyValue);
  if (conditioning.image && !conditioning.imageKeyValue[i]) conditioning.imageKeyValue[i] = project(conditioning.image, *layer.imageKeyValue);
}

void Dit::runLayer(const Layer& layer, int64_t index, Branch& branch, Flow& flow, const RopeTable& rope, const LayerAttention& attention,
                   const Trace& trace) const {
  const int64_t dim = config_.dim, tokens = flow.x.shape[0];
  std::vector<float> modulation(layer.modulation);
  for (size_t i = 0; i < modulation.size(); ++i) modulation[i] += flow.projection[i];
  const Tensor m = backend_.makeVector(modulation).reshaped({6, dim});
  const auto part = [&](int64_t i) { return m.rows(i, i + 1).reshaped({dim}); };
  const std::string label = "block" + std::to_string(index);

  backend_.layerNorm(flow.x, part(1), part(0), true, config_.eps, flow.normed);
  backend_.linear(flow.normed, *layer.qkv, flow.qkv);
  SelfAttentionOp self;
  self.qkv = flow.qkv;
  self.heads = static_cast<int32_t>(config_.heads);
  self.normQ = layer.normQ;
  self.normK = layer.normK;
  self.normEps = config_.eps;
  self.ropeCos = rope.cosine;
  self.ropeSin = rope.sine;
  self.blocks = attention.blocks;
  self.rule = attention.rule;
  self.out = flow.attended;
  self.probe = attention.probe;
  if (branch.statistics != nullptr) {
    if (branch.mapLayer == index) self.request = branch.mapRequest;
    self.statistics = &(*branch.statistics)[static_cast<size_t>(index)];
  }
  if (trace) trace(label + ".qkv", flow.qkv);
  backend_.selfAttention(self);
  backend_.linear(flow.attended, *layer.out, flow.branch);
  if (trace) trace(label + ".self_attn", flow.branch);
  backend_.addGated(flow.x, flow.branch, part(2));

  Conditioning& conditioning = *branch.conditioning;
  ensureKeyValue(layer, index, conditioning);
  backend_.layerNorm(flow.x, layer.norm3Weight, layer.norm3Bias, false, config_.eps, flow.normed);
  const Tensor query = flow.branch;
  backend_.linear(flow.normed, *layer.crossQ, query);
  CrossAttentionOp cross;
  cross.q = query;
  cross.kv = conditioning.textKeyValue[static_cast<size_t>(index)];
  cross.heads = static_cast<int32_t>(config_.heads);
  cross.normQ = layer.crossNormQ;
  cross.normK = layer.crossNormK;
  cross.normEps = config_.eps;
  cross.out = flow.attended;
  if (branch.words != nullptr) {
    cross.keyGroup = branch.words->keyGroup;
    cross.groups = branch.words->groups;
    cross.groupMass = branch.words->mass;
  }
  backend_.crossAttention(cross);
  if (conditioning.image) {
    cross.kv = conditioning.imageKeyValue[static_cast<size_t>(index)];
    cross.normK = layer.imageNormK;
    cross.accumulate = true;
    cross.keyGroup.clear();
    cross.groupMass = {};
    backend_.crossAttention(cross);
  }
  backend_.linear(flow.attended, *layer.crossOut, flow.normed);
  if (trace) trace(label + ".cross_attn", flow.normed);
  backend_.addGated(flow.x, flow.normed, {});

  backend_.layerNorm(flow.x, part(4), part(3), true, config_.eps, flow.normed);
  for (int64_t from = 0; from < tokens; from += kFeedForwardRows) {
    const int64_t to = std::min(tokens, from + kFeedForwardRows);
    const Tensor hidden = flow.hidden.rows(0, to - from);
    backend_.linear(flow.normed.rows(from, to), *layer.ffn0, hidden, Activation::GeluTanh);
    backend_.linear(hidden, *layer.ffn2, flow.branch.rows(from, to));
  }
  if (trace) trace(label + ".ffn", flow.branch);
  backend_.addGated(flow.x, flow.branch, part(5));
  if (trace) trace(label, flow.x);
}

void Dit::forward(std::span<Branch> branches, float timestep, const RopeTable& rope, std::span<const LayerAttention> attention,
                  const std::function<void(int64_t)>& onLayer, const Trace& trace) {
  const DType act = backend_.activationType();
  const int64_t tokens = rope.grid.tokens(), dim = config_.dim;
  const TimeEmbedding time = embedTimestep(*checkpoint_, static_cast<double>(timestep));
  if (trace) {
    trace("time_sinusoid", backend_.makeVector(time.sinusoid));
    trace("time_embedding", backend_.makeVector(time.embedding));
    trace("time_projection", backend_.makeVector(time.projection).reshaped({6, dim}));
    trace("rope.cos", rope.cosine);
    trace("rope.sin", rope.sine);
  }

  std::vector<Flow> flows;
  // Work buffers are shared by the branches: each layer finishes one branch before the next begins.
  Flow shared;
  shared.normed = backend_.allocate(act, {tokens, dim});
  shared.attended = backend_.allocate(act, {tokens, dim});
  shared.branch = backend_.allocate(act, {tokens, dim});
  shared.qkv = backend_.allocate(act, {tokens, 3 * dim});
  shared.hidden = backend_.allocate(act, {std::min(tokens, kFeedForwardRows), config_.ffnDim});
  shared.projection = time.projection;
  for (Branch& branch : branches) {
    Flow flow = shared;
    flow.x = backend_.allocate(DType::F32, {tokens, dim});
    const Tensor rows = backend_.allocate(act, {tokens, patchEmbedding_->inputs});
    backend_.patchify(branch.latent, config_.patch, rows);
    backend_.linear(rows, *patchEmbedding_, flow.x);
    if (trace) trace("patch_embedding", flow.x);
    if (branch.statistics != nullptr) branch.statistics->assign(static_cast<size_t>(config_.layers), {});
    flows.push_back(std::move(flow));
  }

  std::shared_ptr<Layer> upcoming = std::move(first_);
  if (stream_ && !upcoming) upcoming = loadLayer(0);
  for (int64_t i = 0; i < config_.layers; ++i) {
    std::shared_ptr<Layer> layer = stream_ ? std::move(upcoming) : layers_[static_cast<size_t>(i)];
    // Enqueued before this layer's work: an accelerator copies the next layer while it computes this one.
    if (stream_) upcoming = loadLayer((i + 1) % config_.layers);
    for (size_t b = 0; b < branches.size(); ++b) runLayer(*layer, i, branches[b], flows[b], rope, attention[static_cast<size_t>(i)], trace);
    if (onLayer) onLayer(i);
  }
  first_ = std::move(upcoming);

  std::vector<float> modulation(headModulation_);
  for (size_t i = 0; i < modulation.size(); ++i) modulation[i] += time.embedding[i % static_cast<size_t>(dim)];
  const Tensor m = backend_.makeVector(modulation).reshaped({2, dim});
  for (size_t b = 0; b < branches.size(); ++b) {
    backend_.layerNorm(flows[b].x, m.rows(1, 2).reshaped({dim}), m.rows(0, 1).reshaped({dim}), true, config_.eps, shared.normed);
    const Tensor rows = backend_.allocate(DType::F32, {tokens, head_->outputs});
    backend_.linear(shared.normed, *head_, rows);
    if (trace) trace("head", rows);
    backend_.unpatchify(rows, config_.patch, branches[b].velocity);
    if (trace) trace("out", branches[b].velocity);
  }
  backend_.synchronize();
}

}  // namespace vmoba
