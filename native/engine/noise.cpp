#include "native/engine/noise.h"

#include <cmath>
#include <numbers>

namespace vmoba {

std::array<uint32_t, 4> philox(std::array<uint32_t, 4> counter, std::array<uint32_t, 2> key) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53u} * counter[0], b = uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<uint32_t>(b >> 32) ^ counter[1] ^ key[0], static_cast<uint32_t>(b), static_cast<uint32_t>(a >> 32) ^ counter[3] ^ key[1],
               static_cast<uint32_t>(a)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

std::vector<float> gaussianNoise(uint64_t seed, uint64_t stream, int64_t count) {
  std::vector<float> values(static_cast<size_t>(count));
  const std::array<uint32_t, 2> key{static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)};
  for (int64_t i = 0; i < count; i += 4) {
    const auto block = static_cast<uint64_t>(i / 4);
    const auto bits = philox({static_cast<uint32_t>(block), static_cast<uint32_t>(block >> 32), static_cast<uint32_t>(stream), static_cast<uint32_t>(stream >> 32)}, key);
    // Box-Muller in double: the last bits of log and cos differ between libraries, but vanish in the rounding to float.
    for (size_t pair = 0; pair < 2; ++pair) {
      const double u = (static_cast<double>(bits[2 * pair]) + 0.5) * 0x1p-32, angle = 2 * std::numbers::pi * (static_cast<double>(bits[2 * pair + 1]) + 0.5) * 0x1p-32;
      const double radius = std::sqrt(-2.0 * std::log(u));
      const auto at = static_cast<size_t>(i) + 2 * pair;
      if (at < values.size()) values[at] = static_cast<float>(radius * std::cos(angle));
      if (at + 1 < values.size()) values[at + 1] = static_cast<float>(radius * std::sin(angle));
    }
  }
  return values;
}

}  // namespace vmoba
