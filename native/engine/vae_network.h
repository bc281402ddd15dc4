// The layers of the VAE with their streaming context. Internal to vae.cpp.
#pragma once
#include <map>
#include <string>

#include "native/engine/vae.h"

namespace vmoba {

/// Last input frames of every causal convolution of one stream (one clip, one tile).
struct StreamContext {
  std::map<std::string, Tensor> frames;  ///< up to two frames [n, H, W, C]; absent = zeros
  bool first = true;                     ///< the chunk in hand is the clip's first
};

struct Vae::Network {
  Network(Backend& b, const Checkpoint& c) : backend(b), checkpoint(c) {}
  Backend& backend;
  const Checkpoint& checkpoint;
  std::map<std::string, std::shared_ptr<ConvWeight>> convs;
  std::map<std::string, Tensor> gammas;

  const ConvWeight& conv(const std::string& name);
  const Tensor& gamma(const std::string& name);
  bool has(const std::string& name) const { return checkpoint.find(name) != nullptr; }

  /// A buffer for a causal convolution's input: two context frames in front, then room for `frames` new ones.
  struct Padded {
    Tensor all, fresh;
  };
  Padded padded(const std::string& name, const Shape& fresh, StreamContext& context);
  /// Convolves a filled padded buffer and remembers its last two frames.
  Tensor causal(const std::string& name, const Padded& input, StreamContext& context, const Tensor& residual = {});
  /// 1×1×1 or per-frame 3×3 convolution.
  Tensor pointwise(const std::string& name, const Tensor& x);
  Tensor normed(const std::string& gammaName, const Tensor& x, bool silu);

  Tensor residualBlock(const std::string& prefix, const Tensor& x, StreamContext& context);
  Tensor attentionBlock(const std::string& prefix, const Tensor& x);
  Tensor middle(const std::string& prefix, const Tensor& x, StreamContext& context);
  Tensor upsampler(const std::string& prefix, const Tensor& x, StreamContext& context);
  Tensor downsampler(const std::string& prefix, const Tensor& x, StreamContext& context);
  /// Encoder and decoder heads: norm, SiLU, causal convolution.
  Tensor head(const std::string& prefix, const Tensor& x, StreamContext& context);
  Tensor causalFrom(const std::string& name, const Tensor& x, StreamContext& context);

  /// z [1, h, w, C] denormalised -> frames [F, 8h, 8w, 3]
  Tensor decodeChunk(const Tensor& z, StreamContext& context, const Trace& trace);
  /// pixels [F, H, W, 3] -> [F', H/8, W/8, 2C] (before conv1)
  Tensor encodeChunk(const Tensor& pixels, StreamContext& context, const Trace& trace);
};

}  // namespace vmoba
