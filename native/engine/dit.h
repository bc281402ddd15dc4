// The Wan diffusion transformer over any backend: text- and image-to-video, dense or VMoBA self-attention per layer.
// Mathematics: Wan 2.1 (patch embedding, adaptive layer norm, 3-D rotary positions, cross-attention to all text rows).
// Easy to get wrong: the head's patch order is channel-fastest while patchify is channel-slowest; q/k RMS norm spans all
// heads; text rows are zero-padded before the text MLP and all of them are attended to.
#pragma once
#include <array>
#include <memory>
#include <optional>
#include <vector>

#include "kernels/attention.h"
#include "native/backends/backend.h"
#include "native/engine/trace.h"
#include "native/weights/checkpoint.h"

namespace vmoba {

/// Read from tensor shapes; metadata decides where shapes do not tell (heads, text length).
struct DitConfig {
  int64_t dim = 0, ffnDim = 0, heads = 0, headDim = 0, layers = 0, freqDim = 0, textDim = 0, textLength = 512;
  int64_t inChannels = 0, outChannels = 0;
  std::array<int32_t, 3> patch{1, 2, 2};
  float eps = 1e-6f;
  bool imageToVideo = false;
  static DitConfig read(const Checkpoint& checkpoint);
};

/// How one layer attends in one step.
struct LayerAttention {
  const BlockPlan* blocks = nullptr;  ///< null = dense
  SelectionRule rule;
  AttentionProbe* probe = nullptr;    ///< verification only
};

/// One guidance branch's conditioning: the text (and image) rows after their MLPs, and each layer's projected keys and
/// values, made on first use and kept for the following steps.
struct Conditioning {
  Tensor text;                       ///< [textLength, dim]
  Tensor image;                      ///< [imageRows, dim] or empty
  std::vector<Tensor> textKeyValue;  ///< per layer [textLength, 2*dim]
  std::vector<Tensor> imageKeyValue;
};

/// Positions of one token grid on the device.
struct RopeTable {
  Grid grid;
  Tensor cosine, sine;  ///< [tokens, headDim/2] f32
};

/// Word map request: which text row belongs to which group, summed over layers into `mass` [groups, tokens].
struct WordMap {
  std::vector<int32_t> keyGroup;
  int32_t groups = 0;
  Tensor mass;
};

class Dit {
 public:
  /// Weights stay resident, or are loaded layer by layer in every forward pass when `stream` is set.
  Dit(Backend& backend, std::shared_ptr<const Checkpoint> checkpoint, bool stream, const std::function<void(double)>& loaded = {});

  const DitConfig& config() const { return config_; }
  size_t residentBytes() const { return residentBytes_; }

  RopeTable ropeTable(const Grid& grid) const;
  /// `text` [n, textDim] f32 on the host, n ≤ textLength (zero rows are added); `image` [257, clipDim] or empty.
  Conditioning condition(std::span<const float> text, std::span<const float> image = {}, const Trace& trace = {}) const;

  struct Branch {
    Tensor latent;                     ///< f32 [inChannels, T, H, W]
    Conditioning* conditioning = nullptr;
    Tensor velocity;                   ///< f32 [outChannels, T, H, W], written
    std::vector<AttentionStatistics>* statistics = nullptr;  ///< one per layer when given
    int32_t mapLayer = -1;             ///< layer whose block maps are wanted
    StatisticsRequest mapRequest = {};
    WordMap* words = nullptr;
  };
  /// One evaluation of the model at `timestep` for every branch, layer by layer together so that streamed weights are loaded
  /// once; each branch is routed alone. `attention` has one entry per layer. `onLayer(i)` after every layer.
  void forward(std::span<Branch> branches, float timestep, const RopeTable& rope, std::span<const LayerAttention> attention,
               const std::function<void(int64_t)>& onLayer = {}, const Trace& trace = {});

 private:
  struct Layer;
  struct Flow;
  std::shared_ptr<Layer> loadLayer(int64_t index) const;
  std::shared_ptr<LinearWeight> linear(const std::string& prefix) const;
  std::shared_ptr<LinearWeight> stacked(std::initializer_list<std::string> prefixes) const;
  void runLayer(const Layer& layer, int64_t index, Branch& branch, Flow& flow, const RopeTable& rope, const LayerAttention& attention, const Trace& trace) const;
  void ensureKeyValue(const Layer& layer, int64_t index, Conditioning& conditioning) const;

  Backend& backend_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  DitConfig config_;
  bool stream_;
  size_t residentBytes_ = 0;
  std::shared_ptr<LinearWeight> patchEmbedding_, text0_, text2_, head_;
  std::vector<float> headModulation_;
  std::vector<std::shared_ptr<Layer>> layers_;
  std::shared_ptr<Layer> first_;  ///< when streaming: layer 0, fetched for the next pass behind the last layer's work
};

}  // namespace vmoba
