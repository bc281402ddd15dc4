#include "kernels/cpu/product.h"

#include <algorithm>
#include <vector>

#include "kernels/cpu/arena.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/product_targets.h"
#include "kernels/cpu/tile_targets.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {
namespace {

/// What one thread works in.
struct Scratch {
  uint16_t* packed;
  float *square, *sums;

  Scratch(Arena& arena, int64_t outputs, int64_t inputs)
      : packed(arena.take<uint16_t>(kBlockRows * std::min(inputs, kBlockInputs))),
        square(arena.take<float>(kSquare * kSquare)),
        sums(arena.take<float>((inputs > kBlockInputs ? std::min(partsOf(outputs, kSquare), kMostPanels) : 1) * kBlockRows * kSquare)) {}
};

}  // namespace

bool hasProduct([[maybe_unused]] int64_t inputs) {
#if defined(VMOBA_AMX)
  static const bool available = amx::available();
  return available && inputs > 0 && inputs % kStepInputs == 0;
#else
  return false;
#endif
}

size_t packedProductBytes(int64_t outputs, int64_t inputs) { return static_cast<size_t>(partsOf(outputs, kSquare) * kSquare * inputs) * sizeof(Bf16); }

void packProductWeights(const Bf16* rows, int64_t outputs, int64_t inputs, std::byte* packed) {
  constexpr int32_t kGroup = 16;  // outputs side by side, in pairs of inputs
  parallelForDynamic(partsOf(outputs, kSquare), [&](int64_t panel) {
    auto* to = reinterpret_cast<Bf16*>(packed) + panel * kSquare * inputs;
    for (int64_t input = 0; input < inputs; input += kStepInputs)
      for (int64_t output = panel * kSquare; output < (panel + 1) * kSquare; output += kGroup, to += kStepElements / 2) {
        const auto count = static_cast<int32_t>(std::clamp<int64_t>(outputs - output, 0, kGroup));
        packKeyGroup(rows + std::min(output, outputs - 1) * inputs + input, inputs, count, kGroup, kStepInputs / 2, 2, to);
      }
  });
}

size_t productScratchBytes(int64_t outputs, int64_t inputs, int threads) {
  Arena sizes;
  for (int t = 0; t < threads; ++t) Scratch(sizes, outputs, inputs);
  return sizes.bytes();
}

void multiplyMatrices(const Product& job, std::span<std::byte> scratch) {
#if defined(VMOBA_AMX)
  if (job.rows == 0 || job.outputs == 0) return;
  Arena arena(scratch);
  std::vector<Scratch> scratches;
  for (int t = 0; t < threadCount(); ++t) scratches.emplace_back(arena, job.outputs, job.inputs);
  // Few rows are shared out by columns, too, so that every thread gets several blocks.
  const int64_t panels = partsOf(job.outputs, kSquare), rowBlocks = partsOf(job.rows, kBlockRows);
  const int64_t parts = std::min(panels, std::max(partsOf(4 * threadCount(), rowBlocks), job.inputs > kBlockInputs ? partsOf(panels, kMostPanels) : 1));
  parallelForDynamic(rowBlocks * parts, [&](int64_t task) {
    const Scratch& own = scratches[static_cast<size_t>(threadIndex())];
    const int64_t block = task / parts, part = task % parts;
    amx::multiplyBlock({job, block * kBlockRows, std::min(job.rows, (block + 1) * kBlockRows), panels * part / parts, panels * (part + 1) / parts,
                        own.packed, own.square, own.sums});
  });
#else
  static_cast<void>(job), static_cast<void>(scratch);
#endif
}

}  // namespace vmoba::cpu
