#include "native/engine/memory_plan.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "native/engine/policy.h"

namespace vmoba {
namespace {

constexpr int64_t kLeastDecodeTile = 8;  ///< latent rows; smaller tiles are mostly overlap

/// One resolution level of the decoder as its tensors tell it.
struct DecoderLevel {
  double channels = 0;        ///< widest at this level
  double convWork = 0;        ///< multiply-adds per pixel and frame
  double contextChannels = 0; ///< inputs of all causal convolutions, each of which keeps two frames of them
  int scale = 1;              ///< spatial factor over the latent
  int frames = 1;             ///< frames per latent frame
};

std::vector<DecoderLevel> decoderLevels(const Checkpoint& vae) {
  std::vector<DecoderLevel> levels(1);
  const auto addConv = [&](DecoderLevel& level, const WeightView& weight) {
    double work = 1;
    for (const int64_t extent : weight.shape) work *= static_cast<double>(extent);
    level.convWork += work;
    level.channels = std::max({level.channels, static_cast<double>(weight.shape[0]), static_cast<double>(weight.shape[1])});
    if (weight.shape.size() == 5 && weight.shape[2] == 3) level.contextChannels += static_cast<double>(weight.shape[1]);
  };
  const auto addBlock = [&](const std::string& prefix) {
    for (const char* part : {".residual.2.weight", ".residual.6.weight", ".shortcut.weight"})
      if (const WeightView* weight = vae.find(prefix + part)) addConv(levels.back(), *weight);
  };
  addConv(levels.back(), vae.require("decoder.conv1.weight"));
  addBlock("decoder.middle.0");
  addBlock("decoder.middle.2");
  for (int i = 0;; ++i) {
    const std::string prefix = "decoder.upsamples." + std::to_string(i);
    if (vae.find(prefix + ".residual.2.weight") != nullptr) {
      addBlock(prefix);
    } else if (const WeightView* resample = vae.find(prefix + ".resample.1.weight")) {
      DecoderLevel next;
      next.scale = levels.back().scale * 2;
      next.frames = levels.back().frames;
      if (const WeightView* time = vae.find(prefix + ".time_conv.weight")) {
        addConv(levels.back(), *time);
        next.frames *= 2;
      }
      levels.push_back(next);
      addConv(levels.back(), *resample);
    } else {
      break;
    }
  }
  addConv(levels.back(), vae.require("decoder.head.2.weight"));
  return levels;
}

/// Context frames kept by every convolution plus the widest moment of one level.
double decodeBytes(const std::vector<DecoderLevel>& levels, double rows, double columns, double tiles, double elementSize) {
  double contexts = 0, working = 0;
  for (const DecoderLevel& level : levels) {
    const double channel = rows * level.scale * columns * level.scale * elementSize, frame = channel * level.channels;
    contexts += 2 * level.contextChannels * channel * tiles;
    // Input, padded buffer, output, shortcut and the library's own scratch are alive together.
    working = std::max(working, (4.0 * level.frames + 4) * frame);
  }
  return contexts + working;
}

}  // namespace

MemoryPlan planMemory(const RenderRequest& request, const Checkpoint& dit, const Checkpoint& vae, const Checkpoint& textEncoder, Precision precision,
                      int threads, size_t limitBytes) {
  const DitConfig config = DitConfig::read(dit);
  const double act = precision == Precision::BF16 ? 2 : 4;
  const double tokens = static_cast<double>(request.grid(config).tokens()), dim = static_cast<double>(config.dim), ffn = static_cast<double>(config.ffnDim);
  const int branches = request.guided() ? 2 : 1;
  const double layerWeights = (8 * dim * dim + 2 * dim * ffn) * act;
  const double allWeights = layerWeights * static_cast<double>(config.layers) + 1e6;
  const double oneBranchStream = tokens * dim * 4;
  const bool onCpu = request.device.empty() || request.device == "cpu";
  const double products = onCpu ? static_cast<double>(threads) * 5e6 : 0;  // rows of x and sums of some outputs (kernels/cpu/product.cpp)
  const double work = tokens * dim * act * 6 + std::min(tokens, 8192.0) * ffn * act + products;
  // One self-attention call: packed q, k, v and the selection. On the CPU, per thread the gates of a head and as much again to narrow
  // them down, and tile buffers; on a GPU the gates of all heads, what narrows them down, per chunk of six blocks the list of its rows and
  // their tiles' visits, and room for the partial results of some heads, at least one.
  double mostBlocks = 1;
  const AttentionPlan attending(request.policy, request.grid(config), config.layers, request.steps);
  for (const auto& use : attending.partitions()) mostBlocks = std::max(mostBlocks, static_cast<double>(use.blocks.blocks()));
  const double headRows = tokens * static_cast<double>(config.heads);
  const double heads = static_cast<double>(config.heads), chunks = std::ceil(mostBlocks / 6.0), listRow = dim / heads * act * 2 + 4;
  const auto room = static_cast<double>(partialResultBytes(limitBytes == 0 ? SIZE_MAX : limitBytes));
  const double partials = tokens * chunks * listRow * std::clamp(room / (tokens * chunks * listRow), 1.0, heads);
  const double routing = onCpu ? headRows * 16 + static_cast<double>(threads) * (4e6 + tokens * mostBlocks * 8)
                               : headRows * (mostBlocks * 4 + chunks * 14 + 16) + partials + heads * 2e5 + 4e6;
  const double attention = tokens * dim * act * 4 + routing;
  const double keyValues = static_cast<double>(config.layers * config.textLength) * 2 * dim * act * branches;
  const double latents = tokens * static_cast<double>(config.outChannels * config.patch[0] * config.patch[1] * config.patch[2]) * 4 * 8;

  MemoryPlan plan;
  const auto textDim = static_cast<double>(config.textDim);
  double largestTextLayer = 0;
  if (const WeightView* gate = textEncoder.find("blocks.0.ffn.gate.0.weight"))
    largestTextLayer = (static_cast<double>(gate->elements()) * 3 + 4 * textDim * textDim) * act * 2;
  plan.encoding = static_cast<size_t>(largestTextLayer + 512 * textDim * 40 + products);

  const auto sampling = [&](bool stream, bool sequential) {
    const double weights = stream ? 2.5 * layerWeights : allWeights;
    return weights + work + attention + keyValues + latents + oneBranchStream * (sequential ? 1 : branches);
  };
  const auto limit = static_cast<double>(limitBytes);
  const auto within = [&](double bytes) { return limitBytes == 0 || bytes <= limit; };
  plan.sequentialBranches = !within(sampling(false, false));
  plan.streamWeights = plan.sequentialBranches && !within(sampling(false, true));
  // Together they share each layer that comes: half the traffic, for one residual stream more.
  if (plan.streamWeights) plan.sequentialBranches = !within(sampling(true, false));
  plan.weights = static_cast<size_t>(plan.streamWeights ? 2.5 * layerWeights : allWeights);
  plan.sampling = static_cast<size_t>(sampling(plan.streamWeights, plan.sequentialBranches));

  const Shape latent = request.latentShape(config);
  const std::vector<DecoderLevel> levels = decoderLevels(vae);
  const auto rows = static_cast<double>(latent[2]), columns = static_cast<double>(latent[3]);
  const double heldWhileDecoding = static_cast<double>(plan.weights);
  double decoding = decodeBytes(levels, rows, columns, 1, act);
  for (int64_t tile = std::max(latent[2], latent[3]) / 2; !within(decoding + heldWhileDecoding) && tile >= kLeastDecodeTile; tile = tile * 3 / 4) {
    const auto side = static_cast<double>(tile), stride = side - static_cast<double>(tile / 4);
    const double tiles = std::max(1.0, (rows - side) / stride + 2) * std::max(1.0, (columns - side) / stride + 2);
    const double tiled = decodeBytes(levels, std::min(side, rows), std::min(side, columns), tiles, act);
    if (tiled < decoding) {
      decoding = tiled;
      plan.decodeTile = tile;
    }
  }
  plan.decoding = static_cast<size_t>(decoding + heldWhileDecoding);
  plan.peak = std::max({plan.encoding, plan.sampling, plan.decoding});
  plan.fits = within(static_cast<double>(plan.peak));
  return plan;
}

bool shrinkSampling(MemoryPlan& plan, bool guided, std::string* how) {
  if (guided && !plan.sequentialBranches) {
    plan.sequentialBranches = true;
    *how = "the guidance branches one after the other";
    return true;
  }
  if (plan.streamWeights) return false;
  plan.sequentialBranches = plan.streamWeights = true;
  *how = "the weights streamed layer by layer, which is slower";
  return true;
}

bool shrinkDecoding(MemoryPlan& plan, const Shape& latent) {
  const int64_t tile = plan.decodeTile == 0 ? std::max(latent[2], latent[3]) / 2 : plan.decodeTile * 3 / 4;
  if (tile < kLeastDecodeTile) return false;
  plan.decodeTile = tile;
  return true;
}

FlopCount countFlops(const RenderRequest& request, const DitConfig& config, const Checkpoint& vae, double meanDensity) {
  const double branches = request.guided() ? 2 : 1, layers = static_cast<double>(config.layers);
  const double tokens = static_cast<double>(request.grid(config).tokens()), dim = static_cast<double>(config.dim), ffn = static_cast<double>(config.ffnDim);
  const double text = static_cast<double>(config.textLength);
  FlopCount count;
  // q, k, v, o, cross q and o, and the feed-forward pair; text keys and values are made once per render.
  count.linears = branches * layers * 2 * tokens * (6 * dim * dim + 2 * dim * ffn);
  count.attentionDense = branches * layers * (4 * tokens * tokens * dim);
  count.attentionPolicy = count.attentionDense * meanDensity;
  count.text = branches * layers * 4 * tokens * text * dim;
  const Shape latent = request.latentShape(config);
  for (const DecoderLevel& level : decoderLevels(vae)) {
    const double frames = static_cast<double>((latent[1] - 1) * level.frames + 1);
    count.decode += 2 * level.convWork * frames * static_cast<double>(latent[2] * level.scale) * static_cast<double>(latent[3] * level.scale);
  }
  return count;
}

}  // namespace vmoba
