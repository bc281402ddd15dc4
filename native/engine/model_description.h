// model.json: what a model folder holds and what it was made for. Read and bounded; the weights themselves are not opened here.
#pragma once
#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "native/base/json.h"

namespace vmoba {

struct ModelDescription {
  std::string directory, id, name;
  std::string dit, vae, textEncoder, tokenizer;      ///< absolute or relative to the working directory
  std::vector<float> latentMean, latentStd;          ///< empty = from the VAE
  std::vector<std::array<float, 3>> previewFactors;  ///< per latent channel; empty = fitted from the VAE once
  std::array<float, 3> previewBias{0, 0, 0};
  Json json;                                         ///< the whole document

  /// `path`: a folder holding model.json, or the file. Error{BadModelFile} "<file>: <member>: <reason>".
  static ModelDescription read(const std::string& path);
};

/// Whole file as bytes; Error{Io} when it cannot be read, Error{BadModelFile} beyond `maximumBytes`.
std::string readSmallFile(const std::string& path, size_t maximumBytes);

}  // namespace vmoba
