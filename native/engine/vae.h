// The Wan video VAE (causal 3-D convolutions, 4×8×8 compression): a streaming decoder that turns one latent frame at a time
// into pixels while keeping two frames of context per convolution, and the matching encoder. Layers are found by name in the
// checkpoint, widths come from tensor shapes. Optional spatial tiling bounds memory.
// Easy to get wrong: the first latent frame passes the temporal upsamplers untouched and is not context for the second.
#pragma once
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "native/backends/backend.h"
#include "native/engine/trace.h"
#include "native/weights/checkpoint.h"

namespace vmoba {

struct VaeConfig {
  int64_t latentChannels = 0;
  std::vector<float> mean, std;  ///< latent normalisation, from metadata or Wan's published constants
  static VaeConfig read(const Checkpoint& checkpoint);
};

/// Frames as [T, H, W, 3] f32 in about [-1, 1], unclamped.
struct DecodedFrames {
  int64_t count = 0, height = 0, width = 0;
  std::vector<float> pixels;
};

class Vae {
 public:
  Vae(Backend& backend, std::shared_ptr<const Checkpoint> checkpoint);
  ~Vae();
  const VaeConfig& config() const { return config_; }
  size_t weightBytes() const;

  /// Decodes a normalised latent frame by frame. `tile` = latent rows/columns per tile, 0 = whole frames.
  class Decoder {
   public:
    Decoder(Vae& vae, std::vector<float> latent, Shape shape, int64_t tile, const Trace& trace = {});
    ~Decoder();
    /// Pixels of the next latent frame (1 frame for the first, 4 for every other), or count 0 after the last.
    DecodedFrames next();
    double fraction() const;

   private:
    struct State;
    std::unique_ptr<State> state_;
  };

  struct Encoded {
    std::vector<float> mu;  ///< normalised, [C, T, H, W]
    Shape shape;
  };
  /// `video` f32 [3, F, H, W] in [-1, 1]; F = 4k+1 (surplus frames are ignored).
  Encoded encode(std::span<const float> video, const Shape& shape, const Trace& trace = {});

 private:
  struct Network;
  Backend& backend_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  VaeConfig config_;
  std::unique_ptr<Network> network_;
};

}  // namespace vmoba
