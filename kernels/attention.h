// The vocabulary of VMoBA attention (arXiv 2506.23858): grid, partition, blocks, selection rule, statistics.
// Plain data shared by the reference, the CPU and the CUDA kernels; no arithmetic on tensors lives here.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace vmoba {

/// Token grid after patchify: frames, rows, columns. Raster order, columns fastest.
struct Grid {
  int32_t t = 0, h = 0, w = 0;
  int64_t tokens() const { return int64_t{t} * h * w; }
  bool operator==(const Grid&) const = default;
};

enum class PartitionKind : uint8_t { Temporal1D, Spatial2D, SpaceTime3D };

/// How tokens are grouped. 1-D: `frames` (may be fractional) whole-frame runs in raster order; 2-D: tiles of
/// blockH x blockW through all frames; 3-D: cubes of blockT x blockH x blockW. Units: tokens along each axis.
struct Partition {
  PartitionKind kind = PartitionKind::Temporal1D;
  double frames = 1;
  int32_t blockT = 1, blockH = 1, blockW = 1;
  bool operator==(const Partition&) const = default;
};

/// A partition laid over a grid. Position i of the permuted order holds raster token permutation[i]; block c covers
/// positions [start[c], start[c+1]). The last block along any axis may be short. Empty permutation = identity.
struct BlockPlan {
  Grid grid;
  Partition partition;
  std::vector<int32_t> permutation;     ///< [S], or empty for identity (1-D)
  std::vector<int32_t> start;           ///< [C+1]
  std::vector<int32_t> sequenceStart;   ///< packed sequences: cumulative positions [n+1]; one sequence = {0, S}
  int32_t blocks() const { return static_cast<int32_t>(start.size()) - 1; }
  int32_t tokens() const { return start.empty() ? 0 : start.back(); }
  int32_t length(int32_t block) const { return start[size_t(block) + 1] - start[size_t(block)]; }
};

enum class SelectionMode : uint8_t { TopK, Threshold };
enum class SelectionScope : uint8_t { QueryHead, HeadGlobal, Overall, Block };
/// Upstream keeps the published code's oddities for verification: nothing but own blocks selected means dense, and a share that is
/// never reached takes two entries (QueryHead, Block). Exact is production: own blocks alone stay alone, a share that is never
/// reached takes the whole group, tau >= 1 or k >= all selects everything. Both list ties by lower flat index first.
enum class Semantics : uint8_t { Exact, Upstream };

struct SelectionRule {
  SelectionMode mode = SelectionMode::Threshold;
  SelectionScope scope = SelectionScope::HeadGlobal;
  float tau = 0.25f;   ///< threshold mode: cumulative similarity share
  int32_t k = 1;       ///< top-k mode: blocks per query, own block included
  Semantics semantics = Semantics::Exact;
};

/// What one self-attention call did. Filled on request from the same pass.
struct AttentionStatistics {
  double density = 1;                  ///< attended (query, key) pairs / all pairs
  bool dense = true;                   ///< true when no selection took place
  double routingSeconds = 0;           ///< norm+RoPE+permute+means, gate, selection, packing
  double attentionSeconds = 0;
  double meanSelectedBlocks = 0;       ///< per (query, head)
  double meanTileUnionBlocks = 0;      ///< CPU: per 64 neighbouring queries, blocks at least one of them selected; GPU: per query, blocks its tiles visit
  std::vector<float> headDensity;      ///< [H]
  std::vector<float> blockReceived;    ///< [C] share of (query, head) pairs that selected block c
  std::vector<float> selectionMap;     ///< [C, C] share of query tokens of block r selecting block c; of `mapHead`, -1 = mean
};

/// A look inside one self-attention call, for verification: positions are in permuted order.
struct AttentionProbe {
  std::vector<float> gate;         ///< [C, H, S] before selection
  std::vector<uint8_t> selection;  ///< [C, H, S] 1 = attended, own block included
  std::vector<float> q, k, v;      ///< [S, H, D] after norm and RoPE
};

struct StatisticsRequest {
  bool maps = false;   ///< also blockReceived and selectionMap
  int32_t mapHead = -1;
};

/// Room on a GPU for partial results of sparse attention, bytes: a launch attends as many heads as it holds the results of. `memoryBytes`:
/// what a render may take of the GPU's memory; 0 = as little as always.
constexpr size_t partialResultBytes(size_t memoryBytes) { return std::clamp(memoryBytes / 16, size_t{512} << 20, size_t{1408} << 20); }

}  // namespace vmoba
