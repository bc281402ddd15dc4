// The umT5 encoder. Layers are loaded, used once and dropped: a prompt is encoded once per render, so the encoder never
// needs more memory than one layer (the real one has 11 GB of weights).
#pragma once
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "native/backends/backend.h"
#include "native/engine/trace.h"
#include "native/weights/checkpoint.h"

namespace vmoba {

struct TextEncoderConfig {
  int64_t vocabulary = 0, dim = 0, innerDim = 0, ffnDim = 0, heads = 0, layers = 0, buckets = 0;
  float eps = 1e-6f;
  static TextEncoderConfig read(const Checkpoint& checkpoint);
};

/// Bucket of a relative position (key index - query index), T5 rule with maximum distance 128.
int32_t relativePositionBucket(int64_t distance, int64_t buckets);

class TextEncoder {
 public:
  TextEncoder(Backend& backend, std::shared_ptr<const Checkpoint> checkpoint);
  const TextEncoderConfig& config() const { return config_; }
  /// ids [L] -> rows [L, dim] f32 on the host. `mask` empty or L values, 0 = padding (hidden as key, still computed as query).
  std::vector<float> encode(std::span<const int32_t> ids, std::span<const uint8_t> mask = {}, const Trace& trace = {},
                            const std::function<void(int64_t)>& onLayer = {});
  /// Position bias [heads, L, L] of one layer, for verification.
  std::vector<float> positionBias(int64_t layer, int64_t length) const;

 private:
  Backend& backend_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  TextEncoderConfig config_;
};

}  // namespace vmoba
