#include "native/engine/text_encoder.h"

#include <cmath>
#include <cstdlib>

#include "native/base/error.h"

namespace vmoba {
namespace {

std::string blockName(int64_t index, const std::string& part) { return "blocks." + std::to_string(index) + "." + part; }

std::vector<int32_t> bucketTable(int64_t length, int64_t buckets) {
  std::vector<int32_t> table(static_cast<size_t>(2 * length - 1));
  for (int64_t i = 0; i < 2 * length - 1; ++i) table[static_cast<size_t>(i)] = relativePositionBucket(i - (length - 1), buckets);
  return table;
}

}  // namespace

int32_t relativePositionBucket(int64_t distance, int64_t buckets) {
  const int64_t half = buckets / 2, exact = half / 2;
  const auto sign = static_cast<int32_t>(distance > 0 ? half : 0);
  const int64_t a = std::abs(distance);
  if (a < exact) return sign + static_cast<int32_t>(a);
  // The logarithm in f32, as published: the table's edges depend on it.
  const float position = std::log(static_cast<float>(a) / static_cast<float>(exact)) / static_cast<float>(std::log(128.0 / static_cast<double>(exact))) *
                         static_cast<float>(half - exact);
  return sign + static_cast<int32_t>(std::min<int64_t>(half - 1, exact + static_cast<int64_t>(position)));
}

TextEncoderConfig TextEncoderConfig::read(const Checkpoint& checkpoint) {
  if (checkpoint.kind() != ModelKind::Umt5)
    throw Error(ErrorCode::BadModelFile, checkpoint.path() + ": expected a umT5 encoder, found " + modelKindName(checkpoint.kind()));
  TextEncoderConfig c;
  const WeightView& embedding = checkpoint.require("token_embedding.weight", {-1, -1});
  c.vocabulary = embedding.shape[0];
  c.dim = embedding.shape[1];
  c.innerDim = checkpoint.require("blocks.0.attn.q.weight", {-1, c.dim}).shape[0];
  c.ffnDim = checkpoint.require("blocks.0.ffn.fc1.weight", {-1, c.dim}).shape[0];
  const WeightView& bias = checkpoint.require("blocks.0.pos_embedding.embedding.weight", {-1, -1});
  c.buckets = bias.shape[0];
  c.heads = bias.shape[1];
  while (checkpoint.find(blockName(c.layers, "norm1.weight")) != nullptr) ++c.layers;
  if (c.heads < 1 || c.innerDim % c.heads != 0) throw Error(ErrorCode::BadModelFile, checkpoint.path() + ": heads do not divide the attention width");
  if (c.buckets < 8 || c.buckets % 4 != 0) throw Error(ErrorCode::BadModelFile, checkpoint.path() + ": blocks.0.pos_embedding.embedding.weight: absurd number of buckets");
  std::vector<std::string> required{"token_embedding.weight", "norm.weight"};
  for (int64_t i = 0; i < c.layers; ++i) {
    for (const char* part : {"attn.q.weight", "attn.k.weight", "attn.v.weight", "attn.o.weight", "ffn.fc1.weight", "ffn.fc2.weight", "ffn.gate.0.weight",
                             "norm1.weight", "norm2.weight", "pos_embedding.embedding.weight"})
      required.push_back(blockName(i, part));
  }
  checkpoint.expect(ModelKind::Umt5, required, false);
  for (int64_t i = 0; i < c.layers; ++i) {
    for (const char* part : {"attn.q.weight", "attn.k.weight", "attn.v.weight"}) checkpoint.require(blockName(i, part), {c.innerDim, c.dim});
    checkpoint.require(blockName(i, "attn.o.weight"), {c.dim, c.innerDim});
    for (const char* part : {"ffn.fc1.weight", "ffn.gate.0.weight"}) checkpoint.require(blockName(i, part), {c.ffnDim, c.dim});
    checkpoint.require(blockName(i, "ffn.fc2.weight"), {c.dim, c.ffnDim});
    for (const char* part : {"norm1.weight", "norm2.weight"}) checkpoint.require(blockName(i, part), {c.dim});
    checkpoint.require(blockName(i, "pos_embedding.embedding.weight"), {c.buckets, c.heads});
  }
  return c;
}

TextEncoder::TextEncoder(Backend& backend, std::shared_ptr<const Checkpoint> checkpoint)
    : backend_(backend), checkpoint_(std::move(checkpoint)), config_(TextEncoderConfig::read(*checkpoint_)) {}

std::vector<float> TextEncoder::positionBias(int64_t layer, int64_t length) const {
  const std::vector<float> table = checkpoint_->require(blockName(layer, "pos_embedding.embedding.weight")).toFloat();
  const std::vector<int32_t> buckets = bucketTable(length, config_.buckets);
  std::vector<float> bias(static_cast<size_t>(config_.heads * length * length));
  for (int64_t h = 0; h < config_.heads; ++h)
    for (int64_t q = 0; q < length; ++q)
      for (int64_t k = 0; k < length; ++k)
        bias[static_cast<size_t>((h * length + q) * length + k)] =
            table[static_cast<size_t>(buckets[static_cast<size_t>(k - q + length - 1)] * config_.heads + h)];
  return bias;
}

std::vector<float> TextEncoder::encode(std::span<const int32_t> ids, std::span<const uint8_t> mask, const Trace& trace,
                                       const std::function<void(int64_t)>& onLayer) {
  const auto length = static_cast<int64_t>(ids.size());
  const DType act = backend_.activationType();
  const int64_t dim = config_.dim;

  // Gather embedding rows on the host: the table may be gigabytes, a prompt needs a few hundred rows of it.
  const WeightView& embedding = checkpoint_->require("token_embedding.weight");
  std::vector<float> rows(static_cast<size_t>(length * dim));
  for (int64_t i = 0; i < length; ++i) {
    const int32_t id = ids[static_cast<size_t>(i)];
    if (id < 0 || id >= config_.vocabulary)
      throw Error(ErrorCode::BadModelFile, checkpoint_->path() + ": token_embedding.weight: token " + std::to_string(id) + " is outside its " +
                                               std::to_string(config_.vocabulary) + " rows; tokeniser and text encoder do not belong together");
    WeightView row = embedding;
    row.shape = {1, dim};
    row.bytes = static_cast<size_t>(dim) * elementBytes(embedding.dtype);
    row.data = embedding.data + static_cast<size_t>(id) * row.bytes;
    row.toFloat(std::span(rows).subspan(static_cast<size_t>(i * dim), static_cast<size_t>(dim)));
  }
  const Tensor x = backend_.allocate(DType::F32, {length, dim});
  backend_.upload(x, rows.data());
  if (trace) trace("embed", x);

  const Tensor normed = backend_.allocate(act, {length, dim}), branch = backend_.allocate(act, {length, dim});
  const Tensor qkv = backend_.allocate(act, {length, 3 * config_.innerDim}), attended = backend_.allocate(act, {length, config_.innerDim});
  const Tensor value = backend_.allocate(act, {length, config_.ffnDim}), gate = backend_.allocate(act, {length, config_.ffnDim});
  const std::vector<int32_t> buckets = bucketTable(length, config_.buckets);

  for (int64_t i = 0; i < config_.layers; ++i) {
    const auto weight = [&](const std::string& part) -> const WeightView& { return checkpoint_->require(blockName(i, part)); };
    const auto linear = [&](std::initializer_list<const WeightView*> weights) { return backend_.makeLinear(std::span(weights.begin(), weights.size()), {}); };
    const std::string label = "block" + std::to_string(i);

    backend_.rmsNorm(x, backend_.makeVector(weight("norm1.weight")), config_.eps, normed);
    backend_.linear(normed, *linear({&weight("attn.q.weight"), &weight("attn.k.weight"), &weight("attn.v.weight")}), qkv);
    const Tensor bias = backend_.makeVector(weight("pos_embedding.embedding.weight"));
    backend_.biasedAttention(qkv, static_cast<int32_t>(config_.heads), bias, buckets, mask, attended);
    backend_.linear(attended, *linear({&weight("attn.o.weight")}), branch);
    if (trace) trace(label + ".attn", branch);
    backend_.addGated(x, branch, {});

    backend_.rmsNorm(x, backend_.makeVector(weight("norm2.weight")), config_.eps, normed);
    backend_.linear(normed, *linear({&weight("ffn.gate.0.weight")}), gate, Activation::GeluTanh);
    backend_.linear(normed, *linear({&weight("ffn.fc1.weight")}), value);
    backend_.multiply(value, gate, value);
    backend_.linear(value, *linear({&weight("ffn.fc2.weight")}), branch);
    if (trace) trace(label + ".ffn", branch);
    backend_.addGated(x, branch, {});
    if (trace) trace(label, x);
    if (onLayer) onLayer(i);
  }
  const Tensor out = backend_.allocate(DType::F32, x.shape);
  backend_.rmsNorm(x, backend_.makeVector(checkpoint_->require("norm.weight")), config_.eps, out);
  backend_.download(out, rows.data());
  return rows;
}

}  // namespace vmoba
