// Any text as *.safetensors.index.json: refused, or every shard is a plain file name of the same folder.
#include <cstddef>
#include <cstdint>
#include <filesystem>

#include "native/fuzz/check.h"
#include "native/weights/safetensors.h"

using namespace vmoba;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    for (const auto& [tensor, shard] : parseShardIndex({reinterpret_cast<const char*>(data), size}, "m.index.json")) {
      const std::filesystem::path joined = (std::filesystem::path("/models/wan") / shard).lexically_normal();
      fuzz::check(joined.parent_path() == "/models/wan" && shard.find('\0') == std::string::npos, "a shard lies in the index's folder");
    }
  } catch (const Error& error) {
    fuzz::checkRefusal(error, ErrorCode::BadModelFile);
  }
  return 0;
}
