#pragma once
#include <functional>
#include "native/base/json.h"
namespace vmoba { Json benchAttention(const Json& options, const std::function<void(const Json&)>& progress); }
