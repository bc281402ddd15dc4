// A checkpoint: named tensors in memory-mapped safetensors files (one file, or shards with an index), behind the
// official Wan names whatever naming the files use. Nothing in a file is trusted; every refusal is
// Error{BadModelFile} with one line "<file>: <tensor>: <reason>".
#pragma once
#include <cstddef>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/base/dtype.h"

namespace vmoba {

/// One tensor in mapped memory. `scale` multiplies every element (scaled FP8); 1 otherwise.
struct WeightView {
  std::string name;      ///< canonical (official) name
  std::string file;      ///< for messages
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  const std::byte* data = nullptr;
  size_t bytes = 0;
  float scale = 1;
  int64_t elements() const;
  /// Element-wise conversion to float (scale applied) into `out`, which must hold elements().
  void toFloat(std::span<float> out) const;
  std::vector<float> toFloat() const;
  /// Tells the OS that the mapped pages will not be read again soon.
  void release() const noexcept;
};

enum class ModelKind { Unknown, WanDit, WanVae, Umt5 };
enum class NamingScheme { Official, ComfyUi, Diffusers, HuggingFace };

class Checkpoint {
 public:
  /// `path`: a .safetensors file, a *.safetensors.index.json, or a directory holding either.
  /// .pth/.pt/.ckpt/.bin (pickle) are refused with a message naming the safetensors repackagings.
  static Checkpoint open(const std::string& path);

  const WeightView* find(const std::string& canonicalName) const;
  /// The tensor, checked against `shape` (-1 = any extent) when given; Error{BadModelFile} otherwise.
  const WeightView& require(const std::string& canonicalName, const std::vector<int64_t>& shape = {}) const;
  const std::map<std::string, WeightView>& tensors() const { return tensors_; }
  /// `__metadata__` of the file (merged over shards).
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const std::string& path() const { return path_; }
  ModelKind kind() const { return kind_; }
  NamingScheme naming() const { return naming_; }
  size_t totalBytes() const;

  /// Refuses a checkpoint of another kind, and reports missing and unexpected tensors: the first five of each by name.
  void expect(ModelKind kind, const std::vector<std::string>& requiredNames, bool refuseExtra) const;

 private:
  friend class CheckpointReader;
  std::string path_;
  std::map<std::string, WeightView> tensors_;
  std::map<std::string, std::string> metadata_;
  ModelKind kind_ = ModelKind::Unknown;
  NamingScheme naming_ = NamingScheme::Official;
  std::vector<std::shared_ptr<const void>> mappings_;  ///< keeps the files mapped
};

const char* modelKindName(ModelKind kind);

/// Writes one safetensors file atomically (temporary file, fsync, rename). Used by tests and the random-model maker.
struct TensorToWrite {
  std::string name;
  DType dtype;
  std::vector<int64_t> shape;
  const void* data;
  size_t bytes;
};
void writeSafetensors(const std::string& path, const std::vector<TensorToWrite>& tensors,
                      const std::map<std::string, std::string>& metadata = {});

}  // namespace vmoba
