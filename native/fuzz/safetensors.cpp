// A file as it is (first byte even), or a header text and, after 0xff, its data, put together with the right length
// (first byte odd), which gets mutations past the first eight bytes. Accepted files are read to the last element.
#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/fuzz/check.h"
#include "native/weights/checkpoint_reader.h"

using namespace vmoba;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] & 1) {
    const size_t end = std::min(bytes.find('\xff'), bytes.size());
    const auto length = static_cast<uint64_t>(end);
    std::string file(8, '\0');
    std::memcpy(file.data(), &length, sizeof length);
    bytes = file + bytes.substr(0, end) + (end < bytes.size() ? bytes.substr(end + 1) : std::string());
  }
  // Exactly as large as the file, so that reading one byte too far is an error AddressSanitizer sees.
  const auto whole = std::as_bytes(std::span<const char>(bytes));
  const auto owner = std::make_shared<std::vector<std::byte>>(whole.begin(), whole.end());
  try {
    CheckpointReader reader("m.safetensors");
    reader.add("m.safetensors", *owner, owner);
    const Checkpoint checkpoint = reader.finish();
    for (const auto& [name, tensor] : checkpoint.tensors()) {
      fuzz::check(tensor.data >= owner->data() && tensor.data + tensor.bytes <= owner->data() + owner->size(), "a tensor lies inside its file");
      fuzz::check(static_cast<size_t>(tensor.elements()) * elementBytes(tensor.dtype) == tensor.bytes, "a tensor has the bytes of its shape");
      fuzz::check(tensor.toFloat().size() == static_cast<size_t>(tensor.elements()), "a tensor converts");
    }
    checkpoint.expect(checkpoint.kind(), {"head.modulation"}, true);
  } catch (const Error& error) {
    fuzz::checkRefusal(error, ErrorCode::BadModelFile);
  }
  return 0;
}
