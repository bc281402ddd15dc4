// Tensor names: the official Wan names are canonical; ComfyUI, diffusers and Hugging Face spellings map onto them.
// Mapping looks only at whole dotted segments, so it carries along whatever follows a layer (weight, bias, scales).
#pragma once
#include <string>
#include <vector>

#include "native/weights/checkpoint.h"

namespace vmoba {

/// How the names of one checkpoint are to be read.
struct NameMap {
  NamingScheme naming = NamingScheme::Official;
  ModelKind kind = ModelKind::Unknown;
  std::string prefix;            ///< stripped ("model.diffusion_model.")
  int decoderStageLength = 0;    ///< diffusers VAE: entries of `decoder.upsamples` per stage
  bool sharedTable = false;      ///< Hugging Face T5: `shared.weight` is there, so the encoder's own table is its copy
};

/// Recognises scheme and model from all names of a checkpoint.
NameMap recogniseNames(const std::vector<std::string>& names);

/// The canonical name, or an empty text for tensors that belong to another model of the same file and are left out
/// (a VAE bundled with a DiT, the decoder of a text-to-text model, a second copy of the embedding table).
std::string canonicalName(const NameMap& map, const std::string& name);

}  // namespace vmoba
