// `bench model`: seconds per forward pass of a transformer of a given shape with random weights, split by kind of work.
#pragma once
#include <functional>

#include "native/base/json.h"

namespace vmoba {

/// Options (all optional): model (folder; default: random weights of `preset` made under `scratch`), preset ("1.3b"; "14b", "nano", "tiny"),
/// grid [t,h,w] or tokens (2550, 7800, 32760, 75600), layers (0 = all), policies (list of policy JSON or names), backend (cpu, cuda),
/// precision, threads, repeats, warmUp (true: a pass before each policy that is not counted), branches (1; 2 as in guided renders: they
/// share each layer that is streamed), stream (false; true: weights come from the host's memory layer by layer in every pass, never more
/// than two layers on the device; "both": first resident, then streamed, whose rows have `streamSlowdown` over the resident row),
/// denseShare (0.25: the share of dense steps in `mixedSpeedup`, the speed-up over dense of a render that mixes both kinds of steps).
///
/// Seconds are wall clock; processorSeconds are of all threads, for machines that others use too, and show threads that spin.
/// `ceiling`: the speed-up over dense that the FLOPs allow at the measured density. `poolPeakBytes` is the row's own (what earlier rows
/// left in the pool may serve, up to an eighth too large), `peakResidentBytes` the process's so far.
Json benchModel(const Json& options, const std::function<void(const Json&)>& progress);

}  // namespace vmoba
