// `bench render`: one whole render, text encoder to decoded frames, as the app's host process runs it, with its time by phase and kind.
#pragma once
#include <functional>

#include "native/base/json.h"

namespace vmoba {

/// Options (all optional): model (folder; default: a random model of `preset` made under `scratch`), preset ("1.3b"), layers, textLayers
/// (of that random model), tokenizer (resources/models/nano/spiece.model); width, height, frames, steps, guidanceScale, shift, scheduler
/// (default: what model.json says), seed (0), prompt, negativePrompt; policy ("vmoba-training-free": policy JSON or a preset's name),
/// denseSteps (a named sparse policy's share or count of dense steps: 0.25 for vmoba-training-free, as in the app); backend (cpu, cuda),
/// precision, threads, memoryLimitBytes, runAnyway; preview (false: a preview after every step).
///
/// Frames are decoded, counted and hashed, not encoded. On a GPU weights are copied behind the work that follows: what is left of that
/// counts as text. `mixedSpeedup`: steps of the dense steps' median over the steps there were; null where no step was dense.
/// `poolPeakBytes` is the most in use, `poolHeldPeakBytes` the most taken from the device, kept blocks included (the CUDA context and
/// libraries come on top); *Sampling: until the last step.
Json benchRender(const Json& options, const std::function<void(const Json&)>& progress);

}  // namespace vmoba
