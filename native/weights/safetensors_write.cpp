// Writing safetensors files: the header is known before the data, so the data can stream.
#include <algorithm>
#include <set>

#include "native/base/error.h"
#include "native/base/json.h"
#include "native/weights/atomic_file.h"
#include "native/weights/safetensors.h"

namespace vmoba {

void writeSafetensorsStreaming(const std::string& path, std::vector<TensorSource> tensors, const std::map<std::string, std::string>& metadata, bool durable) {
  std::stable_sort(tensors.begin(), tensors.end(),
                   [](const TensorSource& a, const TensorSource& b) { return elementBytes(a.dtype) > elementBytes(b.dtype); });
  Json::Object header;
  if (!metadata.empty()) {
    Json::Object texts;
    for (const auto& [key, value] : metadata) texts.emplace_back(key, Json(value));
    header.emplace_back("__metadata__", Json(std::move(texts)));
  }
  std::vector<int64_t> sizes;
  std::set<std::string> names;
  int64_t end = 0;
  for (const TensorSource& tensor : tensors) {
    int64_t elements = 0;
    if (!elementCount(tensor.shape, elements) || elements > INT64_MAX / 16 - end)
      throw Error(ErrorCode::Internal, path + ": " + tensor.name + ": shape " + shapeText(tensor.shape) + " overflows");
    if (!names.insert(tensor.name).second) throw Error(ErrorCode::Internal, path + ": " + tensor.name + ": written twice");
    sizes.push_back(elements * static_cast<int64_t>(elementBytes(tensor.dtype)));
    Json entry;
    entry.set("dtype", dtypeName(tensor.dtype));
    entry.set("shape", Json::list(tensor.shape));
    entry.set("data_offsets", Json::list(std::vector<int64_t>{end, end + sizes.back()}));
    end += sizes.back();
    header.emplace_back(tensor.name, std::move(entry));
  }
  std::string text = Json(std::move(header)).dump();
  text.append((8 - text.size() % 8) % 8, ' ');

  AtomicFile file(path);
  unsigned char length[8];
  for (size_t i = 0; i < 8; ++i) length[i] = static_cast<unsigned char>(static_cast<uint64_t>(text.size()) >> (8 * i));
  file.write(length, sizeof length);
  file.write(text.data(), text.size());
  for (size_t i = 0; i < tensors.size(); ++i) {
    int64_t left = sizes[i];
    tensors[i].produce([&](std::span<const std::byte> piece) {
      left -= static_cast<int64_t>(piece.size());
      if (left >= 0) file.write(piece);
    });
    if (left != 0) throw Error(ErrorCode::Internal, path + ": " + tensors[i].name + ": its source gave another number of bytes than its shape says");
  }
  file.commit(durable);
}

void writeSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors, const std::map<std::string, std::string>& metadata) {
  std::vector<TensorSource> sources;
  for (const TensorToWrite& tensor : tensors)
    sources.push_back({tensor.name, tensor.dtype, tensor.shape,
                       [&tensor](const auto& sink) { sink({static_cast<const std::byte*>(tensor.data), tensor.bytes}); }});
  writeSafetensorsStreaming(path, std::move(sources), metadata);
}

}  // namespace vmoba
