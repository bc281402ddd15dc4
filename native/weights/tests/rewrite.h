// Stores a checkpoint again under other names, element types and file layouts, the way other programs would.
// The renaming goes from official to foreign and is written apart from the reader's, so each checks the other.
#pragma once
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "native/weights/checkpoint.h"

namespace vmoba::test {

/// A new empty folder, removed with everything in it when the object goes.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string file(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void writeText(const std::string& path, const std::string& text);
std::string readText(const std::string& path);

struct Tensor {
  DType dtype = DType::F32;
  std::vector<int64_t> shape;
  std::string bytes;
};
using Tensors = std::map<std::string, Tensor>;
using Rename = std::function<std::string(const std::string&)>;

enum class Fp8Layout { Plain, ScaleWeight, WeightScaleMetadata, WeightScaleTensor };

/// The float tensors of a checkpoint under other names.
Tensors renamed(const Checkpoint& source, const Rename& rename);
/// Matrices (two or more axes) in another element type, the rest as it was.
Tensors converted(const Tensors& tensors, DType type);
/// Linear weights as FP8; the scaled layouts use the largest magnitude / 448 of each tensor as its scale.
Tensors quantised(const Tensors& tensors, Fp8Layout layout, std::map<std::string, std::string>& metadata);

void write(const std::string& path, const Tensors& tensors, const std::map<std::string, std::string>& metadata = {});
/// `count` shards and their index in `folder`; returns the index's path.
std::string writeShards(const std::string& folder, const Tensors& tensors, int count);

std::string comfyUiName(const std::string& official);
std::string diffusersDitName(const std::string& official);
std::string diffusersVaeName(const std::string& official);
std::string huggingFaceT5Name(const std::string& official);

}  // namespace vmoba::test
