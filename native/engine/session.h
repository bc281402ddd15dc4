// One render, step by step: text is encoded once, each call of `step` advances exactly one denoising step, the state can be
// written and restored bit by bit, frames are decoded in order. Not thread-safe, except `cancel`.
#pragma once
#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "native/base/json.h"
#include "native/engine/loaded_model.h"
#include "native/engine/policy.h"
#include "native/engine/request.h"
#include "native/engine/scheduler.h"

namespace vmoba {

struct Progress {
  const char* phase;  ///< "loading", "encoding", "sampling", "decoding"
  double fraction;
  int64_t step = -1, layer = -1;
};
/// Called often from the computing thread; must be cheap.
using ProgressCallback = std::function<void(const Progress&)>;

/// RGB24, frame-major.
struct RgbFrames {
  int64_t count = 0, width = 0, height = 0;
  std::vector<uint8_t> rgb;
};

/// Plan of a request without loading weights; JSON of RenderPlan (main/engine/binding.ts).
Json planRender(const RenderRequest& request);

class Session {
 public:
  Session(ModelCache& cache, RenderRequest request, ProgressCallback progress);
  ~Session();

  /// JSON of TextReport.
  Json encodeText();
  struct StepResult {
    Json report;                 ///< JSON of StepReport
    std::optional<RgbFrames> preview;
    Json mapHeader;              ///< null when no maps were requested
    std::vector<float> maps;
  };
  /// `options`: JSON of StepOptions.
  StepResult step(const Json& options);
  bool finished() const { return state_.step >= scheduler_.steps(); }

  Json saveCheckpoint(const std::string& path) const;
  Json restoreCheckpoint(const std::string& path);
  /// FNV-1a of the current latent's bytes, 16 hex digits. Waits for the device.
  std::string latentHash() const { return hashOf(stored().x); }
  /// Waits for the device.
  const std::vector<float>& latent() const { return stored().x; }
  /// For measurement: replaces the starting noise (shape of the latent). Only before the first step.
  void setNoise(std::vector<float> noise);

  /// Next run of frames, or count 0 after the last. Error{BadRequest} before the last step is done.
  RgbFrames decodeFrames();
  /// From any thread: the running call ends within a fraction of a second with Error{Cancelled}.
  void cancel() { cancelled_ = true; }
  /// For measurement: what computes, with the memory it has held so far. Null while no model is loaded.
  Backend* backend() const { return model_ ? &model_->backend() : nullptr; }
  size_t externalBytes() const { return model_ ? model_->backend().bytesInUse() : 0; }

 private:
  class Running;
  /// Model, positions and latent, whichever is not on the device.
  void load();
  StepResult stepOnce(const Json& options);
  /// Runs `work`; when memory runs out, falls back to the next smaller plan, notes it and runs it again.
  template <class Work>
  auto withFallback(const Work& work);
  Json identity() const;
  static std::string hashOf(const std::vector<float>& latent);
  /// The state on the host, fetched once per step when somebody asks.
  const StoredState& stored() const;
  RgbFrames previewFrames();
  void fillMaps(StepResult& result, const Json& options, const std::vector<AttentionStatistics>& statistics, WordMap* words) const;

  ModelCache& cache_;
  RenderRequest request_;
  ProgressCallback progress_;
  std::atomic<bool> cancelled_{false};
  MemoryPlan plan_;
  std::shared_ptr<LoadedModel> model_;  ///< null while a smaller plan has yet to be loaded
  std::vector<std::string> notices_;    ///< for the next report: what the user should know
  Shape latentShape_;
  AttentionPlan attention_;
  Scheduler scheduler_;
  SchedulerState state_;  ///< without tensors while no model is loaded; `stored_` has them then
  mutable std::optional<StoredState> stored_;
  RopeTable rope_;
  std::shared_ptr<const EncodedPrompt> prompt_;
  std::optional<Conditioning> conditional_, unconditional_;
  std::unique_ptr<Vae::Decoder> decoder_;
  int64_t framesDecoded_ = 0;
};

/// Hash of the engine's sources and compiler: a checkpoint of another build may not continue bit-identically.
const char* buildId();
/// Peak resident bytes of this process.
size_t peakResidentBytes();

}  // namespace vmoba
