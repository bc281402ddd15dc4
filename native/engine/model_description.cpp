#include "native/engine/model_description.h"

#include <cerrno>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <memory>

#include "native/base/error.h"

namespace vmoba {
namespace {

constexpr size_t kLargestDescription = size_t{4} << 20;

std::vector<float> numbers(const Json& json, const std::string& what) {
  std::vector<float> values;
  for (const Json& item : json.asArray(what)) {
    values.push_back(static_cast<float>(item.asNumber(what)));
    if (!std::isfinite(values.back()) || values.size() > 1024) throw Error(ErrorCode::BadRequest, what + " must hold at most 1024 finite numbers");
  }
  return values;
}

}  // namespace

std::string readSmallFile(const std::string& path, size_t maximumBytes) {
  const std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "rb"), &std::fclose);
  if (!file) throw Error(ErrorCode::Io, path + ": " + std::strerror(errno), "model");
  std::string text;
  char buffer[65536];
  while (const size_t n = std::fread(buffer, 1, sizeof buffer, file.get())) {
    text.append(buffer, n);
    if (text.size() > maximumBytes) throw Error(ErrorCode::BadModelFile, path + ": larger than " + std::to_string(maximumBytes) + " bytes", "model");
  }
  if (std::ferror(file.get())) throw Error(ErrorCode::Io, path + ": " + std::strerror(errno), "model");
  return text;
}

ModelDescription ModelDescription::read(const std::string& path) {
  namespace fs = std::filesystem;
  std::error_code ignored;
  const fs::path file = fs::is_directory(path, ignored) ? fs::path(path) / "model.json" : fs::path(path);
  if (!fs::exists(file, ignored)) throw Error(ErrorCode::BadModelFile, file.string() + ": no such file: a model is a folder with a model.json", "model");
  ModelDescription d;
  d.directory = file.parent_path().string();
  try {
    d.json = Json::parse(readSmallFile(file.string(), kLargestDescription));
    if (d.json.at("format").asString("format") != "vmoba-model/1") throw Error(ErrorCode::BadRequest, "format: only vmoba-model/1 is known");
    d.id = d.json.at("id").asString("id");
    d.name = d.json.stringOr("name", d.id);
    const Json& files = d.json.at("files");
    const auto located = [&](const char* key) {
      const fs::path name = files.at(key).asString(std::string("files.") + key);
      return name.is_absolute() ? name.string() : (fs::path(d.directory) / name).string();
    };
    d.dit = located("dit");
    d.vae = located("vae");
    d.textEncoder = located("textEncoder");
    d.tokenizer = located("tokenizer");
    if (const Json* latent = d.json.find("latent"); latent != nullptr && !latent->isNull()) {
      d.latentMean = numbers(latent->at("mean"), "latent.mean");
      d.latentStd = numbers(latent->at("std"), "latent.std");
    }
    if (const Json* preview = d.json.find("preview"); preview != nullptr && !preview->isNull()) {
      for (const Json& row : preview->at("factors").asArray("preview.factors")) {
        const std::vector<float> rgb = numbers(row, "preview.factors");
        if (rgb.size() != 3) throw Error(ErrorCode::BadRequest, "preview.factors: expected three numbers per channel");
        d.previewFactors.push_back({rgb[0], rgb[1], rgb[2]});
      }
      const std::vector<float> bias = numbers(preview->at("bias"), "preview.bias");
      if (bias.size() != 3) throw Error(ErrorCode::BadRequest, "preview.bias: expected three numbers");
      d.previewBias = {bias[0], bias[1], bias[2]};
    }
  } catch (const Error& error) {
    if (error.code() == ErrorCode::Io) throw;
    throw Error(ErrorCode::BadModelFile, file.string() + ": " + error.what(), "model");
  }
  return d;
}

}  // namespace vmoba
