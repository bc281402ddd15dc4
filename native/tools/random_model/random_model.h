// Makes a complete model folder with random weights: for demonstrations before a trained model exists, for benchmarks of a
// real model's shape, and for tests. The pictures mean nothing; activations stay of order one and finite.
#pragma once
#include <string>

#include "native/base/json.h"

namespace vmoba {

/// Writes dit.safetensors, vae.safetensors, text_encoder.safetensors, spiece.model and model.json into `directory`
/// (made when absent). Matrices are BF16; norms, biases and modulation F32. The same options give the same bytes on
/// every system. Memory stays at some megabytes whatever the model's size.
///
/// options:
///   preset     "tiny" (the fixtures' shapes) | "nano" | "1.3b", "14b" (Wan 2.1's shapes, with a one-layer text encoder)
///   tokenizer  path of the spiece.model to copy; its vocabulary sizes the text encoder
///   seed       whole number, default 0
///   id, name   default: from the preset
///   dim, layers, heads, ffnDim, textLength   override the DiT's preset (1 to 65536)
///   textLayers   overrides the text encoder's (24 are the real one's: 9 GB)
///   durable    default true: wait for the disk, so that a power cut leaves no folder with holes
///
/// Error{BadRequest} naming the option, Error{Io} when the disk refuses, Error{BadModelFile} for a bad tokenizer.
void writeRandomModel(const std::string& directory, const Json& options);

}  // namespace vmoba
