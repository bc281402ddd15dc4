// Packing in emulation against the same written straight down: a stable sort of every list by the Gray code of what its rows select.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <map>
#include <numeric>

#include "kernels/cuda/tests/attention_support.h"

namespace vmoba {
namespace {

using namespace cudatest;

/// What packing makes of selections, in words that compare: names are `head.chunk: ...`.
using Packed = std::map<std::string, std::vector<int64_t>>;

/// [heads][tokens] selected blocks of each row.
using Selected = std::vector<std::vector<std::vector<int>>>;

BlockPlan planOf(int tokens, int blocks, bool permuted) {
  BlockPlan plan;
  plan.grid = {1, 1, tokens};
  plan.sequenceStart = {0, tokens};
  for (int c = 0; c <= blocks; ++c) plan.start.push_back(static_cast<int32_t>(int64_t{c} * tokens / blocks));
  if (!permuted) return plan;
  for (int s = 0; s < tokens; ++s) plan.permutation.push_back(tokens - 1 - s);
  return plan;
}

std::string nameOf(int head, int chunk, const std::string& what) { return std::to_string(head) + "." + std::to_string(chunk) + ": " + what; }

int grayRank(uint32_t pattern) {
  int rank = 0;
  for (; pattern; pattern >>= 1) rank ^= static_cast<int>(pattern);
  return rank;
}

Packed expected(const BlockPlan& plan, const Selected& selected) {
  Packed packed;
  const int blocks = plan.blocks(), chunks = cuda::chunksOf(blocks);
  int64_t cellFirst = 0, visitTotal = 0;
  for (int h = 0; h < static_cast<int>(selected.size()); ++h)
    for (int chunk = 0; chunk < chunks; ++chunk) {
      const auto& rows = selected[static_cast<size_t>(h)];
      const int from = cuda::firstBlockOf(chunk, chunks, blocks), to = cuda::firstBlockOf(chunk + 1, chunks, blocks);
      std::vector<int> list;
      std::vector<uint32_t> pattern(rows.size());
      for (int s = 0; s < static_cast<int>(rows.size()); ++s) {
        for (const int c : rows[static_cast<size_t>(s)])
          if (c >= from && c < to) pattern[static_cast<size_t>(s)] |= 1u << (c - from);
        if (pattern[static_cast<size_t>(s)]) list.push_back(s);
      }
      std::stable_sort(list.begin(), list.end(), [&](int a, int b) { return grayRank(pattern[static_cast<size_t>(a)]) < grayRank(pattern[static_cast<size_t>(b)]); });
      std::vector<int64_t> order, ends, places(rows.size(), -1), cells;
      for (size_t i = 0; i < list.size(); ++i) {
        const auto s = static_cast<size_t>(list[i]);
        const bool shared = rows[s].size() != static_cast<size_t>(std::popcount(pattern[s]));
        order.push_back(list[i] | (shared ? cuda::kSharedRow : 0));
        ends.push_back(shared ? -1 : plan.permutation.empty() ? list[i] : plan.permutation[s]);
        if (shared) places[s] = static_cast<int64_t>(i);
      }
      for (size_t first = 0; first < list.size(); first += cuda::kTileRows) {
        for (int c = from; c < to; ++c) {
          std::vector<int64_t> visit{c};
          for (size_t word = first; word < first + cuda::kTileRows; word += 32) {
            uint32_t bits = 0;
            for (size_t i = word; i < word + 32; ++i)
              if (i < list.size()) bits |= (pattern[static_cast<size_t>(list[i])] >> (c - from) & 1u) << (i - word);
            for (size_t i = word; bits && i < word + 32; ++i)
              if (i >= list.size()) bits |= 1u << (i - word);
            visit.push_back(bits);
          }
          if (std::all_of(visit.begin() + 1, visit.end(), [](int64_t bits) { return bits == 0; })) continue;
          cells.insert(cells.end(), visit.begin(), visit.end());
          ++visitTotal;
        }
        cells.push_back(-1);  // ends a cell
        ++cellFirst;
      }
      order.resize((order.size() + cuda::kTileRows - 1) / cuda::kTileRows * cuda::kTileRows, -1);
      packed[nameOf(h, chunk, "order")] = order;
      packed[nameOf(h, chunk, "ends")] = ends;
      packed[nameOf(h, chunk, "places")] = places;
      packed[nameOf(h, chunk, "cells")] = cells;
      packed[nameOf(h, chunk, "last cell")] = {cellFirst};
    }
  packed["visits"] = {visitTotal};
  return packed;
}

Packed packed(const BlockPlan& plan, const Selected& selected, const emulation::Options& options = {}) {
  const cuda::PlanUpload upload = cuda::layOut(plan);
  cuda::SelfAttentionJob job;
  job.plan = upload.view(upload.data.data());
  job.sparse = true;
  job.heads = static_cast<int32_t>(selected.size());
  job.headDim = 4;
  const cuda::SelfAttentionScratch layout = cuda::layOutScratch(job);
  DeviceBytes scratch(layout.total);
  const auto words = static_cast<size_t>(job.plan.words()), tokens = static_cast<size_t>(job.plan.tokens);
  auto* selection = reinterpret_cast<uint32_t*>(scratch.data() + layout.selection);
  std::fill_n(selection, selected.size() * tokens * words, 0u);
  for (size_t h = 0; h < selected.size(); ++h)
    for (size_t s = 0; s < tokens; ++s)
      for (const int c : selected[h][s]) selection[(h * tokens + s) * words + static_cast<size_t>(c / 32)] |= 1u << (c % 32);
  cuda::pack({const_cast<emulation::Options*>(&options)}, job, scratch.data());

  Packed packed;
  const int chunks = cuda::chunksOf(plan.blocks());
  const auto lists = selected.size() * static_cast<size_t>(chunks), tiles = static_cast<size_t>(job.plan.tiles()), listRows = tiles * cuda::kTileRows;
  const auto order = scratch.copy<int32_t>(layout.order, lists * listRows), ends = scratch.copy<int32_t>(layout.ends, lists * listRows);
  const auto places = scratch.copy<int32_t>(layout.places, lists * tokens), cellFirst = scratch.copy<int32_t>(layout.cellFirst, lists + 1);
  const auto cells = scratch.copy<cuda::Cell>(layout.cells, static_cast<size_t>(cellFirst.back()));
  EXPECT_EQ(cellFirst.front(), 0);
  for (size_t list = 0; list < lists; ++list) {
    const int head = static_cast<int>(list) / chunks, chunk = static_cast<int>(list) % chunks;
    std::vector<int64_t> inOrder, atEnds, visits;
    for (int32_t i = cellFirst[list]; i < cellFirst[list + 1]; ++i) {
      const cuda::Cell& cell = cells[static_cast<size_t>(i)];
      EXPECT_EQ(cell.head, head);
      EXPECT_EQ(cell.first, static_cast<int64_t>(list * listRows) + int64_t{i - cellFirst[list]} * cuda::kTileRows);
      for (int32_t v = 0; v < cell.visitCount; ++v) {
        const cuda::Visit& visit = cell.visits[v];
        const auto block = std::find(plan.start.begin(), plan.start.end(), visit.from) - plan.start.begin();
        EXPECT_EQ(visit.from + visit.length, plan.start[static_cast<size_t>(block) + 1]);
        visits.push_back(block);
        for (const uint32_t rows : visit.rows) visits.push_back(rows);
      }
      visits.push_back(-1);
      for (size_t row = 0; row < cuda::kTileRows; ++row) inOrder.push_back(order[static_cast<size_t>(cell.first) + row]);
    }
    for (size_t i = 0; i < inOrder.size() && inOrder[i] >= 0; ++i) atEnds.push_back(inOrder[i] & cuda::kSharedRow ? -1 : ends[list * listRows + i]);
    packed[nameOf(head, chunk, "order")] = inOrder;
    packed[nameOf(head, chunk, "ends")] = atEnds;
    packed[nameOf(head, chunk, "places")].assign(places.begin() + static_cast<std::ptrdiff_t>(list * tokens), places.begin() + static_cast<std::ptrdiff_t>((list + 1) * tokens));
    packed[nameOf(head, chunk, "cells")] = visits;
    packed[nameOf(head, chunk, "last cell")] = {cellFirst[list + 1]};
  }
  packed["visits"] = {scratch.copy<uint32_t>(layout.visitTotal, 1).front()};
  return packed;
}

/// Rows that select each block with a probability, those of neighbouring rows often alike.
Selected randomly(int heads, int tokens, int blocks, double density, uint32_t seed) {
  std::mt19937 random(seed);
  std::bernoulli_distribution takes(density), repeats(0.5);
  Selected selected(static_cast<size_t>(heads));
  for (auto& rows : selected)
    for (int s = 0; s < tokens; ++s) {
      if (s > 0 && repeats(random)) {
        rows.push_back(rows.back());
        continue;
      }
      rows.emplace_back();
      for (int c = 0; c < blocks; ++c)
        if (takes(random)) rows.back().push_back(c);
    }
  return selected;
}

TEST(Packing, SortsRowsByWhatTheySelect) {
  const BlockPlan plan = planOf(777, 23, true);  // four chunks of five and six blocks
  const Selected selected = randomly(2, 777, 23, 0.2, 1);
  for (const uint32_t seed : {1u, 2u, 3u}) EXPECT_EQ(packed(plan, selected, {.fault = {}, .scheduleSeed = seed}), expected(plan, selected)) << "in order " << seed;
}

TEST(Packing, TakesManySortBlocksAndManyWordsOfBlocks) {
  const int tokens = 5 * cuda::kSortRows + 300, blocks = 72;  // more sort blocks than lanes look at one rank
  const BlockPlan plan = planOf(tokens, blocks, false);
  const Selected selected = randomly(1, tokens, blocks, 0.19, 2);
  EXPECT_EQ(packed(plan, selected), expected(plan, selected));
}

TEST(Packing, TakesMoreChunksThanThreadsOfABlock) {
  const BlockPlan plan = planOf(1600, 1600, true);
  const Selected selected = randomly(1, 1600, 1600, 0.002, 3);
  EXPECT_EQ(packed(plan, selected), expected(plan, selected));
}

TEST(Packing, TakesAnySize) {
  for (const int tokens : {1, 31, 32, 33, 127, 128, 129, cuda::kSortRows - 1, cuda::kSortRows, cuda::kSortRows + 1})
    for (const int blocks : {1, 6, 7, 24, 25, 31, 32, 33, 65}) {
      if (blocks > tokens || (tokens > 1000 && blocks % 8 != 1)) continue;
      const BlockPlan plan = planOf(tokens, blocks, tokens % 2 == 1);
      const Selected selected = randomly(1, tokens, blocks, 0.3, static_cast<uint32_t>(tokens * 100 + blocks));
      EXPECT_EQ(packed(plan, selected), expected(plan, selected)) << tokens << " tokens, " << blocks << " blocks";
    }
}

TEST(Packing, KeepsTheOrderOfRowsThatAreAlike) {
  const int tokens = cuda::kSortRows + 40;
  const BlockPlan plan = planOf(tokens, 14, true);
  Selected selected = randomly(1, tokens, 14, 0, 0);
  for (const std::vector<int>& all : {std::vector<int>{3, 5}, {3, 8, 13}, {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13}, {}}) {
    for (auto& row : selected[0]) row = all;
    EXPECT_EQ(packed(plan, selected), expected(plan, selected));
  }
}

TEST(Packing, IsFoundWrongWithADroppedBarrierOrARaggedTail) {
  const BlockPlan plan = planOf(300, 9, true);
  Selected selected = randomly(1, 300, 9, 0.3, 4);
  selected[0].back() = {2, 7};
  const auto shows = [&](emulation::PlantedFault::Kind kind, int nth) {
    emulation::Options options;
    options.fault = {kind, nth};
    try {
      return packed(plan, selected, options) != expected(plan, selected);
    } catch (const emulation::Violation&) {
      return true;
    }
  };
  EXPECT_FALSE(shows(emulation::PlantedFault::None, 0));
  EXPECT_TRUE(shows(emulation::PlantedFault::RaggedTail, 0));
  for (int nth = 0; nth < 4; ++nth) EXPECT_TRUE(shows(emulation::PlantedFault::DropBarrier, nth)) << nth;
}

}  // namespace
}  // namespace vmoba
