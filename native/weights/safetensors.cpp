#include "native/weights/safetensors.h"

#include <algorithm>
#include <optional>

#include "native/base/error.h"
#include "native/base/json.h"

namespace vmoba {

namespace {

// Far above any real checkpoint (about 1300 tensors, names under 100 bytes, headers under 1 MB), and small enough that
// a hostile header cannot make the reader use much memory or time.
constexpr uint64_t maximumHeaderBytes = 16u << 20;
constexpr size_t maximumTensors = 1u << 17;
constexpr size_t maximumNameBytes = 512;
constexpr size_t maximumRank = 8;

[[noreturn]] void fail(const std::string& file, std::string_view tensor, const std::string& reason) {
  throw Error(ErrorCode::BadModelFile, file + ": " + printable(tensor) + ": " + reason, std::string(tensor));
}

uint64_t readLittleEndian64(std::span<const std::byte> bytes) {
  uint64_t value = 0;
  for (int i = 7; i >= 0; --i) value = (value << 8) | std::to_integer<uint64_t>(bytes[static_cast<size_t>(i)]);
  return value;
}

std::optional<DType> dtypeFromName(std::string_view name) {
  for (const DType type : {DType::F32, DType::F16, DType::BF16, DType::F8E4M3, DType::I64, DType::I32, DType::U8, DType::Bool, DType::F64})
    if (name == dtypeName(type)) return type;
  return std::nullopt;
}

Json parseJson(std::string_view text, const std::string& file, std::string_view part) {
  try {
    return Json::parse(text, 16);
  } catch (const Error& error) {
    fail(file, part, error.what());
  }
}

SafetensorsEntry parseEntry(const std::string& name, const Json& value, uint64_t dataStart, uint64_t dataBytes, const std::string& file) {
  if (name.empty() || name.size() > maximumNameBytes) fail(file, name, "a tensor's name must have 1 to " + std::to_string(maximumNameBytes) + " bytes");
  if (!value.isObject()) fail(file, name, "its entry in the header is not an object");
  SafetensorsEntry entry;
  entry.name = name;

  const Json* dtype = value.find("dtype");
  if (!dtype || !dtype->isString()) fail(file, name, "its entry has no dtype");
  const auto type = dtypeFromName(dtype->asString());
  if (!type) fail(file, name, "element type '" + printable(dtype->asString()) + "' is not supported");
  entry.dtype = *type;

  const Json* shape = value.find("shape");
  if (!shape || !shape->isArray()) fail(file, name, "its entry has no shape");
  if (shape->asArray().size() > maximumRank) fail(file, name, "has more than " + std::to_string(maximumRank) + " axes");
  for (const Json& extent : shape->asArray()) {
    if (!extent.isInteger() || extent.asInteger() < 0) fail(file, name, "its shape holds something other than non-negative whole numbers");
    entry.shape.push_back(extent.asInteger());
  }
  int64_t elements = 0;
  if (!elementCount(entry.shape, elements)) fail(file, name, "shape " + shapeText(entry.shape) + " overflows");

  const Json* offsets = value.find("data_offsets");
  if (!offsets || !offsets->isArray() || offsets->asArray().size() != 2 || !offsets->asArray()[0].isInteger() || !offsets->asArray()[1].isInteger())
    fail(file, name, "its entry has no pair of data_offsets");
  const int64_t begin = offsets->asArray()[0].asInteger();
  const int64_t end = offsets->asArray()[1].asInteger();
  if (begin < 0 || end < begin) fail(file, name, "data offsets " + std::to_string(begin) + " to " + std::to_string(end) + " are not a range");
  if (static_cast<uint64_t>(end) > dataBytes)
    fail(file, name, "data end at byte " + std::to_string(end) + " but the file holds only " + std::to_string(dataBytes) + " bytes of data (truncated?)");
  const auto size = static_cast<uint64_t>(elementBytes(entry.dtype));
  const auto span = static_cast<uint64_t>(end - begin);
  if (static_cast<uint64_t>(elements) > UINT64_MAX / size || static_cast<uint64_t>(elements) * size != span)
    fail(file, name, "shape " + shapeText(entry.shape) + " of " + dtypeName(entry.dtype) + " does not match its " + std::to_string(span) + " bytes of data");
  entry.begin = static_cast<size_t>(dataStart + static_cast<uint64_t>(begin));
  entry.end = static_cast<size_t>(dataStart + static_cast<uint64_t>(end));
  return entry;
}

}  // namespace

bool elementCount(std::span<const int64_t> shape, int64_t& count) {
  constexpr int64_t limit = int64_t{1} << 62;
  bool empty = false;
  count = 1;
  for (const int64_t extent : shape) {
    if (extent < 0 || extent > limit) return false;
    if (extent == 0) {
      empty = true;
      continue;
    }
    if (count > limit / extent) return false;
    count *= extent;
  }
  if (empty) count = 0;
  return true;
}

std::string printable(std::string_view text) {
  std::string out;
  for (const char c : text.substr(0, 120)) out.push_back(static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c);
  if (text.size() > 120) {
    while (!out.empty() && (static_cast<unsigned char>(out.back()) & 0xc0u) == 0x80u) out.pop_back();  // no half character
    if (!out.empty() && static_cast<unsigned char>(out.back()) >= 0xc0u) out.pop_back();
    out += "...";
  }
  return out;
}

std::string shapeText(std::span<const int64_t> shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i) {
    if (i) out += ", ";
    out += shape[i] == -1 ? "any" : std::to_string(shape[i]);
  }
  return out + "]";
}

SafetensorsHeader parseSafetensors(std::span<const std::byte> file, const std::string& fileName) {
  constexpr std::string_view header = "header";
  if (file.size() < 8) fail(fileName, header, "the file has " + std::to_string(file.size()) + " bytes, too few for a safetensors file");
  const uint64_t headerBytes = readLittleEndian64(file.first(8));
  if (headerBytes > file.size() - 8)
    fail(fileName, header, "is said to have " + std::to_string(headerBytes) + " bytes, more than the file (" + std::to_string(file.size()) + " bytes) holds");
  if (headerBytes > maximumHeaderBytes) fail(fileName, header, std::to_string(headerBytes) + " bytes exceed the limit of " + std::to_string(maximumHeaderBytes));
  const std::string_view text(reinterpret_cast<const char*>(file.data()) + 8, static_cast<size_t>(headerBytes));
  if (text.empty() || text.front() != '{') fail(fileName, header, "does not start with '{'");
  const Json json = parseJson(text, fileName, header);

  SafetensorsHeader out;
  const uint64_t dataStart = 8 + headerBytes;
  const uint64_t dataBytes = file.size() - dataStart;
  if (json.asObject().size() > maximumTensors) fail(fileName, header, "lists more than " + std::to_string(maximumTensors) + " tensors");
  for (const auto& [name, value] : json.asObject()) {
    if (name != "__metadata__") {
      out.tensors.push_back(parseEntry(name, value, dataStart, dataBytes, fileName));
      continue;
    }
    if (!value.isObject()) fail(fileName, name, "is not an object");
    for (const auto& [key, entry] : value.asObject()) {
      if (!entry.isString()) fail(fileName, name, "'" + printable(key) + "' is not a text");
      out.metadata.emplace(key, entry.asString());
    }
  }

  std::sort(out.tensors.begin(), out.tensors.end(), [](const SafetensorsEntry& a, const SafetensorsEntry& b) {
    return a.begin != b.begin ? a.begin < b.begin : a.end != b.end ? a.end < b.end : a.name < b.name;
  });
  size_t reached = static_cast<size_t>(dataStart);
  const SafetensorsEntry* previous = nullptr;
  for (const SafetensorsEntry& entry : out.tensors) {
    if (entry.begin < reached) fail(fileName, entry.name, "its data overlap those of " + printable(previous->name));
    if (entry.begin > reached) fail(fileName, entry.name, std::to_string(entry.begin - reached) + " unused bytes lie before its data");
    reached = entry.end;
    previous = &entry;
  }
  if (reached != file.size()) fail(fileName, header, std::to_string(file.size() - reached) + " bytes behind the last tensor belong to none");
  return out;
}

std::map<std::string, std::string> parseShardIndex(std::string_view text, const std::string& fileName) {
  if (text.size() > maximumHeaderBytes) fail(fileName, "index", "is larger than " + std::to_string(maximumHeaderBytes) + " bytes");
  const Json json = parseJson(text, fileName, "index");
  const Json* map = json.find("weight_map");
  if (!map || !map->isObject()) fail(fileName, "index", "has no object 'weight_map'");
  if (map->asObject().empty()) fail(fileName, "index", "lists no tensor");
  if (map->asObject().size() > maximumTensors) fail(fileName, "index", "lists more than " + std::to_string(maximumTensors) + " tensors");
  std::map<std::string, std::string> shards;
  for (const auto& [name, value] : map->asObject()) {
    if (name.empty() || name.size() > maximumNameBytes) fail(fileName, name, "a tensor's name must have 1 to " + std::to_string(maximumNameBytes) + " bytes");
    if (!value.isString()) fail(fileName, name, "its shard is not a text");
    const std::string& shard = value.asString();
    const bool plain = !shard.empty() && shard.size() <= 255 && shard.find_first_of(std::string_view("/\\:\0", 4)) == std::string::npos && shard != "." && shard != "..";
    if (!plain) fail(fileName, name, "shard '" + printable(shard) + "' is not a plain file name in the index's folder");
    if (!shard.ends_with(".safetensors")) fail(fileName, name, "shard '" + printable(shard) + "' is not a .safetensors file");
    shards.emplace(name, shard);
  }
  return shards;
}

}  // namespace vmoba
