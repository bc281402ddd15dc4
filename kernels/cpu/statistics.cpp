#include "kernels/cpu/statistics.h"

#include <algorithm>
#include <bit>
#include <vector>

#include "kernels/cpu/clones.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {
namespace {

/// Bits set among positions [begin, end).
VMOBA_CLONES int64_t countBits(const uint64_t* words, int32_t begin, int32_t end) {
  int64_t count = 0;
  for (int32_t at = begin; at < end;) {
    const int32_t in = at % 64, n = std::min(64 - in, end - at);
    count += std::popcount(words[at / 64] >> in << (64 - n));
    at += n;
  }
  return count;
}

struct HeadCounts {
  std::vector<int64_t> selected;  ///< [blocks] queries that attend to each
  int64_t tileBlocks = 0;         ///< (64 neighbouring queries, block) pairs with any bit set
};

}  // namespace

void describeSelection(const SelectionBits& bits, const BlockPlan& plan, const StatisticsRequest& request, AttentionStatistics& statistics) {
  const int32_t blocks = plan.blocks(), heads = bits.heads;
  const auto tokens = static_cast<double>(plan.tokens()), all = heads * tokens;
  std::vector<HeadCounts> counts(static_cast<size_t>(heads), {std::vector<int64_t>(static_cast<size_t>(blocks)), 0});
  parallelForDynamic(heads, [&](int64_t h) {
    HeadCounts& head = counts[static_cast<size_t>(h)];
    for (int32_t c = 0; c < blocks; ++c) {
      const uint64_t* words = bits.row(h, c);
      head.selected[static_cast<size_t>(c)] = countBits(words, 0, bits.tokens);
      head.tileBlocks += bits.rowWords() - std::count(words, words + bits.rowWords(), uint64_t{0});
    }
  });
  double allPairs = 0, allSelected = 0, tileBlocks = 0;
  std::vector<double> received(static_cast<size_t>(blocks), 0.0);
  statistics.headDensity.clear();
  for (const HeadCounts& head : counts) {
    double pairs = 0;
    for (int32_t c = 0; c < blocks; ++c) {
      const auto selected = static_cast<double>(head.selected[static_cast<size_t>(c)]);
      pairs += selected * plan.length(c);
      allSelected += selected;
      received[static_cast<size_t>(c)] += selected;
    }
    tileBlocks += static_cast<double>(head.tileBlocks);
    statistics.headDensity.push_back(static_cast<float>(pairs / tokens / tokens));
    allPairs += pairs;
  }
  statistics.density = allPairs / (all * tokens);
  statistics.meanSelectedBlocks = allSelected / all;
  statistics.meanTileUnionBlocks = tileBlocks / static_cast<double>(heads * bits.rowWords());
  statistics.blockReceived.clear();
  statistics.selectionMap.clear();
  if (!request.maps) return;
  for (const double count : received) statistics.blockReceived.push_back(static_cast<float>(count / all));
  const bool one = request.mapHead >= 0 && request.mapHead < heads;
  const int32_t from = one ? request.mapHead : 0, to = one ? request.mapHead + 1 : heads;
  statistics.selectionMap.resize(static_cast<size_t>(blocks) * static_cast<size_t>(blocks));
  parallelForDynamic(blocks, [&](int64_t row) {
    const auto r = static_cast<int32_t>(row);
    for (int32_t c = 0; c < blocks; ++c) {
      int64_t selected = 0;
      for (int32_t h = from; h < to; ++h) selected += countBits(bits.row(h, c), plan.start[size_t(r)], plan.start[size_t(r) + 1]);
      statistics.selectionMap[static_cast<size_t>(row * blocks + c)] = static_cast<float>(static_cast<double>(selected) / (static_cast<double>(to - from) * plan.length(r)));
    }
  });
}

}  // namespace vmoba::cpu
