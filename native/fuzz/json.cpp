// Any text: refused with BadRequest, or what is written from it reads back as the same document.
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "native/base/json.h"
#include "native/fuzz/check.h"

using namespace vmoba;

namespace {

// The writer gives whole doubles without a point, so they come back as integers: another kind (-0 loses its sign), or,
// beyond 64 bits, a refusal. Documents with such numbers keep only the promise of no memory error.
bool holdsWholeDouble(const Json& json) {
  if (json.isNumber() && !json.isInteger()) return json.asNumber() == std::trunc(json.asNumber());
  if (json.isArray())
    for (const Json& value : json.asArray())
      if (holdsWholeDouble(value)) return true;
  if (json.isObject())
    for (const auto& [name, value] : json.asObject())
      if (holdsWholeDouble(value)) return true;
  return false;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  Json json;
  try {
    json = Json::parse({reinterpret_cast<const char*>(data), size});
  } catch (const Error& error) {
    fuzz::checkRefusal(error, ErrorCode::BadRequest);
    return 0;
  }
  const std::string text = json.dump();
  if (!holdsWholeDouble(json)) fuzz::check(Json::parse(text).dump() == text, "a written document reads back the same");
  return 0;
}
