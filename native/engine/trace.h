// A tap on intermediate tensors, for verification only. Names follow the fixtures ("block0.self_attn", "time_embedding", ...).
#pragma once
#include <functional>
#include <string>

#include "native/backends/backend.h"

namespace vmoba {
using Trace = std::function<void(const std::string& name, const Tensor& tensor)>;
}
