// The safetensors container: 8-byte little-endian header length, JSON header, raw little-endian row-major data.
// The reader trusts nothing: every offset, extent and name is checked in 64-bit arithmetic before it is used.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "native/base/dtype.h"
#include "native/weights/checkpoint.h"

namespace vmoba {

/// One tensor of a file; its data lie at [begin, end) of the whole file.
struct SafetensorsEntry {
  std::string name;
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  size_t begin = 0;
  size_t end = 0;
};

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> tensors;  ///< in the order of their data
  std::map<std::string, std::string> metadata;
};

/// Parses and checks the header of a whole mapped file. Data must follow the header without gap or overlap and end
/// with the file. Error{BadModelFile} "<file>: <tensor>: <reason>".
SafetensorsHeader parseSafetensors(std::span<const std::byte> file, const std::string& fileName);

/// Tensor name to shard file name, from the text of a *.safetensors.index.json. File names are plain names of
/// the index's own folder. Error{BadModelFile} "<file>: <tensor>: <reason>".
std::map<std::string, std::string> parseShardIndex(std::string_view text, const std::string& fileName);

/// Product of the extents; false when it is negative or does not fit 62 bits.
bool elementCount(std::span<const int64_t> shape, int64_t& count);

/// A text from a file made fit for a one-line message: control characters replaced, long ones cut.
std::string printable(std::string_view text);

/// "[3, 4]"; -1 prints as "any".
std::string shapeText(std::span<const int64_t> shape);

/// A tensor written piece by piece, so that a large file never lies in memory as a whole.
struct TensorSource {
  std::string name;
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  /// Called once, when the tensor's turn comes: hands its bytes, in order, to `sink` in pieces of any size.
  std::function<void(const std::function<void(std::span<const std::byte>)>& sink)> produce;
};

/// Writes one file atomically, larger element types first (so that all data are aligned). Error{Io} when the disk
/// refuses, Error{Internal} when a source gives another number of bytes than its shape says. Not `durable`: for files that can be made again.
void writeSafetensorsStreaming(const std::string& path, std::vector<TensorSource> tensors,
                               const std::map<std::string, std::string>& metadata = {}, bool durable = true);

}  // namespace vmoba
