// Selection where a group (a head, a block, the whole call) shares one budget. Two passes over the gates:
//
//   Sample   guesses from a few thousand gates the interval in which they lie (a bad guess costs time, never correctness)
//   Survey   counts the candidates in 4096 bins of that interval; least, most and the sums of all gates
//   Aim      bounds the weight above each bin from its count, which leaves a few bins in which the budget can be met
//   Survey, Aim  once more within those bins, only where they hold more than a list takes
//   Sift     selects what lies above the bins, lists what lies in them, and sums the gates above
//   Settle   finds the very entry among those listed, eleven bits of the key at a time, and selects up to it
//
// Where so many gates are equal that no list takes them, Settle goes over the group itself, with one thread block: slow and rare.
// Sums are doubles added in an order that only the sizes decide; counts are integers; the list's order decides nothing.
#pragma once
#include "kernels/cuda/attention/selection_entries.h"
#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

constexpr int kSurveyBins = 4096;
/// Entries that a group's list takes.
constexpr int kListed = 16384;

enum class Stage : uint32_t {
  Open,
  Crowded,  // more candidates between lowKey and highKey than a list takes
  Listed,   // few enough
  Done,     // no search: everything, nothing, or only entries of weight 0
};

struct GroupState {
  uint32_t leastKey, mostKey;  // over valid entries
  uint32_t lowKey, highKey;    // the last entry taken has a key among these
  Stage stage;
  uint32_t byCount;        // the budget counts entries (top-k, and upstream's cut-off of two), not weight
  uint32_t zeros;          // Stage::Done: entries of weight 0 to take from the front of the list
  uint32_t listed;         // entries in the list
  int32_t shift;           // of the second survey: bin = (key - lowKey) >> shift
  float origin, scale;     // of the first: bin = (gate - origin)·scale
  float above, from;       // Sift takes gates above the first and lists the others from the second on
  int64_t budget;          // entries to take when byCount
  int64_t aboveCount;      // entries above highKey
  double need, least, range, total;  // share to reach; weight = (gate - least)/range; weight of all
};

struct GroupSearch {
  PlanView plan;
  Rows rows;
  SelectionRule rule;
  const float* gate;        // [heads, blocks, tokens]
  uint32_t* selection;
  uint32_t* selected;
  int64_t entries, perPart; // of a group; of one part of a survey
  int32_t parts, siftParts;
  GroupState* state;        // [groups]
  double* surveySums;       // [groups, parts, 2]
  double* siftSums;         // [groups, siftParts]
  uint32_t* counts;         // [groups, kSurveyBins]
  tile::Words2* list;       // [groups, kListed] key, flat position
  TILE_DEVICE const float* row(int head, int block) const { return gate + (int64_t{head} * plan.blocks + block) * plan.tokens; }
};

/// Exclusive sum over the threads of a block in their order. `scratch`: one T per warp. Holds two barriers.
template <class T>
TILE_DEVICE T sumBefore(T value, tile::Shared<T> scratch) {
  T inclusive = value;
  TILE_UNROLL
  for (int delta = 1; delta < tile::warpLanes; delta *= 2) {
    const T below = tile::shuffleUp(inclusive, delta);
    if (tile::laneIndex() >= delta) inclusive = inclusive + below;
  }
  if (tile::laneIndex() == tile::warpLanes - 1) scratch.set(tile::warpIndex(), inclusive);
  tile::barrier();
  T before = tile::shuffleUp(inclusive, 1);
  if (tile::laneIndex() == 0) before = T{};
  T warps = T{};
  for (int w = 0; w < tile::warpIndex(); ++w) warps = warps + scratch.get(w);
  tile::barrier();
  return warps + before;
}

/// Sample, Survey and Aim: leaves for each group the keys among which its last entry is found.
void aimAtCuts(tile::Stream stream, const GroupSearch& x, int groups);
/// Settle, after Sift.
void settleCuts(tile::Stream stream, const GroupSearch& x, int groups);

}  // namespace vmoba::cuda
