// A render request as the engine takes it: parsed from JSON, checked against the model, never trusted.
#pragma once
#include <cstdint>
#include <string>

#include "kernels/attention.h"
#include "native/backends/backend.h"
#include "native/base/json.h"
#include "native/engine/dit.h"
#include "native/engine/policy.h"
#include "native/engine/scheduler.h"

namespace vmoba {

struct RenderRequest {
  std::string model, prompt, negativePrompt, device = "cpu";
  int64_t width = 0, height = 0, frames = 0, steps = 0;
  double guidanceScale = 1, shift = 1;
  SchedulerKind scheduler = SchedulerKind::UniPC;
  uint64_t seed = 0;
  Json policyJson;
  AttentionPolicy policy;
  std::string precision = "auto";
  int threads = 0;
  size_t memoryLimitBytes = 0;
  bool runAnyway = false;

  /// Everything that needs no model: types, ranges, NaN. Error{BadRequest} with the field.
  static RenderRequest parse(const Json& json);
  /// Sizes and lengths against the model's strides.
  void check(const DitConfig& dit) const;
  bool guided() const { return guidanceScale != 1.0; }
  /// Latent extents [C, T, H, W] (VAE stride 4×8×8) and the token grid after patchify.
  Shape latentShape(const DitConfig& dit) const;
  Grid grid(const DitConfig& dit) const;
  /// The fields that decide the picture, canonical: equal text = same render.
  std::string identity() const;
};

}  // namespace vmoba
