// Builds a Checkpoint from the bytes of one file or of several shards: collects the tensors, settles names, kind and
// scales. Separate from opening files so that bytes in memory (tests, fuzzing) take the same path.
#pragma once
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "native/weights/checkpoint.h"

namespace vmoba {

class CheckpointReader {
 public:
  /// `path` names the checkpoint as a whole in messages.
  explicit CheckpointReader(std::string path);

  /// Adds one file. `owner` keeps `bytes` alive. Error{BadModelFile}, also for a tensor that an earlier shard holds.
  void add(const std::string& fileName, std::span<const std::byte> bytes, std::shared_ptr<const void> owner);

  /// True when an added file holds the tensor under this name of its own.
  bool holds(const std::string& fileName, const std::string& rawName) const;

  /// Maps the names, applies the scales. Call once, last.
  Checkpoint finish();

 private:
  void applyScales();
  void checkQuantisation(const std::string& layer, const std::string& description, const WeightView& at) const;

  Checkpoint checkpoint_;
  std::map<std::string, WeightView> raw_;  ///< by the file's own names
};

}  // namespace vmoba
