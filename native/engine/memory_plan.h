// Peak bytes of each phase of a render, computed from shapes before any work, and the choices that follow: weights resident
// or streamed layer by layer, both guidance branches together or one after the other, VAE decode whole or tiled.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>

#include "native/engine/dit.h"
#include "native/engine/request.h"

namespace vmoba {

struct MemoryPlan {
  size_t weights = 0;   ///< transformer weights held while sampling
  size_t encoding = 0, sampling = 0, decoding = 0;  ///< peaks of the phases, weights included where they are held
  size_t peak = 0;
  bool streamWeights = false;
  bool sequentialBranches = false;
  int64_t decodeTile = 0;  ///< latent rows/columns per tile; 0 = whole frames
  bool fits = true;
};

/// `limitBytes` 0 = no limit. Tries the fastest plan first and falls back step by step.
MemoryPlan planMemory(const RenderRequest& request, const Checkpoint& dit, const Checkpoint& vae, const Checkpoint& textEncoder, Precision precision,
                      int threads, size_t limitBytes);

/// The next smaller way to sample when memory ran out all the same (other programs hold some): branches one after the other,
/// then weights streamed. `how` says in words what changes; false when nothing smaller is left.
bool shrinkSampling(MemoryPlan& plan, bool guided, std::string* how);
/// The next smaller tile to decode in; false when nothing smaller is left.
bool shrinkDecoding(MemoryPlan& plan, const Shape& latent);

/// Floating-point operations of one guided step and of the decode.
struct FlopCount {
  double linears = 0, attentionDense = 0, attentionPolicy = 0, text = 0, decode = 0;
};
FlopCount countFlops(const RenderRequest& request, const DitConfig& dit, const Checkpoint& vae, double meanDensity);

}  // namespace vmoba
