#include "native/engine/verify/verify.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <filesystem>

#include "native/base/error.h"
#include "native/engine/verify/comparison.h"

namespace vmoba {
namespace verify {

void Comparison::close(const std::string& name, const std::vector<float>& actual, double tolerance) {
  const std::vector<float> expected = input(name);
  VerifyRow row{file, name, 0, tolerance, true, ""};
  if (expected.size() != actual.size()) {
    row.pass = false;
    row.note = "expected " + std::to_string(expected.size()) + " elements, got " + std::to_string(actual.size());
  } else {
    for (size_t i = 0; i < expected.size(); ++i) {
      const double difference = std::abs(static_cast<double>(expected[i]) - static_cast<double>(actual[i]));
      if (!(difference <= row.error)) row.error = difference;  // also catches NaN
    }
    row.pass = row.error <= tolerance;
  }
  report(row);
}

void Comparison::exact(const std::string& name, const std::vector<int64_t>& actual) {
  const std::vector<int64_t> expected = integers(name);
  VerifyRow row{file, name, 0, 0, expected.size() == actual.size(), ""};
  if (!row.pass) {
    row.note = "expected " + std::to_string(expected.size()) + " elements, got " + std::to_string(actual.size());
  } else {
    for (size_t i = 0; i < expected.size(); ++i) row.error += expected[i] != actual[i];
    row.pass = row.error == 0;
  }
  report(row);
}

void Comparison::sameBits(const std::string& name, const std::vector<float>& actual) {
  const std::vector<float> expected = input(name);
  VerifyRow row{file, name, 0, 0, expected.size() == actual.size(), ""};
  for (size_t i = 0; row.pass && i < expected.size(); ++i) row.error += std::memcmp(&expected[i], &actual[i], sizeof(float)) != 0;
  row.pass = row.pass && row.error == 0;
  report(row);
}

void Comparison::finish() {
  for (const auto& [name, view] : stored.tensors())
    if (!seen.contains(name)) fail(name, "stored, but this engine compares nothing with it");
}

namespace {

namespace fs = std::filesystem;

/// vmoba_a_1d1.safetensors -> vmoba_a_qkv.safetensors
fs::path attentionInputs(const fs::path& file) {
  const std::string stem = file.stem().string();
  const std::string chunk = stem.substr(0, stem.rfind('_'));
  return file.parent_path() / (chunk + "_qkv.safetensors");
}

void verifyFile(const fs::path& path, Backend& backend, const VerifyCallback& onRow) {
  const std::string name = path.filename().string();
  const Checkpoint stored = Checkpoint::open(path.string());
  Comparison c{backend, stored, name, onRow, {}};
  try {
    if (name.ends_with(".io.safetensors")) {
      const fs::path weightsPath = path.parent_path() / (name.substr(0, name.size() - std::strlen(".io.safetensors")) + ".safetensors");
      const auto weights = std::make_shared<const Checkpoint>(Checkpoint::open(weightsPath.string()));
      switch (weights->kind()) {
        case ModelKind::WanDit: verifyDit(c, weights); break;
        case ModelKind::Umt5: verifyTextEncoder(c, weights); break;
        case ModelKind::WanVae: verifyVae(c, weights); break;
        case ModelKind::Unknown: c.fail(weightsPath.filename().string(), "weights of an unknown kind"); break;
      }
    } else if (!c.metadata("num_train_timesteps").empty()) {
      verifyScheduler(c);
    } else if (!c.metadata("selections").empty()) {
      verifyAttention(c, Checkpoint::open(attentionInputs(path).string()));
    } else if (c.has("dense_rows")) {
      verifyAttention(c, stored);
    } else if (c.has("q")) {
      verifyAttentionEdge(c);
    } else {
      return;  // weights: opened by their .io file
    }
    c.finish();
  } catch (const Error& error) {
    c.fail("", error.what());
  }
}

bool isWeights(const fs::path& path, const std::vector<fs::path>& all) {
  const fs::path io = path.parent_path() / (path.stem().string() + ".io.safetensors");
  return std::find(all.begin(), all.end(), io) != all.end();
}

}  // namespace
}  // namespace verify

VerifySummary verifyDirectory(const std::string& directory, const std::string& device, int threads, const VerifyCallback& onRow) {
  const auto started = std::chrono::steady_clock::now();
  std::error_code error;
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(directory, error))
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  if (error) throw Error(ErrorCode::BadRequest, directory + ": " + error.message(), "directory");
  if (files.empty()) throw Error(ErrorCode::BadRequest, directory + ": holds no .safetensors fixtures", "directory");
  std::sort(files.begin(), files.end());
  const auto backend = makeBackend(device, {Precision::F32, threads, 0});
  VerifySummary summary;
  for (const auto& file : files) {
    if (verify::isWeights(file, files)) continue;
    ++summary.files;
    verify::verifyFile(file, *backend, [&](const VerifyRow& row) {
      ++summary.rows;
      summary.failed += !row.pass;
      onRow(row);
    });
  }
  summary.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
  return summary;
}

}  // namespace vmoba
