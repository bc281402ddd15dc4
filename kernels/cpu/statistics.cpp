#include "kernels/cpu/statistics.h"

#include <bit>

namespace vmoba::cpu {
namespace {

/// Bits set among positions [begin, end).
int64_t countBits(const uint64_t* words, int32_t begin, int32_t end) {
  int64_t count = 0;
  for (int32_t at = begin; at < end;) {
    const int32_t in = at % 64, n = std::min(64 - in, end - at);
    count += std::popcount(words[at / 64] >> in << (64 - n));
    at += n;
  }
  return count;
}

}  // namespace

void describeSelection(const SelectionBits& bits, const BlockPlan& plan, const StatisticsRequest& request, AttentionStatistics& statistics) {
  const int32_t blocks = plan.blocks(), heads = bits.heads;
  const auto tokens = static_cast<double>(plan.tokens()), all = heads * tokens;
  double allPairs = 0, allSelected = 0, tileBlocks = 0;
  std::vector<double> received(static_cast<size_t>(blocks), 0.0);
  statistics.headDensity.clear();
  for (int32_t h = 0; h < heads; ++h) {
    double pairs = 0;
    for (int32_t c = 0; c < blocks; ++c) {
      int64_t selected = 0;
      for (int64_t w = 0; w < bits.rowWords(); ++w) {
        selected += std::popcount(bits.row(h, c)[w]);
        tileBlocks += bits.row(h, c)[w] != 0;
      }
      pairs += static_cast<double>(selected) * plan.length(c);
      allSelected += static_cast<double>(selected);
      received[static_cast<size_t>(c)] += static_cast<double>(selected);
    }
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
  for (int32_t r = 0; r < blocks; ++r)
    for (int32_t c = 0; c < blocks; ++c) {
      int64_t selected = 0;
      for (int32_t h = from; h < to; ++h) selected += countBits(bits.row(h, c), plan.start[size_t(r)], plan.start[size_t(r) + 1]);
      statistics.selectionMap.push_back(static_cast<float>(static_cast<double>(selected) / (static_cast<double>(to - from) * plan.length(r))));
    }
}

}  // namespace vmoba::cpu
