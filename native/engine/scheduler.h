// Flow-matching samplers: UniPC (order 2, bh2), DPM-Solver++ (2M) and Euler. Every update is a combination of a few latents on
// the device, with coefficients known on the host; it gives the same bits under every backend. Mathematics: Zhao et al. 2023
// (UniPC), Lu et al. 2022 (DPM-Solver++), with x0 prediction m = x - sigma·v.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "native/backends/backend.h"

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

/// Everything a sampler remembers between steps. What is not there yet is empty.
template <class Latent>
struct SamplerState {
  int64_t step = 0;
  int64_t lastOrder = 0;
  Latent x{};              ///< current sample
  Latent estimate1{};      ///< m of the previous step: what a preview shows
  Latent estimate2{};      ///< m of the one before
  Latent predictedFrom{};  ///< UniPC: the sample the previous prediction started from
};
/// On the device; tensors are shared between states and never written again.
using SchedulerState = SamplerState<Tensor>;
/// On the host; what a checkpoint stores.
using StoredState = SamplerState<std::vector<float>>;
SchedulerState upload(Backend& backend, const StoredState& state, const Shape& latent);
StoredState download(Backend& backend, const SchedulerState& state);

/// unconditional + scale·(conditional - unconditional); `conditional` is overwritten.
Tensor guide(Backend& backend, const Tensor& conditional, const Tensor& unconditional, float scale);

class Scheduler {
 public:
  Scheduler(SchedulerKind kind, SigmaSchedule schedule) : kind_(kind), schedule_(std::move(schedule)) {}
  const SigmaSchedule& schedule() const { return schedule_; }
  int64_t steps() const { return static_cast<int64_t>(schedule_.timesteps.size()); }
  /// The state at the next noise level, by the model's velocity at this one.
  SchedulerState advance(Backend& backend, const SchedulerState& state, const Tensor& velocity) const;

 private:
  double lambda(int64_t i) const;
  void uniPc(Backend& backend, const SchedulerState& state, SchedulerState& next) const;
  void dpmSolver(Backend& backend, const SchedulerState& state, SchedulerState& next) const;

  SchedulerKind kind_;
  SigmaSchedule schedule_;
};

}  // namespace vmoba
