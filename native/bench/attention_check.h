// Whether a device's attention is right, on inputs of any size: a few rows of its output against double precision.
#pragma once
#include <vector>

#include "native/bench/attention_runner.h"

namespace vmoba {

/// Largest errors against softmax attention in double over the call's own operands and selection, on evenly spread rows of every head.
struct Accuracy {
  double error = 0;
  double allowed = 0;  ///< twice the error of plain arithmetic of the same precision (bf16: rounded weights and result)
  bool holds() const { return error <= allowed && allowed < 1e30; }
};

/// Runs `call` once more, with a probe.
Accuracy checkAttention(AttentionRunner& runner, AttentionRunner::Call call, int rows = 24);

}  // namespace vmoba
