// The presets: shapes of the three networks, and what model.json says of sizes, defaults and attention policy.
#pragma once
#include <cstdint>
#include <string>

#include "native/base/json.h"
#include "native/tools/random_model/architectures.h"

namespace vmoba {

struct RandomModelOptions {
  std::string preset, id, name, tokenizer;
  uint64_t seed = 0;
  DitShape dit;
  VaeShape vae;
  TextEncoderShape textEncoder;  ///< vocabulary still 0
  Json limits, defaults, policy; ///< members of model.json

  /// See writeRandomModel. Error{BadRequest} naming the option.
  static RandomModelOptions read(const Json& options);
};

}  // namespace vmoba
