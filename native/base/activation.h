// What may follow a matrix product, element by element.
#pragma once
#include <cstdint>

namespace vmoba {

enum class Activation : uint8_t { None, GeluTanh, GeluErf, Silu };

}  // namespace vmoba
