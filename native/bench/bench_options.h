// What the benchmarks share: grids by name or number of tokens, and medians.
#pragma once
#include <algorithm>
#include <chrono>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "native/base/error.h"
#include "native/base/json.h"

namespace vmoba {

/// [t, h, w] under `name`.
inline Grid gridFromJson(const Json& value, const std::string& name) {
  const auto& extents = value.asArray(name);
  if (extents.size() != 3) throw Error(ErrorCode::BadRequest, name + " must be [frames, rows, columns]", name);
  const auto side = [&](size_t i) {
    const int64_t extent = extents[i].asInteger(name);
    if (extent < 1 || extent > 4096) throw Error(ErrorCode::BadRequest, name + " sides must be 1 to 4096", name);
    return static_cast<int32_t>(extent);
  };
  const Grid grid{side(0), side(1), side(2)};
  if (grid.tokens() > int64_t{1} << 24) throw Error(ErrorCode::BadRequest, name + " has more than 16 million tokens", name);
  return grid;
}

inline Grid benchGrid(const Json& options, int64_t defaultTokens) {
  if (const Json* grid = options.find("grid"); grid != nullptr) return gridFromJson(*grid, "grid");
  switch (options.integerOr("tokens", defaultTokens)) {
    case 2550: return {5, 17, 30};    // 480×272, 17 frames
    case 7800: return {5, 30, 52};    // 832×480, 17 frames
    case 32760: return {21, 30, 52};  // 832×480, 81 frames
    case 75600: return {21, 45, 80};  // 1280×720, 81 frames
    default: throw Error(ErrorCode::BadRequest, "tokens must be 2550, 7800, 32760 or 75600, or give a grid", "tokens");
  }
}

/// A policy object as it is, or one of the app's presets by its name, without the members that keep steps or short clips dense.
inline Json namedPolicy(const Json& entry, const std::string& option) {
  if (entry.isObject()) return entry;
  const std::string& name = entry.asString(option);
  Json policy;
  policy.set("name", name);
  if (name == "dense") return policy.set("mode", "dense");
  if (name == "vmoba-training-free") return policy.set("mode", "topk").set("scope", "query_head").set("kShare", 0.25);
  if (name == "vmoba-trained") return policy.set("mode", "threshold").set("scope", "head_global").set("tau", 0.25);
  throw Error(ErrorCode::BadRequest, option + ": a policy is dense, vmoba-training-free, vmoba-trained or an object, not '" + name + "'", option);
}

/// auto, bf16 or f32.
inline std::string benchPrecision(const Json& options) {
  std::string precision = options.stringOr("precision", "auto");
  if (precision != "auto" && precision != "bf16" && precision != "f32") throw Error(ErrorCode::BadRequest, "precision must be auto, bf16 or f32", "precision");
  return precision;
}

/// `backend` as verify names it, or `device` as requests do.
inline std::string benchDevice(const Json& options) { return options.stringOr("backend", options.stringOr("device", "cpu")); }

/// Seconds of a clock that never goes back.
inline double wallSeconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

inline double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return (values[(values.size() - 1) / 2] + values[values.size() / 2]) / 2;
}

}  // namespace vmoba
