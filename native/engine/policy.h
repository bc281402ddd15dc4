// The attention policy: which layers and steps run dense or VMoBA, how blocks are laid and chosen, and why. Data (JSON,
// version 1, see main/engine/binding.ts) turned into one decision per layer and step.
#pragma once
#include <array>
#include <optional>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "native/base/json.h"
#include "native/engine/dit.h"

namespace vmoba {

struct AttentionPolicy {
  std::string name = "dense";
  bool dense = true;
  SelectionMode mode = SelectionMode::Threshold;
  SelectionScope scope = SelectionScope::HeadGlobal;
  Semantics semantics = Semantics::Exact;
  float tau = 0.25f;
  double kShare = 0.25;
  std::array<std::optional<int32_t>, 3> k;              ///< explicit, by partition kind
  std::array<std::optional<Partition>, 3> partitions;   ///< explicit blocks, by partition kind
  std::vector<PartitionKind> cycle{PartitionKind::Temporal1D, PartitionKind::Spatial2D, PartitionKind::SpaceTime3D};
  double denseSteps = 0;
  std::vector<int64_t> denseLayers;
  int64_t minimumTokens = 0;

  /// Error{BadRequest} naming the member for anything malformed or out of range.
  static AttentionPolicy parse(const Json& json);
  Json toJson() const;
};

const char* partitionName(PartitionKind kind);  ///< "1d", "2d", "3d"

/// The policy laid over one grid and step count.
class AttentionPlan {
 public:
  AttentionPlan(const AttentionPolicy& policy, const Grid& grid, int64_t layers, int64_t steps);

  struct Decision {
    LayerAttention attention;
    std::optional<PartitionKind> partition;  ///< empty when dense
    std::string reason;                      ///< why dense, in words
  };
  Decision decide(int64_t layer, int64_t step) const;

  struct PartitionUse {
    PartitionKind kind;
    BlockPlan blocks;
    SelectionRule rule;
    double expectedDensity;  ///< exact for per-query top-k; for thresholds what trained models were measured at
  };
  const std::vector<PartitionUse>& partitions() const { return uses_; }
  int64_t denseStepCount() const { return denseSteps_; }
  /// Mean expected density over layers and steps, dense ones included.
  double expectedDensity() const;

 private:
  const PartitionUse& use(PartitionKind kind) const;
  AttentionPolicy policy_;
  Grid grid_;
  int64_t layers_, steps_, denseSteps_ = 0;
  std::vector<PartitionUse> uses_;
};

}  // namespace vmoba
