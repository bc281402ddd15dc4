#include "native/engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "native/base/error.h"

namespace vmoba {

SchedulerKind parseScheduler(const std::string& name) {
  if (name == "unipc") return SchedulerKind::UniPC;
  if (name == "dpmpp") return SchedulerKind::DpmSolverPP;
  if (name == "euler") return SchedulerKind::Euler;
  throw Error(ErrorCode::BadRequest, "scheduler must be unipc, dpmpp or euler, not '" + name + "'", "scheduler");
}

const char* schedulerName(SchedulerKind kind) {
  return kind == SchedulerKind::UniPC ? "unipc" : kind == SchedulerKind::DpmSolverPP ? "dpmpp" : "euler";
}

double highestSigma(SchedulerKind kind) { return kind == SchedulerKind::UniPC ? static_cast<double>(0.999f) : 1.0; }

SigmaSchedule makeSigmas(int64_t steps, double shift, double highest) {
  SigmaSchedule schedule;
  const double increment = -highest / static_cast<double>(steps);
  for (int64_t i = 0; i < steps; ++i) {
    const double plain = static_cast<double>(i) * increment + highest;
    const double sigma = shift * plain / (1 + (shift - 1) * plain);
    schedule.sigmas.push_back(static_cast<float>(sigma));
    schedule.timesteps.push_back(static_cast<int64_t>(std::trunc(1000 * sigma)));
  }
  schedule.sigmas.push_back(0.0f);
  return schedule;
}

double Scheduler::lambda(int64_t i) const {
  const double sigma = static_cast<double>(schedule_.sigmas[static_cast<size_t>(i)]);
  return std::log(1 - sigma) - std::log(sigma);
}

void Scheduler::advance(SchedulerState& state, const std::vector<float>& velocity) const {
  const float sigma = schedule_.sigmas[static_cast<size_t>(state.step)];
  std::vector<float> estimate(state.x.size());
  for (size_t j = 0; j < estimate.size(); ++j) estimate[j] = state.x[j] - sigma * velocity[j];
  switch (kind_) {
    case SchedulerKind::UniPC: uniPc(state, estimate); break;
    case SchedulerKind::DpmSolverPP: dpmSolver(state, estimate); break;
    case SchedulerKind::Euler: {
      const float change = schedule_.sigmas[static_cast<size_t>(state.step + 1)] - sigma;
      for (size_t j = 0; j < state.x.size(); ++j) state.x[j] += change * velocity[j];
      break;
    }
  }
  state.estimate2 = std::move(state.estimate1);
  state.estimate1 = std::move(estimate);
  ++state.step;
}

void Scheduler::uniPc(SchedulerState& state, const std::vector<float>& m) const {
  const int64_t i = state.step;
  const auto sigma = [&](int64_t at) { return static_cast<double>(schedule_.sigmas[static_cast<size_t>(at)]); };
  const size_t n = state.x.size();

  // Correct the sample with the estimate just made from it.
  if (i > 0) {
    const double h = lambda(i) - lambda(i - 1), phi = std::expm1(-h), alpha = 1 - sigma(i);
    const double carry = sigma(i) / sigma(i - 1);
    if (state.lastOrder <= 1) {
      for (size_t j = 0; j < n; ++j) {
        const double previous = static_cast<double>(state.estimate1[j]);
        const double base = carry * static_cast<double>(state.predictedFrom[j]) - alpha * phi * previous;
        state.x[j] = static_cast<float>(base - alpha * phi * 0.5 * (static_cast<double>(m[j]) - previous));
      }
    } else {
      const double r = (lambda(i - 2) - lambda(i - 1)) / h;
      const double kappa = phi / -h - 1, b1 = kappa / phi, b2 = 2 * (kappa / -h - 0.5) / phi;
      const double rho0 = (b1 - b2) / (1 - r), rho1 = b1 - rho0;
      for (size_t j = 0; j < n; ++j) {
        const double previous = static_cast<double>(state.estimate1[j]);
        const double base = carry * static_cast<double>(state.predictedFrom[j]) - alpha * phi * previous;
        const double slope = (static_cast<double>(state.estimate2[j]) - previous) / r;
        state.x[j] = static_cast<float>(base - alpha * phi * (rho0 * slope + rho1 * (static_cast<double>(m[j]) - previous)));
      }
    }
  }

  const int64_t order = std::min<int64_t>({2, steps() - i, i + 1});
  state.predictedFrom = state.x;
  state.lastOrder = order;
  if (i + 1 == steps()) {
    state.x = m;  // sigma reaches 0: the estimate is the sample
    return;
  }
  const double h = lambda(i + 1) - lambda(i), phi = std::expm1(-h), alpha = 1 - sigma(i + 1), carry = sigma(i + 1) / sigma(i);
  const double r = order == 2 ? (lambda(i - 1) - lambda(i)) / h : 1;
  for (size_t j = 0; j < n; ++j) {
    double next = carry * static_cast<double>(state.x[j]) - alpha * phi * static_cast<double>(m[j]);
    if (order == 2) next -= alpha * phi * 0.5 * (static_cast<double>(state.estimate1[j]) - static_cast<double>(m[j])) / r;
    state.x[j] = static_cast<float>(next);
  }
}

void Scheduler::dpmSolver(SchedulerState& state, const std::vector<float>& m) const {
  const int64_t i = state.step;
  const auto sigma = [&](int64_t at) { return static_cast<double>(schedule_.sigmas[static_cast<size_t>(at)]); };
  if (i + 1 == steps()) {
    state.x = m;
    return;
  }
  const double alpha = 1 - sigma(i + 1), carry = sigma(i + 1) / sigma(i);
  // From sigma = 1 lambda is minus infinity: h is infinite, phi = -1, and at the next step the second-order term vanishes.
  const bool fromPureNoise = sigma(i) >= 1;
  const double h = fromPureNoise ? std::numeric_limits<double>::infinity() : lambda(i + 1) - lambda(i), phi = std::expm1(-h);
  const bool secondOrder = i > 0 && sigma(i - 1) < 1;
  const double r = secondOrder ? (lambda(i) - lambda(i - 1)) / h : 1;
  for (size_t j = 0; j < state.x.size(); ++j) {
    double next = carry * static_cast<double>(state.x[j]) - alpha * phi * static_cast<double>(m[j]);
    if (secondOrder) next -= 0.5 * alpha * phi * (static_cast<double>(m[j]) - static_cast<double>(state.estimate1[j])) / r;
    state.x[j] = static_cast<float>(next);
  }
}

}  // namespace vmoba
