// Flow-matching samplers: UniPC (order 2, bh2), DPM-Solver++ (2M) and Euler. Latents live on the host: they are a few
// megabytes, and host arithmetic gives the same bits under every backend. Mathematics: Zhao et al. 2023 (UniPC), Lu et al. 2022
// (DPM-Solver++), with x0 prediction m = x - sigma·v.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace vmoba {

enum class SchedulerKind : uint8_t { UniPC, DpmSolverPP, Euler };
SchedulerKind parseScheduler(const std::string& name);  ///< "unipc", "dpmpp", "euler"; Error{BadRequest}
const char* schedulerName(SchedulerKind kind);

/// Noise levels of n steps: n+1 values ending in 0, and the integer timesteps the model is given.
struct SigmaSchedule {
  std::vector<float> sigmas;
  std::vector<int64_t> timesteps;
};
/// `highest` is the first sigma before shifting.
SigmaSchedule makeSigmas(int64_t steps, double shift, double highest);
/// The highest sigma each sampler's pipeline starts from.
double highestSigma(SchedulerKind kind);

/// Everything a sampler remembers between steps; what a checkpoint stores.
struct SchedulerState {
  int64_t step = 0;
  int64_t lastOrder = 0;
  std::vector<float> x;             ///< current sample
  std::vector<float> estimate1;     ///< m of the previous step
  std::vector<float> estimate2;     ///< m of the one before
  std::vector<float> predictedFrom; ///< UniPC: the sample the previous prediction started from
};

class Scheduler {
 public:
  Scheduler(SchedulerKind kind, SigmaSchedule schedule) : kind_(kind), schedule_(std::move(schedule)) {}
  const SigmaSchedule& schedule() const { return schedule_; }
  int64_t steps() const { return static_cast<int64_t>(schedule_.timesteps.size()); }
  /// Consumes the model's velocity at the current step and moves state.x to the next noise level.
  void advance(SchedulerState& state, const std::vector<float>& velocity) const;
  /// x0 estimate of the last finished step (what a preview shows).
  static const std::vector<float>& estimate(const SchedulerState& state) { return state.estimate1; }

 private:
  double lambda(int64_t i) const;
  void uniPc(SchedulerState& state, const std::vector<float>& estimate) const;
  void dpmSolver(SchedulerState& state, const std::vector<float>& estimate) const;

  SchedulerKind kind_;
  SigmaSchedule schedule_;
};

}  // namespace vmoba
