#include <algorithm>
#include <numeric>

#include "kernels/reference/reference.h"

namespace vmoba::reference {
namespace {

struct Entries {
  const std::vector<double>& gate;
  const BlockPlan& plan;
  int64_t heads, tokens;
  std::vector<int32_t> block = blockOfPosition(plan), sequence = sequenceOfPosition(plan);

  bool own(int64_t flat) const { return block[size_t(flat % tokens)] == flat / (heads * tokens); }
  bool valid(int64_t flat) const {
    const int64_t c = flat / (heads * tokens);
    return sequence[size_t(flat % tokens)] == sequence[size_t(plan.start[size_t(c)])];
  }
};

/// The flat indices of every selection group, ascending.
std::vector<std::vector<int64_t>> groups(const Entries& e, SelectionScope scope) {
  const int64_t blocks = e.plan.blocks();
  int64_t count = 1;
  if (scope == SelectionScope::QueryHead) count = e.heads * e.tokens;
  if (scope == SelectionScope::HeadGlobal) count = e.heads;
  if (scope == SelectionScope::Block) count = blocks;
  std::vector<std::vector<int64_t>> result(static_cast<size_t>(count));
  for (int64_t flat = 0; flat < blocks * e.heads * e.tokens; ++flat) {
    int64_t group = 0;
    if (scope == SelectionScope::QueryHead) group = flat % (e.heads * e.tokens);
    if (scope == SelectionScope::HeadGlobal) group = flat / e.tokens % e.heads;
    if (scope == SelectionScope::Block) group = flat / (e.heads * e.tokens);
    result[size_t(group)].push_back(flat);
  }
  return result;
}

void selectShare(const Entries& e, const std::vector<int64_t>& group, const SelectionRule& rule, std::vector<uint8_t>& selection) {
  double least = 0, most = 0, total = 1e-6, ownSum = 0;
  bool first = true;
  for (const int64_t i : group) {
    if (!e.valid(i)) continue;
    least = first ? e.gate[size_t(i)] : std::min(least, e.gate[size_t(i)]);
    most = first ? e.gate[size_t(i)] : std::max(most, e.gate[size_t(i)]);
    first = false;
  }
  const double range = most - least <= 1e-6 ? 1 : most - least;
  std::vector<std::pair<double, int64_t>> list;  // weight, flat index
  for (const int64_t i : group) {
    if (!e.valid(i) && rule.semantics == Semantics::Exact) continue;
    const double weight = e.valid(i) ? (e.gate[size_t(i)] - least) / range : 0;  // upstream lists foreign entries with weight 0
    total += weight;
    if (e.own(i)) ownSum += weight;
    if (e.own(i) && rule.scope == SelectionScope::Overall) continue;
    list.emplace_back(e.own(i) ? 0 : weight, i);
  }
  std::stable_sort(list.begin(), list.end(), [](const auto& a, const auto& b) { return a.first > b.first; });
  const double need = std::max(0.0, static_cast<double>(rule.tau) - ownSum / total);
  double sum = 0;
  size_t taken = 0;
  bool reached = false;
  while (taken < list.size() && !reached) reached = (sum += list[taken++].first) / total >= need;
  const bool perScopeOfTwo = rule.scope == SelectionScope::QueryHead || rule.scope == SelectionScope::Block;
  if (!reached && rule.semantics == Semantics::Upstream && perScopeOfTwo) taken = std::min<size_t>(2, list.size());
  for (size_t i = 0; i < taken; ++i)
    if (e.valid(list[i].second)) selection[size_t(list[i].second)] = 1;
}

void selectBest(const Entries& e, const std::vector<int64_t>& group, int64_t budget, std::vector<uint8_t>& selection) {
  std::vector<int64_t> list;
  for (const int64_t i : group) {
    if (!e.valid(i)) continue;
    if (e.own(i)) --budget;
    else list.push_back(i);
  }
  std::stable_sort(list.begin(), list.end(), [&](int64_t a, int64_t b) { return e.gate[size_t(a)] > e.gate[size_t(b)]; });
  for (int64_t i = 0; i < std::min<int64_t>(budget, static_cast<int64_t>(list.size())); ++i) selection[size_t(list[size_t(i)])] = 1;
}

}  // namespace

std::vector<uint8_t> select(const std::vector<double>& gate, const BlockPlan& plan, int32_t heads, const SelectionRule& rule) {
  const Entries e{gate, plan, heads, plan.tokens()};
  std::vector<uint8_t> selection(gate.size(), 0);
  const bool everything = rule.semantics == Semantics::Exact && rule.mode == SelectionMode::Threshold && rule.tau >= 1;
  for (int64_t i = 0; i < static_cast<int64_t>(gate.size()); ++i) selection[size_t(i)] = e.own(i) || (everything && e.valid(i));
  if (everything) return selection;
  const int64_t k = std::min(rule.k, plan.blocks());
  for (const std::vector<int64_t>& group : groups(e, rule.scope)) {
    if (rule.mode == SelectionMode::Threshold) selectShare(e, group, rule, selection);
    else selectBest(e, group, k * static_cast<int64_t>(group.size()) / plan.blocks(), selection);
  }
  return selection;
}

bool fallsBackToDense(const std::vector<uint8_t>& selection, const BlockPlan& plan, int32_t heads, const SelectionRule& rule) {
  return rule.semantics == Semantics::Upstream && std::count(selection.begin(), selection.end(), 1) == int64_t{heads} * plan.tokens();
}

}  // namespace vmoba::reference
