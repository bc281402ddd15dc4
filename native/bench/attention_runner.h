// One self-attention call after another over the same inputs: by the fused path of the CPU, or by a device's backend.
#pragma once
#include <functional>
#include <memory>
#include <vector>

#include "kernels/attention.h"
#include "native/backends/backend.h"
#include "native/bench/attention_inputs.h"

namespace vmoba {

class AttentionRunner {
 public:
  struct Call {
    const BlockPlan* plan = nullptr;  ///< null = dense
    SelectionRule rule;
    bool routingOnly = false;         ///< stop after selection (CPU only)
    bool described = true;            ///< with statistics and maps
    AttentionProbe* probe = nullptr;
  };
  struct Result {
    double seconds = 0;               ///< of `clock`; on a device, by its own events
    AttentionStatistics statistics;
  };

  virtual ~AttentionRunner() = default;
  virtual Result run(const Call& call) = 0;
  virtual std::vector<float> output() = 0;  ///< of the last run: [S, heads·headDim] in raster order
  virtual size_t scratchBytes() const = 0;  ///< the most any call needed
  const AttentionInputs& inputs() const { return inputs_; }

  double denseFlops() const {
    const auto tokens = static_cast<double>(inputs_.grid.tokens());
    return 4 * tokens * tokens * static_cast<double>(inputs_.dim());
  }

 protected:
  explicit AttentionRunner(AttentionInputs inputs) : inputs_(std::move(inputs)) {}
  AttentionInputs inputs_;
};

/// By kernels/cpu on the calling thread's pool. `clock`: seconds. `instructionSet`: a tile kernel by name, or null = the best.
std::unique_ptr<AttentionRunner> runOnCpu(AttentionInputs inputs, std::function<double()> clock, const char* instructionSet = nullptr);
/// By any backend, which must outlive the runner. Calls are never cut short after routing.
std::unique_ptr<AttentionRunner> runOnDevice(AttentionInputs inputs, Backend& backend);

}  // namespace vmoba
