// What a model file or folder is, without loading it: JSON of ModelInspection (main/engine/binding.ts); and what this
// engine and machine are: JSON of EngineDescription.
#pragma once
#include <string>

#include "native/base/json.h"

namespace vmoba {

Json inspectModel(const std::string& path);
Json describeEngine();

}  // namespace vmoba
