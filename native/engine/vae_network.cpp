#include "native/engine/vae_network.h"

#include "native/base/error.h"

namespace vmoba {
namespace {
Shape withFrames(const Shape& shape, int64_t frames) { return {frames, shape[1], shape[2], shape[3]}; }
}  // namespace

const ConvWeight& Vae::Network::conv(const std::string& name) {
  auto& weight = convs[name];
  if (!weight) weight = backend.makeConv(checkpoint.require(name + ".weight"), checkpoint.find(name + ".bias"));
  return *weight;
}

const Tensor& Vae::Network::gamma(const std::string& name) {
  Tensor& tensor = gammas[name];
  if (!tensor) tensor = backend.makeVector(checkpoint.require(name));
  return tensor;
}

Vae::Network::Padded Vae::Network::padded(const std::string& name, const Shape& fresh, StreamContext& context) {
  const int64_t frames = fresh[0];
  Padded buffer;
  buffer.all = backend.allocate(backend.activationType(), withFrames(fresh, frames + 2));
  buffer.fresh = buffer.all.rows(2, frames + 2);
  const auto found = context.frames.find(name);
  const int64_t known = found == context.frames.end() ? 0 : found->second.shape[0];
  if (known < 2) backend.zero(buffer.all.rows(0, 2 - known));
  if (known > 0) backend.copy(buffer.all.rows(2 - known, 2), found->second);
  return buffer;
}

Tensor Vae::Network::causal(const std::string& name, const Padded& input, StreamContext& context, const Tensor& residual) {
  const ConvWeight& weight = conv(name);
  const int64_t frames = input.fresh.shape[0];
  const Tensor out = backend.allocate(backend.activationType(), {frames, input.all.shape[1], input.all.shape[2], weight.outputs});
  const auto side = static_cast<int32_t>(weight.kernel[1] / 2);
  backend.conv3d(input.all, weight, {{1, 1, 1}, {side, side}, {side, side}}, out, residual);
  Tensor& kept = context.frames[name];
  if (!kept) kept = backend.allocate(backend.activationType(), withFrames(input.all.shape, 2));
  backend.copy(kept, input.all.rows(frames, frames + 2));
  return out;
}

Tensor Vae::Network::causalFrom(const std::string& name, const Tensor& x, StreamContext& context) {
  const Padded input = padded(name, x.shape, context);
  backend.copy(input.fresh, x);
  return causal(name, input, context);
}

Tensor Vae::Network::pointwise(const std::string& name, const Tensor& x) {
  const ConvWeight& weight = conv(name);
  const auto side = static_cast<int32_t>(weight.kernel[1] / 2);
  const Tensor out = backend.allocate(x.dtype, {x.shape[0], x.shape[1], x.shape[2], weight.outputs});
  backend.conv3d(x, weight, {{1, 1, 1}, {side, side}, {side, side}}, out);
  return out;
}

Tensor Vae::Network::normed(const std::string& gammaName, const Tensor& x, bool silu) {
  const Tensor out = backend.allocate(x.dtype, x.shape);
  backend.channelNorm(x, gamma(gammaName), silu, out);
  return out;
}

Tensor Vae::Network::residualBlock(const std::string& prefix, const Tensor& x, StreamContext& context) {
  const std::string first = prefix + ".residual.2", second = prefix + ".residual.6";
  const Padded input = padded(first, x.shape, context);
  backend.channelNorm(x, gamma(prefix + ".residual.0.gamma"), true, input.fresh);
  const Tensor middleTensor = causal(first, input, context);
  const Padded inner = padded(second, middleTensor.shape, context);
  backend.channelNorm(middleTensor, gamma(prefix + ".residual.3.gamma"), true, inner.fresh);
  const Tensor shortcut = has(prefix + ".shortcut.weight") ? pointwise(prefix + ".shortcut", x) : x;
  return causal(second, inner, context, shortcut);
}

Tensor Vae::Network::attentionBlock(const std::string& prefix, const Tensor& x) {
  const Tensor qkv = pointwise(prefix + ".to_qkv", normed(prefix + ".norm.gamma", x, false));
  const Tensor attended = backend.allocate(x.dtype, x.shape);
  backend.frameAttention(qkv, attended);
  const ConvWeight& projection = conv(prefix + ".proj");
  const Tensor out = backend.allocate(x.dtype, x.shape);
  backend.conv3d(attended, projection, {}, out, x);
  return out;
}

Tensor Vae::Network::middle(const std::string& prefix, const Tensor& x, StreamContext& context) {
  return residualBlock(prefix + ".2", attentionBlock(prefix + ".1", residualBlock(prefix + ".0", x, context)), context);
}

Tensor Vae::Network::upsampler(const std::string& prefix, const Tensor& x, StreamContext& context) {
  Tensor frames = x;
  const std::string timeName = prefix + ".time_conv";
  if (has(timeName + ".weight") && !context.first) {
    const Tensor doubled = causalFrom(timeName, x, context);
    frames = backend.allocate(x.dtype, {2 * x.shape[0], x.shape[1], x.shape[2], x.shape[3]});
    backend.channelsToFrames(doubled, frames);
  }
  const Tensor large = backend.allocate(x.dtype, {frames.shape[0], 2 * frames.shape[1], 2 * frames.shape[2], frames.shape[3]});
  backend.upsample2x(frames, large);
  return pointwise(prefix + ".resample.1", large);
}

Tensor Vae::Network::downsampler(const std::string& prefix, const Tensor& x, StreamContext& context) {
  const ConvWeight& spatial = conv(prefix + ".resample.1");
  const Tensor small = backend.allocate(x.dtype, {x.shape[0], x.shape[1] / 2, x.shape[2] / 2, spatial.outputs});
  backend.conv3d(x, spatial, {{1, 2, 2}, {0, 0}, {1, 1}}, small);
  const std::string timeName = prefix + ".time_conv";
  if (!has(timeName + ".weight")) return small;
  const int64_t frames = small.shape[0];
  Tensor out = small;
  if (!context.first) {
    const ConvWeight& temporal = conv(timeName);
    const Tensor joined = backend.allocate(x.dtype, withFrames(small.shape, frames + 1));
    backend.copy(joined.rows(0, 1), context.frames.at(timeName));
    backend.copy(joined.rows(1, frames + 1), small);
    out = backend.allocate(x.dtype, {(frames + 1 - temporal.kernel[0]) / 2 + 1, small.shape[1], small.shape[2], temporal.outputs});
    backend.conv3d(joined, temporal, {{2, 1, 1}, {0, 0}, {0, 0}}, out);
  }
  Tensor& last = context.frames[timeName];
  last = backend.allocate(x.dtype, withFrames(small.shape, 1));
  backend.copy(last, small.rows(frames - 1, frames));
  return out;
}

Tensor Vae::Network::head(const std::string& prefix, const Tensor& x, StreamContext& context) {
  const std::string name = prefix + ".2";
  const Padded input = padded(name, x.shape, context);
  backend.channelNorm(x, gamma(prefix + ".0.gamma"), true, input.fresh);
  return causal(name, input, context);
}

Tensor Vae::Network::decodeChunk(const Tensor& z, StreamContext& context, const Trace& trace) {
  Tensor x = pointwise("conv2", z);
  if (trace) trace("dec.conv2", x);
  x = causalFrom("decoder.conv1", x, context);
  if (trace) trace("dec.conv1", x);
  x = middle("decoder.middle", x, context);
  if (trace) trace("dec.middle", x);
  for (int64_t i = 0, level = 0;; ++i) {
    const std::string prefix = "decoder.upsamples." + std::to_string(i);
    if (has(prefix + ".residual.0.gamma")) {
      x = residualBlock(prefix, x, context);
    } else if (has(prefix + ".resample.1.weight")) {
      x = upsampler(prefix, x, context);
      if (trace) trace("dec.up" + std::to_string(level), x);
      ++level;
    } else {
      break;
    }
  }
  x = head("decoder.head", x, context);
  context.first = false;
  return x;
}

Tensor Vae::Network::encodeChunk(const Tensor& pixels, StreamContext& context, const Trace& trace) {
  Tensor x = causalFrom("encoder.conv1", pixels, context);
  for (int64_t i = 0, level = 0;; ++i) {
    const std::string prefix = "encoder.downsamples." + std::to_string(i);
    if (has(prefix + ".residual.0.gamma")) {
      x = residualBlock(prefix, x, context);
    } else if (has(prefix + ".resample.1.weight")) {
      x = downsampler(prefix, x, context);
      if (trace) trace("enc.down" + std::to_string(level), x);
      ++level;
    } else {
      break;
    }
  }
  x = middle("encoder.middle", x, context);
  if (trace) trace("enc.middle", x);
  x = head("encoder.head", x, context);
  if (trace) trace("enc.head", x);
  context.first = false;
  return x;
}

}  // namespace vmoba
