// Element functions a kernel can apply on its way out.
#pragma once
#include <cstdint>

namespace vmoba::cuda {
enum class Function : int32_t { None, GeluTanh, GeluErf, Silu };
}
