// First, plain version: everything in f32, keys in panels so that the loops vectorise.
#include "kernels/cpu/attention.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/reference/reference.h"
#include "native/base/error.h"
#include "native/base/parallel.h"

#if defined(__x86_64__) && defined(__linux__) && defined(__GNUC__) && !defined(__clang__) && !defined(__SANITIZE_ADDRESS__)
#define VMOBA_CLONES __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VMOBA_CLONES
#endif

namespace vmoba::cpu {
namespace {

constexpr int kPanel = 64, kRows = 32;
constexpr float kNone = -std::numeric_limits<float>::infinity();

float load(const void* base, DType type, int64_t at) {
  return type == DType::BF16 ? toFloat(static_cast<const Bf16*>(base)[at]) : static_cast<const float*>(base)[at];
}
void store(void* base, DType type, int64_t at, float value) {
  if (type == DType::BF16) static_cast<Bf16*>(base)[at] = toBf16(value);
  else static_cast<float*>(base)[at] = value;
}

/// One row of q, k or v in f32: norm over the whole row, then rotation. False when it holds NaN or infinity.
bool prepareRow(const void* base, DType type, int64_t at, int32_t heads, int32_t headDim, const float* norm, float eps, const float* cosine,
                const float* sine, float* row) {
  const int64_t dim = int64_t{heads} * headDim;
  bool finite = true;
  double squares = 0;
  for (int64_t i = 0; i < dim; ++i) {
    row[i] = load(base, type, at + i);
    finite = finite && std::isfinite(row[i]);
    squares += static_cast<double>(row[i]) * row[i];
  }
  if (norm != nullptr) {
    const float factor = static_cast<float>(1 / std::sqrt(squares / static_cast<double>(dim) + eps));
    for (int64_t i = 0; i < dim; ++i) row[i] = row[i] * factor * norm[i];
  }
  if (cosine != nullptr) {
    for (int64_t i = 0; i < dim; i += 2) {
      const int64_t pair = i % headDim / 2;
      const float a = row[i], b = row[i + 1];
      row[i] = a * cosine[pair] - b * sine[pair];
      row[i + 1] = a * sine[pair] + b * cosine[pair];
    }
  }
  return finite;
}

/// Keys as panels [D][64] and values as rows [64][D]; every block begins a new panel, tails are zero.
struct KeyValues {
  int32_t heads, headDim;
  std::vector<int32_t> firstPanel;  ///< [C+1]
  std::vector<float> k, v;          ///< [H][panels][D*64]
  int64_t panels() const { return firstPanel.back(); }
  int64_t panelAt(int64_t head, int64_t panel) const { return (head * panels() + panel) * kPanel * headDim; }

  KeyValues(const std::vector<int32_t>& start, int32_t h, int32_t d) : heads(h), headDim(d), firstPanel{0} {
    for (size_t c = 0; c + 1 < start.size(); ++c) firstPanel.push_back(firstPanel.back() + (start[c + 1] - start[c] + kPanel - 1) / kPanel);
    k.assign(static_cast<size_t>(panels() * heads * headDim * kPanel), 0.0f);
    v = k;
  }
  void put(int32_t block, int32_t offset, const float* kRow, const float* vRow) {
    const int64_t panel = firstPanel[size_t(block)] + offset / kPanel, j = offset % kPanel;
    for (int64_t h = 0; h < heads; ++h) {
      float* to = k.data() + panelAt(h, panel);
      for (int64_t i = 0; i < headDim; ++i) to[i * kPanel + j] = kRow[h * headDim + i];
      std::copy_n(vRow + h * headDim, headDim, v.data() + panelAt(h, panel) + j * headDim);
    }
  }
};

VMOBA_CLONES void multiplyKeys(const float* q, int rows, const float* panel, int32_t headDim, float* logits) {
  for (int r = 0; r < rows; ++r) {
    float sum[kPanel] = {};
    for (int32_t i = 0; i < headDim; ++i)
      for (int j = 0; j < kPanel; ++j) sum[j] += q[r * headDim + i] * panel[i * kPanel + j];
    std::memcpy(logits + r * kPanel, sum, sizeof sum);
  }
}

VMOBA_CLONES void addValues(const float* weights, int keys, const float* values, int32_t headDim, float* out) {
  for (int j = 0; j < keys; ++j)
    for (int32_t i = 0; i < headDim; ++i) out[i] += weights[j] * values[j * headDim + i];
}

struct Visit {
  int32_t block;
  uint32_t rows;  ///< bit r: row r attends
};

/// One tile of up to 32 scaled query rows over its visits. out [rows][D]; `mass`, if given, receives [groups][rows] shares.
void attendTile(const float* q, int rows, const KeyValues& kv, const std::vector<int32_t>& start, int64_t head, const std::vector<Visit>& visits, float* out,
                const int32_t* keyGroup = nullptr, int32_t groups = 0, float* mass = nullptr) {
  const int32_t d = kv.headDim;
  float logits[kRows * kPanel], largest[kRows], total[kRows] = {};
  std::fill_n(largest, kRows, kNone);
  std::fill_n(out, rows * d, 0.0f);
  for (const Visit& visit : visits) {
    const int32_t length = start[size_t(visit.block) + 1] - start[size_t(visit.block)];
    for (int32_t at = 0; at < length; at += kPanel) {
      const int keys = std::min(kPanel, length - at);
      const int64_t panel = kv.panelAt(head, kv.firstPanel[size_t(visit.block)] + at / kPanel);
      multiplyKeys(q, rows, kv.k.data() + panel, d, logits);
      for (int r = 0; r < rows; ++r) {
        if ((visit.rows >> r & 1) == 0) continue;
        float* row = logits + r * kPanel;
        float most = largest[r];
        for (int j = 0; j < keys; ++j) most = std::max(most, row[j]);
        const float keep = std::exp(largest[r] - most);
        if (keep != 1) {
          for (int32_t i = 0; i < d; ++i) out[r * d + i] *= keep;
          for (int32_t g = 0; g < groups; ++g) mass[g * kRows + r] *= keep;
          total[r] *= keep;
        }
        largest[r] = most;
        for (int j = 0; j < keys; ++j) {
          row[j] = std::exp(row[j] - most);
          total[r] += row[j];
          if (keyGroup != nullptr && keyGroup[start[size_t(visit.block)] + at + j] >= 0) mass[keyGroup[start[size_t(visit.block)] + at + j] * kRows + r] += row[j];
        }
        addValues(row, keys, kv.v.data() + panel, d, out + r * d);
      }
    }
  }
  for (int r = 0; r < rows; ++r) {
    for (int32_t i = 0; i < d; ++i) out[r * d + i] /= total[r];
    for (int32_t g = 0; g < groups; ++g) mass[g * kRows + r] /= total[r];
  }
}

bool raised(const std::atomic<bool>* cancel) { return cancel != nullptr && cancel->load(std::memory_order_relaxed); }
void throwIfRaised(const std::atomic<bool>* cancel) {
  if (raised(cancel)) throw Error(ErrorCode::Cancelled, "cancelled");
}
void throwIfBroken(const std::atomic<bool>& broken) {
  if (broken) throw Error(ErrorCode::NumericalFault, "attention received NaN or infinity: the weights or the latent are damaged");
}

double secondsSince(std::chrono::steady_clock::time_point start) { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count(); }

void fillStatistics(const std::vector<uint8_t>& selection, const BlockPlan& plan, int64_t heads, const StatisticsRequest* request, AttentionStatistics& s) {
  const int64_t tokens = plan.tokens(), blocks = plan.blocks();
  s.density = reference::density(selection, plan, static_cast<int32_t>(heads));
  s.headDensity.assign(static_cast<size_t>(heads), 0.0f);
  std::vector<double> received(static_cast<size_t>(blocks)), pairs(static_cast<size_t>(heads)), map(static_cast<size_t>(blocks * blocks));
  const std::vector<int32_t> block = reference::blockOfPosition(plan);
  const bool maps = request != nullptr && request->maps;
  double selected = 0;
  for (int64_t c = 0; c < blocks; ++c)
    for (int64_t h = 0; h < heads; ++h)
      for (int64_t p = 0; p < tokens; ++p) {
        if (!selection[size_t((c * heads + h) * tokens + p)]) continue;
        ++selected;
        pairs[size_t(h)] += plan.length(static_cast<int32_t>(c));
        ++received[size_t(c)];
        if (maps && (request->mapHead < 0 || request->mapHead == h)) ++map[size_t(block[size_t(p)] * blocks + c)];
      }
  const auto all = static_cast<double>(heads * tokens);
  s.meanSelectedBlocks = selected / all;
  for (int64_t h = 0; h < heads; ++h) s.headDensity[size_t(h)] = static_cast<float>(pairs[size_t(h)] / static_cast<double>(tokens) / static_cast<double>(tokens));
  if (!maps) return;
  const double mapHeads = request->mapHead < 0 ? static_cast<double>(heads) : 1;
  for (const double count : received) s.blockReceived.push_back(static_cast<float>(count / all));
  for (int64_t r = 0; r < blocks; ++r)
    for (int64_t c = 0; c < blocks; ++c) s.selectionMap.push_back(static_cast<float>(map[size_t(r * blocks + c)] / mapHeads / plan.length(static_cast<int32_t>(r))));
}

}  // namespace

size_t selfAttentionScratchBytes(const SelfAttention&, int) { return 64; }
size_t crossAttentionScratchBytes(const CrossAttention&, int) { return 64; }

void selfAttention(const SelfAttention& job, std::span<std::byte>, const StatisticsRequest* request, AttentionStatistics* statistics) {
  const auto started = std::chrono::steady_clock::now();
  const BlockPlan whole = reference::wholeSequence(job.tokens);
  const BlockPlan& plan = job.blocks != nullptr ? *job.blocks : whole;
  const int64_t tokens = job.tokens, heads = job.heads, d = job.headDim, dim = heads * d;
  const std::vector<int32_t> block = reference::blockOfPosition(plan);
  std::vector<float> q(static_cast<size_t>(tokens * dim)), k(q.size()), v(q.size());  // [S, H, D], permuted
  std::atomic<bool> broken = false;
  parallelForRanges(tokens, 64, [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p) {
      const int64_t s = plan.permutation.empty() ? p : plan.permutation[size_t(p)];
      const float* cosine = job.ropeCos != nullptr ? job.ropeCos + s * d / 2 : nullptr;
      const float* sine = job.ropeSin != nullptr ? job.ropeSin + s * d / 2 : nullptr;
      const bool ok = prepareRow(job.q, job.dtype, s * job.rowStride, job.heads, job.headDim, job.normQ, job.normEps, cosine, sine, &q[size_t(p * dim)]) &
                      prepareRow(job.k, job.dtype, s * job.rowStride, job.heads, job.headDim, job.normK, job.normEps, cosine, sine, &k[size_t(p * dim)]) &
                      prepareRow(job.v, job.dtype, s * job.rowStride, job.heads, job.headDim, nullptr, 0, nullptr, nullptr, &v[size_t(p * dim)]);
      if (!ok) broken = true;
    }
  });
  throwIfBroken(broken);
  throwIfRaised(job.cancel);
  KeyValues kv(plan.start, job.heads, job.headDim);
  for (int64_t p = 0; p < tokens; ++p) kv.put(block[size_t(p)], static_cast<int32_t>(p) - plan.start[size_t(block[size_t(p)])], &k[size_t(p * dim)], &v[size_t(p * dim)]);

  std::vector<uint8_t> selection;
  if (statistics != nullptr) *statistics = {};
  if (job.blocks != nullptr) {
    const std::vector<double> gate = reference::gate({q.begin(), q.end()}, {k.begin(), k.end()}, plan, job.heads, job.headDim);
    selection = reference::select(gate, plan, job.heads, job.rule);
    if (statistics != nullptr) {
      fillStatistics(selection, plan, heads, request, *statistics);
      statistics->dense = false;
    }
    if (job.probe != nullptr) {
      job.probe->gate.assign(gate.begin(), gate.end());
      job.probe->selection = selection;
    }
    if (reference::fallsBackToDense(selection, plan, job.heads, job.rule)) {
      const std::vector<int32_t> sequence = reference::sequenceOfPosition(plan);
      for (int64_t c = 0; c < plan.blocks(); ++c)
        for (int64_t i = 0; i < heads * tokens; ++i) selection[size_t(c * heads * tokens + i)] = sequence[size_t(i % tokens)] == sequence[size_t(plan.start[size_t(c)])];
      if (statistics != nullptr) statistics->dense = true;
    }
  } else if (statistics != nullptr) {
    statistics->headDensity.assign(static_cast<size_t>(heads), 1.0f);
  }
  if (job.probe != nullptr) job.probe->q = q, job.probe->k = k, job.probe->v = v;
  if (statistics != nullptr) statistics->routingSeconds = secondsSince(started);

  const auto attending = std::chrono::steady_clock::now();
  const float scale = 1 / std::sqrt(static_cast<float>(d));
  const int64_t tiles = (tokens + kRows - 1) / kRows;
  std::vector<int32_t> unions(static_cast<size_t>(heads * tiles));
  parallelForDynamic(heads * tiles, [&](int64_t task) {
    if (raised(job.cancel)) return;
    const int64_t h = task / tiles, first = task % tiles * kRows;
    const int rows = static_cast<int>(std::min<int64_t>(kRows, tokens - first));
    std::vector<float> scaled(static_cast<size_t>(rows * d)), out(scaled.size());
    for (int r = 0; r < rows; ++r)
      for (int64_t i = 0; i < d; ++i) scaled[size_t(r * d + i)] = q[size_t((first + r) * dim + h * d + i)] * scale;
    std::vector<Visit> visits;
    for (int32_t c = 0; c < plan.blocks(); ++c) {
      uint32_t bits = 0;
      for (int r = 0; r < rows; ++r)
        if (selection.empty() || selection[size_t((c * heads + h) * tokens + first + r)]) bits |= 1u << r;
      if (bits != 0) visits.push_back({c, bits});
    }
    unions[size_t(task)] = static_cast<int32_t>(visits.size());
    attendTile(scaled.data(), rows, kv, plan.start, h, visits, out.data());
    for (int r = 0; r < rows; ++r) {
      const int64_t s = plan.permutation.empty() ? first + r : plan.permutation[size_t(first + r)];
      for (int64_t i = 0; i < d; ++i) store(job.out, job.dtype, s * job.outStride + h * d + i, out[size_t(r * d + i)]);
    }
  });
  throwIfRaised(job.cancel);
  if (statistics != nullptr) {
    double visited = 0;
    for (const int32_t count : unions) visited += count;
    if (job.blocks != nullptr) statistics->meanTileUnionBlocks = visited / static_cast<double>(unions.size());
    statistics->attentionSeconds = secondsSince(attending);
  }
}

void crossAttention(const CrossAttention& job, std::span<std::byte>) {
  const int64_t heads = job.heads, d = job.headDim, dim = heads * d;
  const std::vector<int32_t> start{0, job.keys};
  KeyValues kv(start, job.heads, job.headDim);
  std::vector<float> kRow(static_cast<size_t>(dim)), vRow(kRow.size());
  std::atomic<bool> broken = false;
  for (int32_t key = 0; key < job.keys; ++key) {
    const bool ok = prepareRow(job.k, job.dtype, key * job.kvStride, job.heads, job.headDim, job.normK, job.normEps, nullptr, nullptr, kRow.data()) &
                    prepareRow(job.v, job.dtype, key * job.kvStride, job.heads, job.headDim, nullptr, 0, nullptr, nullptr, vRow.data());
    if (!ok) broken = true;
    kv.put(0, key, kRow.data(), vRow.data());
  }
  throwIfBroken(broken);
  const float scale = 1 / std::sqrt(static_cast<float>(d));
  parallelForDynamic((job.tokens + kRows - 1) / kRows, [&](int64_t tile) {
    if (raised(job.cancel)) return;
    const int64_t first = tile * kRows;
    const int rows = static_cast<int>(std::min<int64_t>(kRows, job.tokens - first));
    std::vector<float> q(static_cast<size_t>(rows * dim)), scaled(static_cast<size_t>(rows * d)), out(scaled.size()), mass(static_cast<size_t>(job.groups) * kRows);
    for (int r = 0; r < rows; ++r)
      if (!prepareRow(job.q, job.dtype, (first + r) * job.qStride, job.heads, job.headDim, job.normQ, job.normEps, nullptr, nullptr, &q[size_t(r * dim)])) broken = true;
    for (int64_t h = 0; h < heads; ++h) {
      for (int r = 0; r < rows; ++r)
        for (int64_t i = 0; i < d; ++i) scaled[size_t(r * d + i)] = q[size_t(r * dim + h * d + i)] * scale;
      std::fill(mass.begin(), mass.end(), 0.0f);
      const bool mapped = job.keyGroup != nullptr && job.groupMass != nullptr;
      attendTile(scaled.data(), rows, kv, start, h, {{0, ~0u}}, out.data(), mapped ? job.keyGroup : nullptr, mapped ? job.groups : 0, mass.data());
      for (int r = 0; r < rows; ++r) {
        for (int64_t i = 0; i < d; ++i) {
          const int64_t at = (first + r) * job.outStride + h * d + i;
          store(job.out, job.dtype, at, out[size_t(r * d + i)] + (job.accumulate ? load(job.out, job.dtype, at) : 0));
        }
        for (int32_t g = 0; mapped && g < job.groups; ++g) job.groupMass[int64_t{g} * job.tokens + first + r] += mass[size_t(g * kRows + r)] / static_cast<float>(heads);
      }
    }
  });
  throwIfBroken(broken);
  throwIfRaised(job.cancel);
}

const char* instructionSet(DType) { return "plain"; }

}  // namespace vmoba::cpu
