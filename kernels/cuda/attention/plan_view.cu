#include "kernels/cuda/attention/plan_view.h"

#include <algorithm>

namespace vmoba::cuda {
namespace {

/// What a tile of keys costs besides its keys, in keys.
constexpr int kTileCost = 48;

int cheaperTileKeys(const BlockPlan& plan, int lastKeys) {
  const int lastWidth = hopperLastWidth(lastKeys);
  int64_t narrow = 0, wide = 0;
  for (int32_t c = 0; c < plan.blocks(); ++c) {
    const int length = plan.length(c), wholeTiles = (length - 1) / kHopperKeys;
    narrow += int64_t{wholeTiles} * (kHopperKeys + kTileCost) + lastWidth + kTileCost;
    wide += int64_t{(length + kWideHopperKeys - 1) / kWideHopperKeys} * (kWideHopperKeys + kTileCost);
  }
  return narrow <= wide ? kHopperKeys : kWideHopperKeys;
}

}  // namespace

PlanUpload layOut(const BlockPlan& plan) {
  PlanUpload upload;
  PlanView& view = upload.offsets;
  view.tokens = plan.tokens();
  view.blocks = plan.blocks();
  upload.permuted = !plan.permutation.empty();
  std::vector<int32_t> blockOf(static_cast<size_t>(view.tokens)), first, end, segmentFirst, blockFirstSegment{0};
  for (int32_t c = 0; c < view.blocks; ++c) {
    const int32_t from = plan.start[static_cast<size_t>(c)], to = plan.start[static_cast<size_t>(c) + 1];
    view.lastKeys = std::max(view.lastKeys, (to - from - 1) % kHopperKeys + 1);
    std::fill(blockOf.begin() + from, blockOf.begin() + to, c);
    for (int32_t at = from; at < to; at += kSegmentTokens) segmentFirst.push_back(at);
    blockFirstSegment.push_back(static_cast<int32_t>(segmentFirst.size()));
    int32_t sequenceFirst = 0, sequenceEnd = view.tokens;
    for (size_t i = 0; i + 1 < plan.sequenceStart.size(); ++i)
      if (plan.sequenceStart[i] <= from && from < plan.sequenceStart[i + 1]) sequenceFirst = plan.sequenceStart[i], sequenceEnd = plan.sequenceStart[i + 1];
    first.push_back(sequenceFirst);
    end.push_back(sequenceEnd);
  }
  view.tileKeys = cheaperTileKeys(plan, view.lastKeys);
  view.segments = static_cast<int32_t>(segmentFirst.size());
  segmentFirst.push_back(view.tokens);
  for (const std::vector<int32_t>* part : std::initializer_list<const std::vector<int32_t>*>{&plan.permutation, &plan.start, &blockOf, &first, &end, &segmentFirst, &blockFirstSegment})
    upload.data.insert(upload.data.end(), part->begin(), part->end());
  return upload;
}

PlanUpload layOutDense(int32_t tokens) {
  BlockPlan plan;
  plan.grid = {1, 1, tokens};
  plan.start = {0, tokens};
  plan.sequenceStart = {0, tokens};
  return layOut(plan);
}

PlanView PlanUpload::view(const int32_t* device) const {
  PlanView view = offsets;
  const auto take = [&device](int64_t count) {
    const int32_t* const part = device;
    device += count;
    return part;
  };
  view.permutation = permuted ? take(view.tokens) : nullptr;
  view.start = take(int64_t{view.blocks} + 1);
  view.blockOf = take(view.tokens);
  view.sequenceFirst = take(view.blocks);
  view.sequenceEnd = take(view.blocks);
  view.segmentFirst = take(int64_t{view.segments} + 1);
  view.blockFirstSegment = take(int64_t{view.blocks} + 1);
  return view;
}

}  // namespace vmoba::cuda
