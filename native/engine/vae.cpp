#include "native/engine/vae.h"

#include <algorithm>
#include <cmath>
#include <sstream>

#include "native/base/error.h"
#include "native/engine/vae_network.h"

namespace vmoba {
namespace {

// Wan 2.1's published latent statistics, used when a checkpoint's metadata does not carry its own.
constexpr float kWanMean[16] = {-0.7571f, -0.7089f, -0.9113f, 0.1075f, -0.1745f, 0.9653f, -0.1517f, 1.5508f,
                                0.4134f,  -0.0715f, 0.5517f,  -0.3632f, -0.1922f, -0.9497f, 0.2503f, -0.2921f};
constexpr float kWanStd[16] = {2.8184f, 1.4541f, 2.3275f, 2.6558f, 1.2196f, 1.7708f, 2.6052f, 2.0743f,
                               3.2687f, 2.1526f, 2.8652f, 1.5579f, 1.6382f, 1.1253f, 2.8251f, 1.9160f};

std::vector<float> metadataList(const Checkpoint& checkpoint, const std::string& key, int64_t count) {
  const auto found = checkpoint.metadata().find(key);
  if (found == checkpoint.metadata().end()) return {};
  std::vector<float> values;
  std::stringstream text(found->second);
  for (std::string item; std::getline(text, item, ',');) {
    char* end = nullptr;
    values.push_back(std::strtof(item.c_str(), &end));
    if (end == item.c_str() || !std::isfinite(values.back())) values.clear();
  }
  if (static_cast<int64_t>(values.size()) != count)
    throw Error(ErrorCode::BadModelFile, checkpoint.path() + ": metadata " + key + ": expected " + std::to_string(count) + " numbers");
  return values;
}

/// [C, T, H, W] region of one latent frame, denormalised, channels-last.
std::vector<float> denormalisedFrame(const std::vector<float>& latent, const Shape& shape, int64_t frame, int64_t top, int64_t left, int64_t rows,
                                     int64_t columns, const VaeConfig& config) {
  std::vector<float> out(static_cast<size_t>(rows * columns * shape[0]));
  for (int64_t c = 0; c < shape[0]; ++c)
    for (int64_t y = 0; y < rows; ++y)
      for (int64_t x = 0; x < columns; ++x) {
        const float value = latent[static_cast<size_t>(((c * shape[1] + frame) * shape[2] + top + y) * shape[3] + left + x)];
        // The published code divides by the reciprocal of std; kept so that the last bits agree.
        out[static_cast<size_t>((y * columns + x) * shape[0] + c)] =
            value / (1.0f / config.std[static_cast<size_t>(c)]) + config.mean[static_cast<size_t>(c)];
      }
  return out;
}

struct Tile {
  int64_t top, left, rows, columns;
};

/// Start positions of tiles of `tile` over `extent`, overlapping by a quarter, the last one flush with the edge.
std::vector<int64_t> tileStarts(int64_t extent, int64_t tile) {
  if (tile <= 0 || tile >= extent) return {0};
  const int64_t stride = std::max<int64_t>(1, tile - tile / 4);
  std::vector<int64_t> starts;
  for (int64_t at = 0; at + tile < extent; at += stride) starts.push_back(at);
  starts.push_back(extent - tile);
  return starts;
}

/// Blend weight of pixel i in a tile of n pixels: ramps over the overlap, 1 inside and at the picture's border.
float ramp(int64_t i, int64_t n, int64_t overlap, bool atStart, bool atEnd) {
  float weight = 1;
  if (!atStart) weight = std::min(weight, (static_cast<float>(i) + 0.5f) / static_cast<float>(overlap));
  if (!atEnd) weight = std::min(weight, (static_cast<float>(n - i) - 0.5f) / static_cast<float>(overlap));
  return weight;
}

}  // namespace

VaeConfig VaeConfig::read(const Checkpoint& checkpoint) {
  if (checkpoint.kind() != ModelKind::WanVae)
    throw Error(ErrorCode::BadModelFile, checkpoint.path() + ": expected a Wan video VAE, found " + modelKindName(checkpoint.kind()));
  VaeConfig config;
  config.latentChannels = checkpoint.require("conv2.weight", {-1, -1, 1, 1, 1}).shape[0];
  for (const char* name : {"decoder.conv1.weight", "decoder.middle.0.residual.2.weight", "decoder.middle.1.to_qkv.weight", "decoder.head.2.weight",
                           "decoder.upsamples.0.residual.2.weight"})
    checkpoint.require(name);
  config.mean = metadataList(checkpoint, "latent_mean", config.latentChannels);
  config.std = metadataList(checkpoint, "latent_std", config.latentChannels);
  if (config.mean.empty() || config.std.empty()) {
    if (config.latentChannels != 16)
      throw Error(ErrorCode::BadModelFile, checkpoint.path() + ": metadata latent_mean: missing, and only a 16-channel VAE has known constants");
    config.mean.assign(std::begin(kWanMean), std::end(kWanMean));
    config.std.assign(std::begin(kWanStd), std::end(kWanStd));
  }
  for (const float deviation : config.std)
    if (!(deviation > 0)) throw Error(ErrorCode::BadModelFile, checkpoint.path() + ": metadata latent_std: must be positive");
  return config;
}

Vae::Vae(Backend& backend, std::shared_ptr<const Checkpoint> checkpoint)
    : backend_(backend), checkpoint_(std::move(checkpoint)), config_(VaeConfig::read(*checkpoint_)), network_(std::make_unique<Network>(backend, *checkpoint_)) {}

Vae::~Vae() = default;

size_t Vae::weightBytes() const {
  size_t sum = 0;
  for (const auto& [name, view] : checkpoint_->tensors()) sum += static_cast<size_t>(view.elements()) * elementBytes(backend_.activationType());
  return sum;
}

struct Vae::Decoder::State {
  Vae& vae;
  std::vector<float> latent;
  Shape shape;
  Trace trace;
  std::vector<Tile> tiles;
  std::vector<StreamContext> contexts;
  int64_t overlap = 1;
  int64_t frame = 0;
};

Vae::Decoder::Decoder(Vae& vae, std::vector<float> latent, Shape shape, int64_t tile, const Trace& trace)
    : state_(new State{vae, std::move(latent), shape, trace, {}, {}}) {
  if (shape[0] != vae.config_.latentChannels) throw Error(ErrorCode::Internal, "latent channels do not match the VAE");
  const int64_t rows = tile > 0 ? std::min(tile, shape[2]) : shape[2], columns = tile > 0 ? std::min(tile, shape[3]) : shape[3];
  for (const int64_t top : tileStarts(shape[2], rows))
    for (const int64_t left : tileStarts(shape[3], columns)) state_->tiles.push_back({top, left, rows, columns});
  state_->contexts.resize(state_->tiles.size());
  state_->overlap = std::max<int64_t>(1, tile / 4);
}

Vae::Decoder::~Decoder() = default;

double Vae::Decoder::fraction() const { return static_cast<double>(state_->frame) / static_cast<double>(state_->shape[1]); }

DecodedFrames Vae::Decoder::next() {
  State& s = *state_;
  DecodedFrames result;
  if (s.frame >= s.shape[1]) return result;
  Backend& backend = s.vae.backend_;
  std::vector<float> weights;
  for (size_t t = 0; t < s.tiles.size(); ++t) {
    const Tile& tile = s.tiles[t];
    const std::vector<float> z = denormalisedFrame(s.latent, s.shape, s.frame, tile.top, tile.left, tile.rows, tile.columns, s.vae.config_);
    const Tensor wide = backend.allocate(DType::F32, {1, tile.rows, tile.columns, s.shape[0]});
    backend.upload(wide, z.data());
    const Tensor input = backend.allocate(backend.activationType(), wide.shape);
    backend.convert(wide, input);
    const Tensor frames = s.vae.network_->decodeChunk(input, s.contexts[t], s.trace);
    const Tensor pixels = backend.allocate(DType::F32, frames.shape);
    backend.convert(frames, pixels);
    const int64_t count = frames.shape[0], height = frames.shape[1], width = frames.shape[2];
    std::vector<float> values(static_cast<size_t>(pixels.elements()));
    backend.download(pixels, values.data());
    const int64_t scaleY = height / tile.rows, scaleX = width / tile.columns;
    if (result.count == 0) {
      result = {count, s.shape[2] * scaleY, s.shape[3] * scaleX, {}};
      if (s.tiles.size() == 1) {
        result.pixels = std::move(values);
        break;
      }
      result.pixels.assign(static_cast<size_t>(count * result.height * result.width * 3), 0.0f);
      weights.assign(static_cast<size_t>(result.height * result.width), 0.0f);
    }
    const bool first[2] = {tile.top == 0, tile.left == 0};
    const bool last[2] = {tile.top + tile.rows == s.shape[2], tile.left + tile.columns == s.shape[3]};
    for (int64_t y = 0; y < height; ++y) {
      const float wy = ramp(y, height, s.overlap * scaleY, first[0], last[0]);
      for (int64_t x = 0; x < width; ++x) {
        const float w = wy * ramp(x, width, s.overlap * scaleX, first[1], last[1]);
        const int64_t at = (tile.top * scaleY + y) * result.width + tile.left * scaleX + x;
        weights[static_cast<size_t>(at)] += w;
        for (int64_t f = 0; f < count; ++f)
          for (int64_t c = 0; c < 3; ++c)
            result.pixels[static_cast<size_t>((f * result.height * result.width + at) * 3 + c)] += w * values[static_cast<size_t>(((f * height + y) * width + x) * 3 + c)];
      }
    }
  }
  if (!weights.empty())
    for (size_t i = 0; i < result.pixels.size(); ++i) result.pixels[i] /= weights[i / 3 % weights.size()];
  ++s.frame;
  return result;
}

Vae::Encoded Vae::encode(std::span<const float> video, const Shape& shape, const Trace& trace) {
  const int64_t frames = shape[1], height = shape[2], width = shape[3];
  if (shape[0] != 3 || frames < 1 || height % 8 != 0 || width % 8 != 0)
    throw Error(ErrorCode::BadRequest, "a clip to encode must be RGB with sides in multiples of 8", "video");
  const int64_t latentFrames = 1 + (frames - 1) / 4;
  StreamContext context;
  const int64_t channels = config_.latentChannels;
  Encoded result;
  result.shape = {channels, latentFrames, height / 8, width / 8};
  result.mu.resize(static_cast<size_t>(result.shape.elements()));
  for (int64_t group = 0, from = 0; group < latentFrames; ++group) {
    const int64_t count = group == 0 ? 1 : 4;
    std::vector<float> pixels(static_cast<size_t>(count * height * width * 3));
    for (int64_t f = 0; f < count; ++f)
      for (int64_t i = 0; i < height * width; ++i)
        for (int64_t c = 0; c < 3; ++c)
          pixels[static_cast<size_t>((f * height * width + i) * 3 + c)] = video[static_cast<size_t>((c * frames + from + f) * height * width + i)];
    from += count;
    const Tensor wide = backend_.allocate(DType::F32, {count, height, width, 3});
    backend_.upload(wide, pixels.data());
    const Tensor input = backend_.allocate(backend_.activationType(), wide.shape);
    backend_.convert(wide, input);
    const Tensor moments = network_->pointwise("conv1", network_->encodeChunk(input, context, trace));
    const Tensor values = backend_.allocate(DType::F32, moments.shape);
    backend_.convert(moments, values);
    std::vector<float> host(static_cast<size_t>(values.elements()));
    backend_.download(values, host.data());
    if (trace) trace("enc.moments", values);
    const int64_t positions = result.shape[2] * result.shape[3];
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < positions; ++i)
        result.mu[static_cast<size_t>((c * latentFrames + group) * positions + i)] =
            (host[static_cast<size_t>(i * moments.shape[3] + c)] - config_.mean[static_cast<size_t>(c)]) * (1.0f / config_.std[static_cast<size_t>(c)]);
  }
  return result;
}

}  // namespace vmoba
