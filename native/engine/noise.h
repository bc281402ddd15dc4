// Initial noise from a counter-based generator (Philox4x32-10), so that a seed gives the same latent on every backend,
// operating system and thread count. Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (2011).
#pragma once
#include <array>
#include <cstdint>
#include <vector>

namespace vmoba {

/// One Philox4x32-10 block.
std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key);

/// `count` independent standard normal values for `seed`; value i depends on (seed, stream, i) only.
std::vector<float> gaussianNoise(uint64_t seed, uint64_t stream, int64_t count);

}  // namespace vmoba
