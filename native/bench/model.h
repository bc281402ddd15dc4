// `bench model`: seconds per forward pass of a transformer of a given shape with random weights, split by kind of work.
#pragma once
#include <functional>

#include "native/base/json.h"

namespace vmoba {

/// Options (all optional): model (folder; default: random weights of `preset` made under `scratch`), preset ("1.3b"), grid [t,h,w] or
/// tokens (2550, 7800, 32760, 75600), layers (0 = all), policies (list of policy JSON or names), backend (cpu, cuda), precision, threads, repeats,
/// warmUp (true: a pass before each policy that is not counted). Seconds are wall clock; processorSeconds are of all threads, for machines
/// that others use too, and show threads that spin. `ceiling`: the speed-up over dense that the FLOPs allow at the measured density.
Json benchModel(const Json& options, const std::function<void(const Json&)>& progress);

}  // namespace vmoba
