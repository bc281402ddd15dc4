// How the fixtures spell partitions, scopes and selections.
#pragma once
#include <string>

#include "kernels/attention.h"
#include "native/base/error.h"

namespace vmoba::verify {

/// "1.5" = frames, "2,2" = tile, "1,2,3" = cube.
inline Partition partitionFromChunk(const std::string& text) {
  Partition partition;
  const size_t first = text.find(','), last = text.rfind(',');
  if (first == std::string::npos) {
    partition.frames = std::strtod(text.c_str(), nullptr);
  } else if (first == last) {
    partition.kind = PartitionKind::Spatial2D;
    partition.blockH = std::atoi(text.c_str());
    partition.blockW = std::atoi(text.c_str() + first + 1);
  } else {
    partition.kind = PartitionKind::SpaceTime3D;
    partition.blockT = std::atoi(text.c_str());
    partition.blockH = std::atoi(text.c_str() + first + 1);
    partition.blockW = std::atoi(text.c_str() + last + 1);
  }
  return partition;
}

inline SelectionScope scopeFromName(const std::string& name) {
  if (name == "query_head") return SelectionScope::QueryHead;
  if (name == "head_global") return SelectionScope::HeadGlobal;
  if (name == "overall") return SelectionScope::Overall;
  if (name == "block") return SelectionScope::Block;
  throw Error(ErrorCode::BadRequest, "unknown selection scope '" + name + "' in the fixture");
}

}  // namespace vmoba::verify
