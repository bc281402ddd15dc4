// Writing and restoring a session: one safetensors file, written atomically, whose metadata says which render it belongs to
// and what computed it. A resume elsewhere continues, and says that it is not bit-identical.
#include <cstring>
#include <filesystem>

#include "native/base/error.h"
#include "native/engine/session.h"

namespace vmoba {

Json Session::identity() const {
  Json json;
  json.set("request", request_.identity());
  std::string model;
  for (const auto& file : {model_->files().dit, model_->files().vae, model_->files().textEncoder})
    model += std::filesystem::path(file->path()).filename().string() + ":" + std::to_string(file->totalBytes()) + ";";
  return json.set("model", model_->files().description.id + ";" + model);
}

Json Session::saveCheckpoint(const std::string& path) const {
  if (!model_) throw Error(ErrorCode::OutOfMemory, "the model is not loaded: memory ran out; resume from the last checkpoint with a smaller render or on the CPU");
  std::map<std::string, std::string> metadata;
  const Json id = identity();
  const Backend& backend = model_->backend();
  metadata["format"] = "vmoba-checkpoint/1";
  metadata["request"] = id.at("request").asString();
  metadata["model"] = id.at("model").asString();
  metadata["step"] = std::to_string(state_.step);
  metadata["lastOrder"] = std::to_string(state_.lastOrder);
  metadata["backend"] = backend.name();
  metadata["instructionSet"] = backend.instructionSet();
  metadata["precision"] = backend.precision() == Precision::BF16 ? "bf16" : "f32";
  metadata["threads"] = std::to_string(backend.threads());
  metadata["sequentialBranches"] = plan_.sequentialBranches ? "1" : "0";
  metadata["build"] = buildId();
  metadata["latentHash"] = latentHash();
  std::vector<TensorToWrite> tensors;
  const auto add = [&](const char* name, const std::vector<float>& values) {
    if (values.empty()) return;
    tensors.push_back({name, DType::F32, {latentShape_[0], latentShape_[1], latentShape_[2], latentShape_[3]}, values.data(), values.size() * sizeof(float)});
  };
  const StoredState& state = stored();
  add("x", state.x);
  add("estimate1", state.estimate1);
  add("estimate2", state.estimate2);
  add("predictedFrom", state.predictedFrom);
  writeSafetensors(path, tensors, metadata);
  Json json;
  return json.set("bytes", static_cast<int64_t>(std::filesystem::file_size(path))).set("latentHash", latentHash()).set("step", state_.step);
}

Json Session::restoreCheckpoint(const std::string& path) {
  load();
  const Checkpoint file = Checkpoint::open(path);
  const auto metadata = [&](const char* key) {
    const auto found = file.metadata().find(key);
    return found == file.metadata().end() ? std::string() : found->second;
  };
  if (metadata("format") != "vmoba-checkpoint/1") throw Error(ErrorCode::BadModelFile, path + ": not a checkpoint of this studio", "checkpoint");
  const Json id = identity();
  if (metadata("request") != id.at("request").asString())
    throw Error(ErrorCode::BadRequest, path + ": belongs to a render with other settings; resume it with the settings it was started with", "checkpoint");
  if (metadata("model") != id.at("model").asString()) throw Error(ErrorCode::BadRequest, path + ": belongs to another model", "checkpoint");
  StoredState restored;
  restored.step = std::atoll(metadata("step").c_str());
  restored.lastOrder = std::atoll(metadata("lastOrder").c_str());
  if (restored.step < 0 || restored.step > scheduler_.steps() || restored.lastOrder < 0 || restored.lastOrder > 2)
    throw Error(ErrorCode::BadModelFile, path + ": metadata step: outside this render", "checkpoint");
  const std::vector<int64_t> shape{latentShape_[0], latentShape_[1], latentShape_[2], latentShape_[3]};
  const auto read = [&](const char* name, bool needed) {
    if (!needed && file.find(name) == nullptr) return std::vector<float>();
    const WeightView& view = file.require(name, shape);
    if (view.dtype != DType::F32) throw Error(ErrorCode::BadModelFile, path + ": " + name + ": expected F32", "checkpoint");
    return view.toFloat();
  };
  restored.x = read("x", true);
  restored.estimate1 = read("estimate1", restored.step > 0);
  restored.estimate2 = read("estimate2", restored.step > 1);
  restored.predictedFrom = read("predictedFrom", restored.step > 0 && request_.scheduler == SchedulerKind::UniPC);
  if (hashOf(restored.x) != metadata("latentHash"))
    throw Error(ErrorCode::BadModelFile, path + ": x: does not match its recorded hash; the file is damaged", "checkpoint");
  state_ = upload(model_->backend(), restored, latentShape_);
  stored_ = std::move(restored);
  decoder_.reset();
  framesDecoded_ = 0;

  const Backend& backend = model_->backend();
  std::string reason;
  const auto compare = [&](const char* key, const std::string& now, const char* words) {
    if (metadata(key) != now) reason += std::string(reason.empty() ? "" : ", ") + words + " (" + metadata(key) + " then, " + now + " now)";
  };
  compare("backend", backend.name(), "another device");
  compare("instructionSet", backend.instructionSet(), "another instruction set");
  compare("precision", backend.precision() == Precision::BF16 ? "bf16" : "f32", "another precision");
  compare("threads", std::to_string(backend.threads()), "another thread count");
  compare("build", buildId(), "another build");
  Json json;
  json.set("step", state_.step).set("bitIdentical", reason.empty());
  return json.set("reason", reason.empty() ? Json() : Json(reason));
}

}  // namespace vmoba
