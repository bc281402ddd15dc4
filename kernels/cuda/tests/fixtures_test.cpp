// The published code's selections and outputs (tests/fixtures) through the emulated kernels: gates and outputs close, masks exact.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <sstream>

#include "kernels/cuda/tests/attention_support.h"
#include "native/weights/checkpoint.h"

namespace vmoba {
namespace {

using namespace cudatest;

std::vector<double> numbers(const std::string& text) {
  std::vector<double> values;
  std::stringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) values.push_back(std::strtod(part.c_str(), nullptr));
  return values;
}

Partition partitionOf(const std::string& chunk) {
  const std::vector<double> n = numbers(chunk);
  const auto whole = [&](size_t i) { return static_cast<int32_t>(n.at(i)); };
  if (n.size() == 1) return {PartitionKind::Temporal1D, n[0], 1, 1, 1};
  if (n.size() == 2) return {PartitionKind::Spatial2D, 1, 1, whole(0), whole(1)};
  return {PartitionKind::SpaceTime3D, 1, whole(0), whole(1), whole(2)};
}

/// "topk3.head_global" or "thr0.25.block"
SelectionRule ruleOf(const std::string& name) {
  const std::string scope = name.substr(name.rfind('.') + 1);
  SelectionRule rule;
  rule.semantics = Semantics::Upstream;
  rule.scope = scope == "query_head" ? SelectionScope::QueryHead : scope == "head_global" ? SelectionScope::HeadGlobal : scope == "overall" ? SelectionScope::Overall : SelectionScope::Block;
  rule.mode = name.starts_with("topk") ? SelectionMode::TopK : SelectionMode::Threshold;
  if (rule.mode == SelectionMode::TopK) rule.k = std::atoi(name.c_str() + 4);
  else rule.tau = std::strtof(name.c_str() + 3, nullptr);
  return rule;
}

constexpr const char* kFixtures[] = {"a_1d1", "a_1d2", "a_2d22", "a_2d44", "a_3d244", "b_1d1", "b_1d2", "b_1df1.5", "b_2d22", "b_2d35", "b_3d135"};

/// Attention over every rule of every file would take minutes: each rule's outputs are computed under one partition of its group.
bool attendsUnder(const std::string& name, int rule) {
  std::vector<std::string> group;
  for (const std::string fixture : kFixtures)
    if (fixture.front() == name.front()) group.push_back(fixture);
  return group[static_cast<size_t>(rule) % group.size()] == name;
}

/// Rows `rows` of the raster order, from outputs in the plan's.
std::vector<float> rasterRows(const SelfAttentionResult& r, const WeightView& rows, size_t dim) {
  std::vector<float> picked;
  for (size_t i = 0; i < static_cast<size_t>(rows.elements()); ++i) {
    int64_t row = 0;
    std::memcpy(&row, rows.data + i * sizeof row, sizeof row);
    const auto& order = r.plan.permutation;
    const auto at = order.empty() ? row : std::find(order.begin(), order.end(), static_cast<int32_t>(row)) - order.begin();
    picked.insert(picked.end(), r.out.begin() + static_cast<std::ptrdiff_t>(dim) * at, r.out.begin() + static_cast<std::ptrdiff_t>(dim) * (at + 1));
  }
  return picked;
}

class Fixtures : public testing::TestWithParam<const char*> {};

TEST_P(Fixtures, SelectExactlyAndAttendClosely) {
  const std::string folder = VMOBA_FIXTURES, name = GetParam();
  const Checkpoint inputs = Checkpoint::open(folder + "/vmoba_" + name.substr(0, 1) + "_qkv.safetensors");
  const Checkpoint stored = Checkpoint::open(folder + "/vmoba_" + name + ".safetensors");
  const WeightView& q = inputs.require("q");
  const auto tokens = static_cast<size_t>(q.shape.at(0)), dim = static_cast<size_t>(q.shape.at(1) * q.shape.at(2));
  std::vector<float> qkv(tokens * 3 * dim);
  size_t part = 0;
  for (const char* tensor : {"q", "k", "v"}) {
    const std::vector<float> values = inputs.require(tensor).toFloat();
    for (size_t s = 0; s < tokens; ++s) std::copy_n(values.begin() + static_cast<std::ptrdiff_t>(s * dim), dim, qkv.begin() + static_cast<std::ptrdiff_t>((s * 3 + part) * dim));
    ++part;
  }
  const std::vector<double> extents = numbers(stored.metadata().at("grid"));
  SelfAttentionCase c;
  c.grid = {static_cast<int32_t>(extents.at(0)), static_cast<int32_t>(extents.at(1)), static_cast<int32_t>(extents.at(2))};
  c.partition = partitionOf(stored.metadata().at("chunk_size"));
  c.heads = static_cast<int>(q.shape.at(1));
  c.headDim = static_cast<int>(q.shape.at(2));
  c.normed = false;
  std::stringstream names(stored.metadata().at("selections"));
  int compared = 0, attended = 0;
  for (std::string rule; std::getline(names, rule, ';');) {
    c.rule = ruleOf(rule);
    c.attending = attendsUnder(name, compared);
    const SelfAttentionResult r = run(c, 7, &qkv);
    if (compared == 0) {
      EXPECT_LT(worst(r.probe.gate, doubles(stored.require("gate").toFloat())), 1e-4);
    }
    const WeightView& packed = stored.require(rule + ".mask_packed");
    const size_t plane = static_cast<size_t>(c.heads) * tokens;
    int flips = 0;
    for (size_t i = 0; i < r.probe.selection.size(); ++i) {
      const size_t block = i / plane;
      const auto byte = static_cast<unsigned>(packed.data[block / 8 * plane + i % plane]);
      flips += (byte >> (block % 8) & 1u) != r.probe.selection[i];
    }
    EXPECT_EQ(flips, 0) << rule;
    if (c.attending) {
      const bool dense = stored.metadata().at(rule + ".dense_fallback") == "1";  // nothing but own blocks: the published code attends to everything
      const WeightView& expected = dense ? inputs.require("dense_rows") : stored.require(rule + ".out_rows");
      EXPECT_LT(worst(rasterRows(r, stored.require("rows"), dim), doubles(expected.toFloat())), 2e-5) << rule;
      ++attended;
    }
    ++compared;
  }
  EXPECT_GE(compared, 18);
  EXPECT_GE(attended, 3);
}

INSTANTIATE_TEST_SUITE_P(All, Fixtures, testing::ValuesIn(kFixtures));

}  // namespace
}  // namespace vmoba
