// `bench attention`: dense and block-sparse self-attention on one device, against the published algorithm and a library.
#pragma once
#include <functional>

#include "native/base/json.h"

namespace vmoba {

/// Options (all optional): backend (cpu; cuda, a device's id); grid [t,h,w] or tokens (7800, 32760, 75600); heads (2), headDim (128);
/// precision (auto, bf16, f32); threads; repeats (2); densities (0.13, 0.19, 0.26, 0.31, 0.5 for the first data, the middle three for the
/// rest); data (["captured", "smooth", "random"]; captured needs `model`, a model folder); captureGrid ([5,15,26]), captureLayer (the
/// middle); rivals (true; CPU only): the published algorithm and oneDNN beside it; clock ("wall", or "cpu" = processor seconds per thread,
/// for machines that others use too; a device is timed by its own events); export, a folder: what the first data's selections took in and
/// gave, one file per partition at exportDensity, or at each of `densities`, or at 0.25 (attention_export.h; scripts/lib/torch_rival.py).
/// Each row: efficiency = dense seconds · density / seconds, routing included. A row is void unless dense itself reached 65 % (bf16) or
/// 85 % (f32) of the library's matrix rate in the same run (oneDNN's; on a GPU cuBLASLt's, or our own products' where it is missing).
/// On a device, rows of the first data's outputs are compared with double precision first; `accurate` is false where they err too much.
Json benchAttention(const Json& options, const std::function<void(const Json&)>& progress);

}  // namespace vmoba
