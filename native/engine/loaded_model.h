// A model ready to compute on one device: backend, weights, tokeniser, and the encoded prompts of the last few renders.
// Kept between renders, so that the second one starts at once.
#pragma once
#include <array>
#include <functional>
#include <list>
#include <memory>
#include <string>

#include "native/backends/backend.h"
#include "native/engine/dit.h"
#include "native/engine/memory_plan.h"
#include "native/engine/model_description.h"
#include "native/engine/text_encoder.h"
#include "native/engine/tokenizer/tokenizer.h"
#include "native/engine/vae.h"

namespace vmoba {

/// The opened (mapped, checked, not yet loaded) files of a model.
struct ModelFiles {
  ModelDescription description;
  std::shared_ptr<const Checkpoint> dit, vae, textEncoder;
  static ModelFiles open(const std::string& path);
};

/// bf16 where the device has it at full speed and the request does not insist otherwise.
Precision choosePrecision(const RenderRequest& request);

struct EncodedPrompt {
  std::vector<TokenSpan> tokens;  ///< end-of-sentence last
  bool truncated = false;
  std::vector<float> rows;        ///< [tokens, textDim]
};

class LoadedModel {
 public:
  LoadedModel(ModelFiles files, std::unique_ptr<Backend> backend, bool streamWeights, const std::function<void(double)>& loaded);

  Backend& backend() { return *backend_; }
  Dit& dit() { return *dit_; }
  Vae& vae() { return *vae_; }
  const ModelFiles& files() const { return files_; }

  /// Encoded once per (text encoder, prompt); the last 16 are kept.
  std::shared_ptr<const EncodedPrompt> encode(const std::string& prompt);

  struct PreviewProjection {
    std::vector<std::array<float, 3>> factors;  ///< per latent channel
    std::array<float, 3> bias{};
  };
  /// Linear latent-to-RGB map: from model.json, else fitted once from the VAE by least squares.
  const PreviewProjection& preview();

 private:
  PreviewProjection fitPreview();

  ModelFiles files_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Dit> dit_;
  std::unique_ptr<Vae> vae_;
  std::unique_ptr<TextEncoder> textEncoder_;
  Tokenizer tokenizer_;
  std::list<std::pair<std::string, std::shared_ptr<const EncodedPrompt>>> prompts_;
  std::unique_ptr<PreviewProjection> preview_;
};

/// Hands out loaded models; keeps the most recent one.
class ModelCache {
 public:
  std::shared_ptr<LoadedModel> get(const RenderRequest& request, const MemoryPlan& plan, ModelFiles files, const std::function<void(double)>& loaded);
  void clear() { model_.reset(); key_.clear(); }

 private:
  std::string key_;
  std::shared_ptr<LoadedModel> model_;
};

}  // namespace vmoba
