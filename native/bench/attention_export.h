// One measured selection as a file, for whatever else can attend: operands, plan, selection, our output and our times.
#pragma once
#include <string>

#include "native/bench/attention_runner.h"

namespace vmoba {

/// Runs `call` once more with a probe and writes a safetensors file: q, k, v BF16 [H, S, D] after norm and RoPE and out BF16 [S, H·D], both in
/// raster order; where the call has a plan also permutation I32 [S] and start I32 [C+1] as in BlockPlan, never empty, and selection U8
/// [C, H, S] by permuted position, own block included. `facts` becomes the JSON text under "attention" in the metadata. Error{Io}.
void exportAttention(const std::string& path, AttentionRunner& runner, AttentionRunner::Call call, const Json& facts);

}  // namespace vmoba
