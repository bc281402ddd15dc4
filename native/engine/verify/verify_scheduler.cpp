// Sampler fixtures: noise levels bit by bit, trajectories under the fixtures' toy model.
#include <cmath>

#include "native/base/error.h"
#include "native/engine/scheduler.h"
#include "native/engine/verify/comparison.h"

namespace vmoba::verify {
namespace {

/// v = A·x + B·sin(W·x) + C·t/1000
struct ToyModel {
  float a, b, w, c;
  std::vector<float> operator()(const std::vector<float>& x, int64_t timestep) const {
    std::vector<float> v(x.size());
    const float drift = c * static_cast<float>(timestep) / 1000.0f;
    for (size_t i = 0; i < x.size(); ++i) v[i] = a * x[i] + b * std::sin(w * x[i]) + drift;
    return v;
  }
};

}  // namespace

void verifyScheduler(Comparison& c) {
  const bool uniPc = c.file.find("unipc") != std::string::npos || c.metadata("scheduler") == "unipc";
  const SchedulerKind kind = uniPc ? SchedulerKind::UniPC : SchedulerKind::DpmSolverPP;
  const auto number = [&](const char* key) { return static_cast<float>(c.numbers(key).at(0)); };
  const ToyModel model{number("model_A"), number("model_B"), number("model_W"), number("model_C")};
  const std::vector<float> start = c.input("in.x");

  for (const auto& [tensor, view] : c.stored.tensors()) {
    if (!tensor.ends_with(".sigmas")) continue;
    const std::string prefix = tensor.substr(0, tensor.size() - 6);  // "s5.0.n20." or "s5.0.n20.alt."
    const double shift = std::strtod(prefix.c_str() + 1, nullptr);
    const size_t stepsAt = prefix.find(".n");
    const int64_t steps = std::atoll(prefix.c_str() + stepsAt + 2);
    const bool alternative = prefix.ends_with(".alt.");
    const SigmaSchedule schedule = makeSigmas(steps, shift, alternative ? static_cast<double>(0.999f) : highestSigma(kind));
    c.sameBits(prefix + "sigmas", schedule.sigmas);
    c.exact(prefix + "timesteps", schedule.timesteps);
    const Scheduler scheduler(kind, schedule);
    SchedulerState state = upload(c.backend, {0, 0, start}, {static_cast<int64_t>(start.size())});
    std::vector<float> x = start, trajectory = start;
    for (int64_t i = 0; i < steps; ++i) {
      state = scheduler.advance(c.backend, state, c.backend.makeVector(model(x, schedule.timesteps[static_cast<size_t>(i)])));
      x = c.host(state.x);
      trajectory.insert(trajectory.end(), x.begin(), x.end());
    }
    if (c.has(prefix + "x")) c.close(prefix + "x", trajectory, kTrajectoryTolerance);
    if (c.has(prefix + "x_final")) c.close(prefix + "x_final", x, kTrajectoryTolerance);
  }
}

}  // namespace vmoba::verify
