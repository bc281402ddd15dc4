// VMoBA fixtures: partitions, gates, masks and outputs, through the backend's own attention.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/partition.h"
#include "native/engine/verify/attention_names.h"
#include "native/engine/verify/comparison.h"

namespace vmoba::verify {
namespace {

struct Inputs {
  int64_t tokens, heads, headDim;
  Tensor qkv;
};

Inputs joinInputs(Comparison& c, const Checkpoint& tensors, bool zeroQuery = false) {
  const WeightView& q = tensors.require("q");
  Inputs in{q.shape.at(0), q.shape.at(1), q.shape.at(2), {}};
  const int64_t dim = in.heads * in.headDim;
  std::vector<float> joined(static_cast<size_t>(in.tokens * 3 * dim), 0.0f);
  int64_t part = 0;
  for (const char* name : {"q", "k", "v"}) {
    const std::vector<float> values = tensors.require(name, q.shape).toFloat();
    for (int64_t s = 0; s < in.tokens && !(zeroQuery && part == 0); ++s)
      std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(s * dim), dim, joined.begin() + static_cast<std::ptrdiff_t>((s * 3 + part) * dim));
    ++part;
  }
  in.qkv = c.backend.allocate(DType::F32, {in.tokens, 3 * dim});
  c.backend.upload(in.qkv, joined.data());
  return in;
}

struct Result {
  std::vector<float> out;  ///< [S, H, D] raster
  AttentionProbe probe;
  AttentionStatistics statistics;
};

Result attend(Comparison& c, const Inputs& in, const BlockPlan* blocks, const SelectionRule& rule) {
  Result result;
  SelfAttentionOp op;
  op.qkv = in.qkv;
  op.heads = static_cast<int32_t>(in.heads);
  op.blocks = blocks;
  op.rule = rule;
  op.out = c.backend.allocate(DType::F32, {in.tokens, in.heads * in.headDim});
  op.statistics = &result.statistics;
  op.probe = &result.probe;
  c.backend.selfAttention(op);
  c.backend.synchronize();
  result.out = c.host(op.out);
  return result;
}

std::vector<float> pickRows(const std::vector<float>& out, const std::vector<int64_t>& rows, int64_t dim) {
  std::vector<float> picked;
  for (const int64_t row : rows) picked.insert(picked.end(), out.begin() + static_cast<std::ptrdiff_t>(row * dim), out.begin() + static_cast<std::ptrdiff_t>((row + 1) * dim));
  return picked;
}

std::vector<int64_t> packBits(const std::vector<uint8_t>& selection, int64_t blocks) {
  const auto plane = static_cast<int64_t>(selection.size()) / blocks;
  std::vector<int64_t> packed(static_cast<size_t>((blocks + 7) / 8 * plane), 0);
  for (int64_t block = 0; block < blocks; ++block)
    for (int64_t i = 0; i < plane; ++i)
      if (selection[static_cast<size_t>(block * plane + i)]) packed[static_cast<size_t>(block / 8 * plane + i)] |= int64_t{1} << (block % 8);
  return packed;
}

void near(Comparison& c, const std::string& what, double expected, double actual, double tolerance) {
  const double difference = std::abs(expected - actual);
  c.report({c.file, what, difference, tolerance, difference <= tolerance, ""});
}

/// "topk3.head_global" / "thr0.25.block"
SelectionRule ruleFromName(const std::string& name) {
  SelectionRule rule;
  rule.semantics = Semantics::Upstream;
  const size_t dot = name.rfind('.');
  rule.scope = scopeFromName(name.substr(dot + 1));
  if (name.starts_with("topk")) {
    rule.mode = SelectionMode::TopK;
    rule.k = std::atoi(name.c_str() + 4);
  } else {
    rule.tau = std::strtof(name.c_str() + 3, nullptr);
  }
  return rule;
}

std::vector<int64_t> identity(int64_t count) {
  std::vector<int64_t> values(static_cast<size_t>(count));
  std::iota(values.begin(), values.end(), int64_t{0});
  return values;
}

}  // namespace

void verifyAttention(Comparison& c, const Checkpoint& tensors) {
  for (const char* name : {"q", "k", "v"}) c.seen.insert(name);
  const Inputs in = joinInputs(c, tensors);
  const int64_t dim = in.heads * in.headDim;
  const std::vector<int64_t> rows = c.integers("rows");
  if (c.metadata("selections").empty()) {  // the group's own file: dense attention
    const Result dense = attend(c, in, nullptr, {});
    c.close("dense_rows", pickRows(dense.out, rows, dim), kAttentionTolerance);
    if (c.has("dense")) c.close("dense", dense.out, kAttentionTolerance);
    return;
  }
  const std::vector<double> extents = c.numbers("grid");
  const Grid grid{static_cast<int32_t>(extents.at(0)), static_cast<int32_t>(extents.at(1)), static_cast<int32_t>(extents.at(2))};
  const BlockPlan plan = planBlocks(grid, partitionFromChunk(c.metadata("chunk_size")));
  std::vector<int64_t> permutation(plan.permutation.begin(), plan.permutation.end());
  if (permutation.empty()) permutation = identity(in.tokens);
  c.exact("perm", permutation);
  near(c, "num_chunks", c.numbers("num_chunks").at(0), plan.blocks(), 0);
  std::vector<double> lengths;
  for (int32_t i = 0; i < plan.blocks(); ++i) lengths.push_back(plan.length(i));
  c.report({c.file, "chunk_lens", 0, 0, lengths == c.numbers("chunk_lens"), ""});

  bool gateDone = false;
  std::stringstream names(c.metadata("selections"));
  for (std::string name; std::getline(names, name, ';');) {
    const Result result = attend(c, in, &plan, ruleFromName(name));
    if (!gateDone && c.has("gate")) c.close("gate", result.probe.gate, kGateTolerance);
    gateDone = true;
    const auto& selection = result.probe.selection;
    if (c.has(name + ".mask_packed")) c.exact(name + ".mask_packed", packBits(selection, plan.blocks()));
    if (c.has(name + ".mask")) c.exact(name + ".mask", std::vector<int64_t>(selection.begin(), selection.end()));
    near(c, name + ".mask_bits_set", c.numbers(name + ".mask_bits_set").at(0), static_cast<double>(std::count(selection.begin(), selection.end(), 1)), 0);
    near(c, name + ".density", c.numbers(name + ".density").at(0), result.statistics.density, 1e-9);
    if (c.has(name + ".out_rows")) c.close(name + ".out_rows", pickRows(result.out, rows, dim), kAttentionTolerance);
    if (c.has(name + ".out")) c.close(name + ".out", result.out, kAttentionTolerance);
    if (c.metadata(name + ".dense_fallback") == "1") {
      const std::vector<float> expected = tensors.require("dense_rows").toFloat(), actual = pickRows(result.out, rows, dim);
      double worst = 0;
      for (size_t i = 0; i < expected.size(); ++i) worst = std::max(worst, std::abs(static_cast<double>(expected[i]) - static_cast<double>(actual.at(i))));
      c.report({c.file, name + " (dense fallback)", worst, kAttentionTolerance, worst <= kAttentionTolerance, ""});
    }
  }
}

void verifyAttentionEdge(Comparison& c) {
  for (const char* name : {"q", "k", "v"}) c.seen.insert(name);
  for (const auto& [tensor, view] : c.stored.tensors()) {
    if (!tensor.ends_with(".mask")) continue;
    const std::string name = tensor.substr(0, tensor.size() - 5);
    const Inputs in = joinInputs(c, c.stored, name == "zero_q");
    std::vector<int32_t> cumulative;
    for (const double value : c.numbers(name + ".cu_seqlens")) cumulative.push_back(static_cast<int32_t>(value));
    const BlockPlan plan = planPackedSequences(cumulative, static_cast<int32_t>(c.numbers(name + ".chunk_tokens").at(0)));
    SelectionRule rule;
    rule.semantics = Semantics::Upstream;
    rule.scope = scopeFromName(c.metadata(name + ".threshold_type"));
    if (c.metadata(name + ".select_mode") == "topk") {
      rule.mode = SelectionMode::TopK;
      const size_t at = name.find("topk");
      rule.k = std::atoi(name.c_str() + at + 4);
    } else {
      rule.tau = std::strtof(c.metadata(name + ".simsum_threshold").c_str(), nullptr);
    }
    const Result result = attend(c, in, &plan, rule);
    const auto& selection = result.probe.selection;
    c.exact(name + ".mask", std::vector<int64_t>(selection.begin(), selection.end()));
    c.close(name + ".gate", result.probe.gate, kGateTolerance);
    c.close(name + ".out", result.out, kAttentionTolerance);
    std::vector<int64_t> own;
    for (int32_t block = 0; block < plan.blocks(); ++block)
      for (int64_t h = 0; h < in.heads; ++h)
        for (int64_t s = 0; s < in.tokens; ++s) own.push_back(s >= plan.start[static_cast<size_t>(block)] && s < plan.start[static_cast<size_t>(block) + 1]);
    c.exact(name + ".self", own);
  }
}

}  // namespace vmoba::verify
