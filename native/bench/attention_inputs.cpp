#include "native/bench/attention_inputs.h"

#include <algorithm>
#include <cmath>

#include "native/base/error.h"
#include "native/base/parallel.h"
#include "native/bench/bench_options.h"
#include "native/engine/loaded_model.h"
#include "native/engine/noise.h"
#include "native/engine/scheduler.h"

namespace vmoba {
namespace {

void put(AttentionInputs& inputs, int64_t at, float value) {
  if (inputs.dtype == DType::BF16) reinterpret_cast<Bf16*>(inputs.rows.data())[at] = toBf16(value);
  else reinterpret_cast<float*>(inputs.rows.data())[at] = value;
}

/// Angles of Wan's rotation for `headDim` channels (time gets what thirds leave over), repeated `copies` times along a head.
void fillRope(AttentionInputs& inputs, int32_t headDim) {
  const int32_t pairs = headDim / 2, side = pairs / 3, all = inputs.headDim / 2;
  const Grid& g = inputs.grid;
  inputs.ropeCos.resize(static_cast<size_t>(g.tokens() * all));
  inputs.ropeSin.resize(inputs.ropeCos.size());
  for (int64_t s = 0; s < g.tokens(); ++s)
    for (int32_t i = 0; i < all; ++i) {
      const int32_t pair = i % pairs, timePairs = pairs - 2 * side;
      const bool time = pair < timePairs, row = !time && pair < timePairs + side;
      const int64_t position = time ? s / (int64_t{g.h} * g.w) : row ? s / g.w % g.h : s % g.w;
      const int32_t index = time ? pair : row ? pair - timePairs : pair - timePairs - side, count = time ? timePairs : side;
      const double angle = static_cast<double>(position) * std::pow(10000.0, -static_cast<double>(index) / count);
      inputs.ropeCos[static_cast<size_t>(s * all + i)] = static_cast<float>(std::cos(angle));
      inputs.ropeSin[static_cast<size_t>(s * all + i)] = static_cast<float>(std::sin(angle));
    }
}

AttentionInputs emptyInputs(const Grid& grid, int32_t heads, int32_t headDim, DType dtype) {
  AttentionInputs inputs{grid, heads, headDim, dtype, {}, {}, {}, {}};
  inputs.rows.resize(static_cast<size_t>(grid.tokens() * 3 * inputs.dim()) * elementBytes(dtype));
  return inputs;
}

/// One captured tensor [tokens, channels] on its own grid, read anywhere by trilinear interpolation.
struct Field {
  Grid grid;
  int64_t channels;
  const std::vector<float>* values;

  float at(double t, double h, double w, int64_t channel) const {
    const auto corner = [](double x, int32_t extent) { return std::clamp(static_cast<int32_t>(x), 0, std::max(0, extent - 2)); };
    const int32_t t0 = corner(t, grid.t), h0 = corner(h, grid.h), w0 = corner(w, grid.w);
    double sum = 0;
    for (int32_t i = 0; i < 8; ++i) {
      const int32_t ti = std::min(t0 + (i >> 2), grid.t - 1), hi = std::min(h0 + (i >> 1 & 1), grid.h - 1), wi = std::min(w0 + (i & 1), grid.w - 1);
      const double share = (1 - std::abs(t - (t0 + (i >> 2)))) * (1 - std::abs(h - (h0 + (i >> 1 & 1)))) * (1 - std::abs(w - (w0 + (i & 1))));
      if (share > 0) sum += share * static_cast<double>((*values)[static_cast<size_t>(((int64_t{ti} * grid.h + hi) * grid.w + wi) * channels + channel)]);
    }
    return static_cast<float>(sum);
  }
};

/// Turns rotated q or k [tokens, heads·d] back by the table [tokens, d/2].
void unrotate(std::vector<float>& values, const std::vector<float>& cosine, const std::vector<float>& sine, int64_t dim, int64_t d) {
  for (size_t i = 0; i < values.size(); i += 2) {
    const size_t token = i / static_cast<size_t>(dim), pair = i % static_cast<size_t>(d) / 2, at = token * static_cast<size_t>(d / 2) + pair;
    const float a = values[i], b = values[i + 1];
    values[i] = a * cosine[at] + b * sine[at];
    values[i + 1] = b * cosine[at] - a * sine[at];
  }
}

}  // namespace

AttentionInputs randomInputs(const Grid& grid, int32_t heads, int32_t headDim, DType dtype) {
  AttentionInputs inputs = emptyInputs(grid, heads, headDim, dtype);
  fillRope(inputs, headDim);
  const std::vector<float> noise = gaussianNoise(11, 0, grid.tokens() * 3 * inputs.dim());
  for (size_t i = 0; i < noise.size(); ++i) put(inputs, static_cast<int64_t>(i), noise[i]);
  return inputs;
}

AttentionInputs smoothInputs(const Grid& grid, int32_t heads, int32_t headDim, DType dtype) {
  AttentionInputs inputs = emptyInputs(grid, heads, headDim, dtype);
  fillRope(inputs, headDim);
  constexpr int64_t kWaves = 3;
  const int64_t dim = inputs.dim();
  // Wave numbers up to about two periods over the clip; keys share the queries' waves and add one of their own.
  const std::vector<float> numbers = gaussianNoise(12, 0, 3 * dim * kWaves * 4);
  parallelForRanges(grid.tokens(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const double t = static_cast<double>(s / (int64_t{grid.h} * grid.w)) / grid.t, h = static_cast<double>(s / grid.w % grid.h) / grid.h, w = static_cast<double>(s % grid.w) / grid.w;
      for (int64_t part = 0; part < 3; ++part)
        for (int64_t i = 0; i < dim; ++i) {
          double sum = 0;
          for (int64_t wave = 0; wave < kWaves; ++wave) {
            const int64_t source = part == 1 && wave < 2 ? 0 : part;
            const float* n = &numbers[static_cast<size_t>(((source * dim + i) * kWaves + wave) * 4)];
            sum += std::cos(6.283 * (static_cast<double>(n[0]) * t + static_cast<double>(n[1]) * h + static_cast<double>(n[2]) * w) + 3 * static_cast<double>(n[3]));
          }
          put(inputs, (s * 3 + part) * dim + i, static_cast<float>(sum));
        }
    }
  });
  return inputs;
}

AttentionInputs capturedInputs(const Json& options, const Grid& grid, int32_t heads, int32_t headDim, DType dtype) {
  constexpr int64_t kSteps = 8;
  ModelFiles files = ModelFiles::open(options.stringOr("model", ""));
  LoadedModel model(std::move(files), makeBackend("cpu", {Precision::F32, threadCount(), 0}), false, {});
  Backend& backend = model.backend();
  Dit& dit = model.dit();
  const DitConfig& config = dit.config();
  if (headDim % config.headDim != 0)
    throw Error(ErrorCode::BadRequest, "heads of " + std::to_string(headDim) + " cannot be made of this model's heads of " + std::to_string(config.headDim), "headDim");
  const Json* wantedGrid = options.find("captureGrid");
  const Grid from = wantedGrid != nullptr ? gridFromJson(*wantedGrid, "captureGrid") : Grid{5, 15, 26};
  const std::string prompt = options.stringOr("prompt", "a red ball bounces on a blue floor");
  Conditioning conditioning = dit.condition(model.encode(prompt)->rows);
  const RopeTable rope = dit.ropeTable(from);
  const Shape shape{config.outChannels, int64_t{from.t} * config.patch[0], int64_t{from.h} * config.patch[1], int64_t{from.w} * config.patch[2]};
  const Scheduler scheduler(SchedulerKind::UniPC, makeSigmas(kSteps, 3, highestSigma(SchedulerKind::UniPC)));
  SchedulerState state = upload(backend, {0, 0, gaussianNoise(1, 0, shape.elements())}, shape);
  const int32_t perHead = headDim / static_cast<int32_t>(config.headDim);
  const auto sources = static_cast<int64_t>(heads) * perHead;
  const int64_t layers = std::min<int64_t>(config.layers, (sources + config.heads - 1) / config.heads), captured = layers * config.heads;
  const int64_t firstLayer = std::clamp<int64_t>(options.integerOr("captureLayer", config.layers / 2), 0, config.layers - layers);
  std::vector<AttentionProbe> probes(static_cast<size_t>(layers));
  const Tensor velocity = backend.allocate(DType::F32, shape);
  for (int64_t step = 0; step <= kSteps / 2; ++step) {
    std::vector<LayerAttention> attention(static_cast<size_t>(config.layers));
    if (step == kSteps / 2)
      for (int64_t i = 0; i < layers; ++i) attention[static_cast<size_t>(firstLayer + i)].probe = &probes[static_cast<size_t>(i)];
    Dit::Branch branch;
    branch.latent = state.x;
    branch.conditioning = &conditioning;
    branch.velocity = velocity;
    dit.forward(std::span(&branch, 1), static_cast<float>(scheduler.schedule().timesteps[static_cast<size_t>(step)]), rope, attention);
    state = scheduler.advance(backend, state, velocity);
  }
  std::vector<float> cosine(static_cast<size_t>(rope.cosine.elements())), sine(cosine.size());
  backend.download(rope.cosine, cosine.data());
  backend.download(rope.sine, sine.data());
  for (AttentionProbe& probe : probes)
    for (std::vector<float>* values : {&probe.q, &probe.k}) unrotate(*values, cosine, sine, config.dim, config.headDim);

  AttentionInputs inputs = emptyInputs(grid, heads, headDim, dtype);
  fillRope(inputs, static_cast<int32_t>(config.headDim));
  const auto along = [](int64_t i, int32_t to, int32_t source) { return to > 1 ? static_cast<double>(i) * (source - 1) / (to - 1) : 0.0; };
  // A head made of several has logits that are their sum over sqrt(headDim): the factor brings back each part's own sharpness.
  const double sharpen = std::sqrt(std::sqrt(static_cast<double>(perHead)));
  parallelForRanges(grid.tokens(), 64, [&](int64_t begin, int64_t end) {
    for (int64_t s = begin; s < end; ++s) {
      const double t = along(s / (int64_t{grid.h} * grid.w), grid.t, from.t), h = along(s / grid.w % grid.h, grid.h, from.h), w = along(s % grid.w, grid.w, from.w);
      for (int64_t i = 0; i < inputs.dim(); ++i) {
        const int64_t wanted = i / config.headDim, source = (wanted + wanted / captured) % captured;  // a second time around, in other company
        const int64_t channel = source % config.heads * config.headDim + i % config.headDim;
        const AttentionProbe& probe = probes[static_cast<size_t>(source / config.heads)];
        const std::vector<float>* parts[] = {&probe.q, &probe.k, &probe.v};
        for (int64_t part = 0; part < 3; ++part) {
          const double value = static_cast<double>(Field{from, config.dim, parts[part]}.at(t, h, w, channel));
          put(inputs, (s * 3 + part) * inputs.dim() + i, static_cast<float>(part < 2 ? value * sharpen : value));
        }
      }
    }
  });
  inputs.note = model.files().description.name + ", step " + std::to_string(kSteps / 2 + 1) + " of " + std::to_string(kSteps) + ", layer " + std::to_string(firstLayer) + " on, " +
                std::to_string(from.t) + "x" + std::to_string(from.h) + "x" + std::to_string(from.w) + " resampled";
  if (captured < sources) inputs.note += ", its " + std::to_string(captured) + " heads used more than once";
  return inputs;
}

}  // namespace vmoba
