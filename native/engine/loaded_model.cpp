#include "native/engine/loaded_model.h"

#include <algorithm>
#include <cmath>

#include "native/base/error.h"
#include "native/engine/noise.h"

namespace vmoba {
namespace {

constexpr size_t kKeptPrompts = 16;

/// Solves the symmetric positive system A·x = b in place (Gaussian elimination with a small ridge on the diagonal).
std::vector<double> solve(std::vector<std::vector<double>> a, std::vector<double> b) {
  const size_t n = b.size();
  for (size_t i = 0; i < n; ++i) a[i][i] += 1e-6;
  for (size_t i = 0; i < n; ++i) {
    size_t pivot = i;
    for (size_t j = i + 1; j < n; ++j)
      if (std::abs(a[j][i]) > std::abs(a[pivot][i])) pivot = j;
    std::swap(a[i], a[pivot]);
    std::swap(b[i], b[pivot]);
    for (size_t j = i + 1; j < n; ++j) {
      const double factor = a[j][i] / a[i][i];
      for (size_t c = i; c < n; ++c) a[j][c] -= factor * a[i][c];
      b[j] -= factor * b[i];
    }
  }
  for (size_t i = n; i-- > 0;) {
    for (size_t c = i + 1; c < n; ++c) b[i] -= a[i][c] * b[c];
    b[i] /= a[i][i];
  }
  return b;
}

}  // namespace

ModelFiles ModelFiles::open(const std::string& path) {
  ModelFiles files;
  files.description = ModelDescription::read(path);
  const auto opened = [](const std::string& file) { return std::make_shared<const Checkpoint>(Checkpoint::open(file)); };
  files.dit = opened(files.description.dit);
  files.vae = opened(files.description.vae);
  files.textEncoder = opened(files.description.textEncoder);
  const DitConfig dit = DitConfig::read(*files.dit);
  const TextEncoderConfig text = TextEncoderConfig::read(*files.textEncoder);
  const VaeConfig vae = VaeConfig::read(*files.vae);
  const auto refuse = [&](const std::string& reason) { throw Error(ErrorCode::BadModelFile, files.description.directory + ": " + reason, "model"); };
  if (text.dim != dit.textDim)
    refuse("the text encoder gives " + std::to_string(text.dim) + " values per token, the transformer takes " + std::to_string(dit.textDim) + ": they do not belong together");
  if (vae.latentChannels != dit.outChannels)
    refuse("the VAE has " + std::to_string(vae.latentChannels) + " latent channels, the transformer gives " + std::to_string(dit.outChannels) + ": they do not belong together");
  return files;
}

Precision choosePrecision(const RenderRequest& request) {
  if (request.precision == "f32") return Precision::F32;
  if (request.precision == "bf16") return Precision::BF16;
  const std::vector<Precision> offered = describeDevice(request.device).precisions;
  return std::find(offered.begin(), offered.end(), Precision::BF16) != offered.end() ? Precision::BF16 : Precision::F32;
}

LoadedModel::LoadedModel(ModelFiles files, std::unique_ptr<Backend> backend, bool streamWeights, const std::function<void(double)>& loaded)
    : files_(std::move(files)),
      backend_(std::move(backend)),
      dit_(std::make_unique<Dit>(*backend_, files_.dit, streamWeights, loaded)),
      vae_(std::make_unique<Vae>(*backend_, files_.vae)),
      textEncoder_(std::make_unique<TextEncoder>(*backend_, files_.textEncoder)),
      tokenizer_(Tokenizer::open(files_.description.tokenizer)) {}

std::shared_ptr<const EncodedPrompt> LoadedModel::encode(const std::string& prompt) {
  const auto known = std::find_if(prompts_.begin(), prompts_.end(), [&](const auto& entry) { return entry.first == prompt; });
  if (known != prompts_.end()) {
    prompts_.splice(prompts_.begin(), prompts_, known);
    return prompts_.front().second;
  }
  auto encoded = std::make_shared<EncodedPrompt>();
  const auto most = static_cast<size_t>(dit_->config().textLength);
  encoded->tokens = tokenizer_.encodeWithSpans(prompt);
  encoded->truncated = encoded->tokens.size() > most - 1;
  if (encoded->truncated) encoded->tokens.resize(most - 1);
  encoded->tokens.push_back({tokenizer_.eosId(), prompt.size(), prompt.size()});
  std::vector<int32_t> ids;
  for (const TokenSpan& token : encoded->tokens) ids.push_back(token.id);
  encoded->rows = textEncoder_->encode(ids);
  prompts_.emplace_front(prompt, encoded);
  if (prompts_.size() > kKeptPrompts) prompts_.pop_back();
  return encoded;
}

const LoadedModel::PreviewProjection& LoadedModel::preview() {
  if (!preview_) {
    const ModelDescription& description = files_.description;
    const bool given = static_cast<int64_t>(description.previewFactors.size()) == vae_->config().latentChannels;
    preview_ = std::make_unique<PreviewProjection>(given ? PreviewProjection{description.previewFactors, description.previewBias} : fitPreview());
  }
  return *preview_;
}

LoadedModel::PreviewProjection LoadedModel::fitPreview() {
  // Decode a few single-frame latents of varied smoothness, average every 8×8 pixels, regress colour on channels.
  const int64_t channels = vae_->config().latentChannels, side = 12, positions = side * side;
  const auto width = static_cast<size_t>(channels + 1);
  std::vector<std::vector<double>> normal(width, std::vector<double>(width, 0.0));
  std::vector<std::vector<double>> right(3, std::vector<double>(width, 0.0));
  for (uint64_t sample = 0; sample < 4; ++sample) {
    const std::vector<float> rough = gaussianNoise(sample, 77, channels * positions);
    std::vector<float> latent(rough.size());
    const auto spread = static_cast<int64_t>(sample);
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < positions; ++i) {
        double sum = 0;
        int64_t count = 0;
        for (int64_t y = std::max<int64_t>(0, i / side - spread); y <= std::min(side - 1, i / side + spread); ++y)
          for (int64_t x = std::max<int64_t>(0, i % side - spread); x <= std::min(side - 1, i % side + spread); ++x, ++count)
            sum += static_cast<double>(rough[static_cast<size_t>(c * positions + y * side + x)]);
        latent[static_cast<size_t>(c * positions + i)] = static_cast<float>(sum / std::sqrt(static_cast<double>(count)));
      }
    Vae::Decoder decoder(*vae_, latent, {channels, 1, side, side}, 0);
    const DecodedFrames frame = decoder.next();
    const int64_t scale = frame.width / side;
    for (int64_t i = 0; i < positions; ++i) {
      std::vector<double> row(width, 1.0);
      for (int64_t c = 0; c < channels; ++c) row[static_cast<size_t>(c)] = static_cast<double>(latent[static_cast<size_t>(c * positions + i)]);
      for (size_t rgb = 0; rgb < 3; ++rgb) {
        double mean = 0;
        for (int64_t y = 0; y < scale; ++y)
          for (int64_t x = 0; x < scale; ++x)
            mean += static_cast<double>(frame.pixels[static_cast<size_t>(((i / side * scale + y) * frame.width + i % side * scale + x) * 3) + rgb]);
        mean /= static_cast<double>(scale * scale);
        for (size_t a = 0; a < width; ++a) right[rgb][a] += row[a] * mean;
      }
      for (size_t a = 0; a < width; ++a)
        for (size_t b = 0; b < width; ++b) normal[a][b] += row[a] * row[b];
    }
  }
  PreviewProjection projection;
  projection.factors.resize(static_cast<size_t>(channels));
  for (size_t rgb = 0; rgb < 3; ++rgb) {
    const std::vector<double> solution = solve(normal, right[rgb]);
    for (size_t c = 0; c < projection.factors.size(); ++c) projection.factors[c][rgb] = static_cast<float>(solution[c]);
    projection.bias[rgb] = static_cast<float>(solution.back());
  }
  return projection;
}

std::shared_ptr<LoadedModel> ModelCache::get(const RenderRequest& request, const MemoryPlan& plan, ModelFiles files, const std::function<void(double)>& loaded) {
  const Precision precision = choosePrecision(request);
  std::string key = request.device + "|" + std::to_string(static_cast<int>(precision)) + "|" + std::to_string(request.threads) + "|" +
                    std::to_string(plan.streamWeights) + "|" + std::to_string(request.memoryLimitBytes);
  for (const auto& file : {files.dit, files.vae, files.textEncoder}) key += "|" + file->path() + ":" + std::to_string(file->totalBytes());
  key += "|" + files.description.json.dump();
  if (model_ && key == key_) return model_;
  clear();
  const size_t limit = request.runAnyway ? 0 : request.memoryLimitBytes;
  model_ = std::make_shared<LoadedModel>(std::move(files), makeBackend(request.device, {precision, request.threads, limit}), plan.streamWeights, loaded);
  key_ = std::move(key);
  return model_;
}

}  // namespace vmoba
