#include "native/weights/checkpoint.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <filesystem>
#include <set>
#include <string_view>

#include "native/base/error.h"
#include "native/weights/checkpoint_reader.h"
#include "native/weights/mapped_file.h"
#include "native/weights/safetensors.h"

namespace vmoba {

static_assert(std::endian::native == std::endian::little, "weights are little-endian and read in place");

namespace {

namespace fs = std::filesystem;

[[noreturn]] void fail(const std::string& file, std::string_view tensor, const std::string& reason) {
  throw Error(ErrorCode::BadModelFile, file + ": " + printable(tensor) + ": " + reason, std::string(tensor));
}

// Data may lie at any address: every element goes through memcpy.
template <class Stored, class Convert>
void convert(const std::byte* from, std::span<float> out, const Convert& toNumber) {
  for (size_t i = 0; i < out.size(); ++i) {
    Stored value;
    std::memcpy(&value, from + i * sizeof(Stored), sizeof(Stored));
    out[i] = toNumber(value);
  }
}

const std::array<float, 256>& fp8Table() {
  static const std::array<float, 256> table = [] {
    std::array<float, 256> values{};
    for (size_t i = 0; i < values.size(); ++i) values[i] = fp8E4M3ToFloat(static_cast<uint8_t>(i));
    return values;
  }();
  return table;
}

fs::path fromUtf8(const std::string& path) { return {reinterpret_cast<const char8_t*>(path.c_str())}; }
std::string toUtf8(const fs::path& path) {
  const auto text = path.u8string();
  return {reinterpret_cast<const char*>(text.data()), text.size()};
}

bool isPickleName(std::string_view name) {
  for (const std::string_view suffix : {".pth", ".pt", ".ckpt", ".bin"})
    if (name.ends_with(suffix)) return true;
  return false;
}

[[noreturn]] void refusePickle(const std::string& path) {
  fail(path, "file",
       "is a Python pickle, which can run any program when read and is never opened here; use a safetensors repackaging instead "
       "(Hugging Face: Comfy-Org/Wan_2.1_ComfyUI_repackaged, or the Wan-AI/...-Diffusers repositories)");
}

void refuseOtherFormats(const std::string& path, std::span<const std::byte> bytes) {
  const std::string_view start(reinterpret_cast<const char*>(bytes.data()), std::min<size_t>(bytes.size(), 64));
  // Zip archives (newer torch files) and pickle protocol 2 to 5 (older ones), whatever the file is called. A header
  // length starting with these bytes would be legal, but then a '{' follows at byte 8.
  const bool safetensors = start.size() > 8 && start[8] == '{';
  if (safetensors) return;
  if (start.starts_with("PK\x03\x04") || (start.size() > 2 && start[0] == '\x80' && start[1] >= 2 && start[1] <= 5)) refusePickle(path);
  if (start.starts_with("GGUF")) fail(path, "file", "is a GGUF file, which is not supported here; use a safetensors file");
  if (start.starts_with("version https://git-lfs")) fail(path, "file", "is only a Git LFS pointer; fetch the real file with 'git lfs pull'");
}

void addFile(CheckpointReader& reader, const std::string& path) {
  if (isPickleName(path)) refusePickle(path);
  const auto file = MappedFile::open(path);
  refuseOtherFormats(path, file->bytes());
  reader.add(path, file->bytes(), file);
}

Checkpoint openSharded(const std::string& path) {
  CheckpointReader reader(path);
  const auto index = MappedFile::open(path);
  const std::string_view text(reinterpret_cast<const char*>(index->bytes().data()), index->bytes().size());
  const auto shards = parseShardIndex(text, path);
  const fs::path folder = fromUtf8(path).parent_path();
  std::set<std::string> opened;
  for (const auto& [tensor, shard] : shards) {
    const std::string file = toUtf8(folder / fromUtf8(shard));
    if (opened.insert(shard).second) {
      std::error_code ignored;
      if (!fs::exists(fromUtf8(file), ignored)) fail(path, tensor, "its shard " + printable(shard) + " is missing");
      addFile(reader, file);
    }
    if (!reader.holds(file, tensor)) fail(path, tensor, "is not in " + printable(shard) + ", where the index says it is");
  }
  return reader.finish();
}

// The one index or the one safetensors file of a folder.
std::string fileInFolder(const std::string& path) {
  std::vector<std::string> indexes;
  std::vector<std::string> files;
  std::string pickle;
  std::error_code failed;
  for (fs::directory_iterator at(fromUtf8(path), failed), end; !failed && at != end; at.increment(failed)) {
    const std::string name = toUtf8(at->path().filename());
    if (name.ends_with(".safetensors.index.json")) indexes.push_back(toUtf8(at->path()));
    if (name.ends_with(".safetensors")) files.push_back(toUtf8(at->path()));
    if (isPickleName(name) && (pickle.empty() || name < pickle)) pickle = name;
  }
  if (failed) throw Error(ErrorCode::Io, path + ": cannot be listed: " + failed.message());
  const auto& found = indexes.empty() ? files : indexes;
  if (found.size() == 1) return found.front();
  if (found.size() > 1)
    fail(path, "folder", "holds " + std::to_string(found.size()) + (indexes.empty() ? " .safetensors files and no index" : " indexes") + "; name the one to open");
  if (!pickle.empty()) refusePickle(toUtf8(fromUtf8(path) / fromUtf8(pickle)));
  fail(path, "folder", "holds no .safetensors file");
}

std::string firstFive(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < 5; ++i) out += (i ? ", " : "") + printable(names[i]);
  if (names.size() > 5) out += " and " + std::to_string(names.size() - 5) + " more";
  return out;
}

const char* markerTensor(ModelKind kind) {
  switch (kind) {
    case ModelKind::WanDit: return "head.modulation";
    case ModelKind::WanVae: return "decoder.conv1.weight";
    case ModelKind::Umt5: return "token_embedding.weight";
    case ModelKind::Unknown: break;
  }
  return "file";
}

}  // namespace

int64_t WeightView::elements() const {
  int64_t count = 0;
  if (!elementCount(shape, count)) throw Error(ErrorCode::Internal, file + ": " + name + ": shape " + shapeText(shape) + " overflows");
  return count;
}

void WeightView::toFloat(std::span<float> out) const {
  if (out.size() != static_cast<size_t>(elements()))
    throw Error(ErrorCode::Internal, file + ": " + name + ": converted into " + std::to_string(out.size()) + " numbers, has " + std::to_string(elements()));
  switch (dtype) {
    case DType::F32:
      if (!out.empty()) std::memcpy(out.data(), data, out.size_bytes());
      break;
    case DType::F16: convert<F16>(data, out, [](F16 v) { return vmoba::toFloat(v); }); break;
    case DType::BF16: convert<Bf16>(data, out, [](Bf16 v) { return vmoba::toFloat(v); }); break;
    case DType::F8E4M3: {
      const auto& table = fp8Table();
      convert<uint8_t>(data, out, [&](uint8_t v) { return table[v]; });
      break;
    }
    case DType::F64: convert<double>(data, out, [](double v) { return static_cast<float>(v); }); break;
    case DType::I64: convert<int64_t>(data, out, [](int64_t v) { return static_cast<float>(v); }); break;
    case DType::I32: convert<int32_t>(data, out, [](int32_t v) { return static_cast<float>(v); }); break;
    case DType::U8: convert<uint8_t>(data, out, [](uint8_t v) { return static_cast<float>(v); }); break;
    case DType::Bool: convert<uint8_t>(data, out, [](uint8_t v) { return v ? 1.0f : 0.0f; }); break;
  }
  if (scale != 1)
    for (float& value : out) value *= scale;
}

std::vector<float> WeightView::toFloat() const {
  std::vector<float> out(static_cast<size_t>(elements()));
  toFloat(out);
  return out;
}

void WeightView::release() const noexcept { MappedFile::release(data, bytes); }

Checkpoint Checkpoint::open(const std::string& path) {
  std::error_code ignored;
  const std::string file = fs::is_directory(fromUtf8(path), ignored) ? fileInFolder(path) : path;
  if (file.ends_with(".index.json")) return openSharded(file);
  CheckpointReader reader(file);
  addFile(reader, file);
  return reader.finish();
}

const WeightView* Checkpoint::find(const std::string& canonicalName) const {
  const auto found = tensors_.find(canonicalName);
  return found == tensors_.end() ? nullptr : &found->second;
}

const WeightView& Checkpoint::require(const std::string& canonicalName, const std::vector<int64_t>& shape) const {
  const WeightView* found = find(canonicalName);
  if (!found) fail(path_, canonicalName, "is missing");
  if (shape.empty()) return *found;
  bool matches = shape.size() == found->shape.size();
  for (size_t i = 0; matches && i < shape.size(); ++i) matches = shape[i] == -1 || shape[i] == found->shape[i];
  if (!matches) fail(found->file, canonicalName, "has shape " + shapeText(found->shape) + " where " + shapeText(shape) + " is needed");
  return *found;
}

size_t Checkpoint::totalBytes() const {
  size_t total = 0;
  for (const auto& [name, tensor] : tensors_) total += tensor.bytes;
  return total;
}

void Checkpoint::expect(ModelKind kind, const std::vector<std::string>& requiredNames, bool refuseExtra) const {
  if (kind_ != kind)
    fail(path_, markerTensor(kind_), std::string("the file holds ") + modelKindName(kind_) + ", but " + modelKindName(kind) + " is needed");
  const std::set<std::string_view> required(requiredNames.begin(), requiredNames.end());
  std::vector<std::string> missing;
  std::vector<std::string> extra;
  for (const std::string& name : requiredNames)
    if (!find(name)) missing.push_back(name);
  if (refuseExtra)
    for (const auto& [name, tensor] : tensors_)
      if (!required.contains(name) && name != "spiece_model") extra.push_back(name);  // ComfyUI ships the tokeniser inside
  if (missing.empty() && extra.empty()) return;
  std::string reason;
  if (!missing.empty()) reason = std::to_string(missing.size()) + " missing (" + firstFive(missing) + ")";
  if (!extra.empty()) reason += (missing.empty() ? "" : ", ") + std::to_string(extra.size()) + " unexpected (" + firstFive(extra) + ")";
  fail(path_, missing.empty() ? extra.front() : missing.front(), "the tensors are not those of " + std::string(modelKindName(kind)) + ": " + reason);
}

const char* modelKindName(ModelKind kind) {
  switch (kind) {
    case ModelKind::WanDit: return "a Wan DiT";
    case ModelKind::WanVae: return "a Wan VAE";
    case ModelKind::Umt5: return "a umT5 text encoder";
    case ModelKind::Unknown: break;
  }
  return "no known model";
}

}  // namespace vmoba
