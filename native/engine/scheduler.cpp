#include "native/engine/scheduler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "native/base/error.h"

namespace vmoba {
namespace {

Tensor sum(Backend& backend, std::initializer_list<Backend::Term> terms) {
  const Tensor out = backend.allocate(DType::F32, terms.begin()->tensor.shape);
  backend.combine(terms, out);
  return out;
}

/// a + factor·b, the product rounded to f32 before it is added.
Tensor addScaled(Backend& backend, const Tensor& a, double factor, const Tensor& b) {
  const Tensor out = sum(backend, {{b, factor}});
  backend.combine(std::initializer_list<Backend::Term>{{a, 1}, {out, 1}}, out);
  return out;
}

}  // namespace

SchedulerState upload(Backend& backend, const StoredState& state, const Shape& latent) {
  const auto onDevice = [&](const std::vector<float>& values) { return values.empty() ? Tensor{} : backend.makeVector(values).reshaped(latent); };
  return {state.step, state.lastOrder, onDevice(state.x), onDevice(state.estimate1), onDevice(state.estimate2), onDevice(state.predictedFrom)};
}

StoredState download(Backend& backend, const SchedulerState& state) {
  const auto onHost = [&](const Tensor& tensor) {
    std::vector<float> values(tensor ? static_cast<size_t>(tensor.elements()) : 0);
    if (tensor) backend.download(tensor, values.data());
    return values;
  };
  return {state.step, state.lastOrder, onHost(state.x), onHost(state.estimate1), onHost(state.estimate2), onHost(state.predictedFrom)};
}

Tensor guide(Backend& backend, const Tensor& conditional, const Tensor& unconditional, float scale) {
  backend.combine(std::initializer_list<Backend::Term>{{conditional, 1}, {unconditional, -1}}, conditional);
  return addScaled(backend, unconditional, static_cast<double>(scale), conditional);
}

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

SchedulerState Scheduler::advance(Backend& backend, const SchedulerState& state, const Tensor& velocity) const {
  const double sigma = static_cast<double>(schedule_.sigmas[static_cast<size_t>(state.step)]);
  SchedulerState next;
  next.step = state.step + 1;
  next.estimate1 = addScaled(backend, state.x, -sigma, velocity);
  next.estimate2 = state.estimate1;
  switch (kind_) {
    case SchedulerKind::UniPC: uniPc(backend, state, next); break;
    case SchedulerKind::DpmSolverPP: dpmSolver(backend, state, next); break;
    case SchedulerKind::Euler: {
      const float change = schedule_.sigmas[static_cast<size_t>(state.step + 1)] - schedule_.sigmas[static_cast<size_t>(state.step)];
      next.x = addScaled(backend, state.x, static_cast<double>(change), velocity);
      break;
    }
  }
  return next;
}

void Scheduler::uniPc(Backend& backend, const SchedulerState& state, SchedulerState& next) const {
  const int64_t i = state.step;
  const auto sigma = [&](int64_t at) { return static_cast<double>(schedule_.sigmas[static_cast<size_t>(at)]); };
  const Tensor &m = next.estimate1, &previous = state.estimate1;

  // Correct the sample with the estimate just made from it.
  next.predictedFrom = state.x;
  if (i > 0) {
    const double h = lambda(i) - lambda(i - 1), phi = std::expm1(-h), scale = (1 - sigma(i)) * phi;
    const double carry = sigma(i) / sigma(i - 1);
    if (state.lastOrder <= 1) {
      next.predictedFrom = sum(backend, {{state.predictedFrom, carry}, {previous, -0.5 * scale}, {m, -0.5 * scale}});
    } else {
      const double r = (lambda(i - 2) - lambda(i - 1)) / h;
      const double kappa = phi / -h - 1, b1 = kappa / phi, b2 = 2 * (kappa / -h - 0.5) / phi;
      const double rho0 = (b1 - b2) / (1 - r), rho1 = b1 - rho0, before = rho0 / r;
      next.predictedFrom = sum(backend, {{state.predictedFrom, carry}, {previous, -scale * (1 - before - rho1)}, {state.estimate2, -scale * before}, {m, -scale * rho1}});
    }
  }

  next.lastOrder = std::min<int64_t>({2, steps() - i, i + 1});
  if (i + 1 == steps()) {
    next.x = m;  // sigma reaches 0: the estimate is the sample
    return;
  }
  const double h = lambda(i + 1) - lambda(i), scale = (1 - sigma(i + 1)) * std::expm1(-h), carry = sigma(i + 1) / sigma(i);
  if (next.lastOrder == 1) {
    next.x = sum(backend, {{next.predictedFrom, carry}, {m, -scale}});
  } else {
    const double slope = 0.5 * h / (lambda(i - 1) - lambda(i));
    next.x = sum(backend, {{next.predictedFrom, carry}, {m, -scale * (1 - slope)}, {previous, -scale * slope}});
  }
}

void Scheduler::dpmSolver(Backend& backend, const SchedulerState& state, SchedulerState& next) const {
  const int64_t i = state.step;
  const auto sigma = [&](int64_t at) { return static_cast<double>(schedule_.sigmas[static_cast<size_t>(at)]); };
  const Tensor& m = next.estimate1;
  if (i + 1 == steps()) {
    next.x = m;
    return;
  }
  // From sigma = 1 lambda is minus infinity: h is infinite, phi = -1, and at the next step the second-order term vanishes.
  const bool fromPureNoise = sigma(i) >= 1, secondOrder = i > 0 && sigma(i - 1) < 1;
  const double h = fromPureNoise ? std::numeric_limits<double>::infinity() : lambda(i + 1) - lambda(i);
  const double scale = (1 - sigma(i + 1)) * std::expm1(-h), carry = sigma(i + 1) / sigma(i);
  if (!secondOrder) {
    next.x = sum(backend, {{state.x, carry}, {m, -scale}});
  } else {
    const double slope = 0.5 * h / (lambda(i) - lambda(i - 1));
    next.x = sum(backend, {{state.x, carry}, {m, -scale * (1 + slope)}, {state.estimate1, scale * slope}});
  }
}

}  // namespace vmoba
