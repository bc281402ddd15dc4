// vmoba-native: verify, bench, devices, inspect and random-model without Node, for machines that have a compiler and nothing else.
#include <cstdio>
#include <cstring>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "native/base/error.h"
#include "native/base/json.h"
#include "native/bench/attention.h"
#include "native/bench/model.h"
#include "native/bench/render.h"
#include "native/engine/inspect.h"
#include "native/engine/verify/verify.h"
#include "native/tools/random_model/random_model.h"

namespace {

constexpr const char* kUsage = R"(vmoba-native <command>

  verify <directory> [--backend cpu] [--threads N] [--json]
      run every reference fixture through the engine; exit 1 if anything fails
  bench attention|model|render [--option value ...]
      options are passed on as JSON members, e.g. --tokens 7800 --device cpu
      attention: the kernels; model: forward passes, e.g. --preset 14b --layers 8 --branches 2 --stream both
      render: a whole render of a random model, or of --model <folder>: text encoder, guided steps, decode;
              e.g. --preset 1.3b --steps 50 --policy dense --backend cuda --memoryLimitBytes 10000000000
  inspect <file or folder>
  devices
  random-model <folder> --preset nano|1.3b|14b|tiny --tokenizer <spiece.model> [--seed N]
      a complete model folder with random weights

exit codes: 0 ok, 1 a check failed, 2 bad input or file
)";

struct Arguments {
  std::vector<std::string> positional;
  std::map<std::string, std::string> options;
};

Arguments parse(int count, char** values) {
  Arguments arguments;
  for (int i = 1; i < count; ++i) {
    const std::string word = values[i];
    if (word.rfind("--", 0) != 0) {
      arguments.positional.push_back(word);
    } else if (i + 1 < count && std::strncmp(values[i + 1], "--", 2) != 0) {
      arguments.options[word.substr(2)] = values[++i];
    } else {
      arguments.options[word.substr(2)] = "true";
    }
  }
  return arguments;
}

/// Numbers, true/false and JSON stay what they are; everything else is text.
vmoba::Json asJson(const std::map<std::string, std::string>& options) {
  vmoba::Json json(vmoba::Json::Object{});
  for (const auto& [name, text] : options) {
    try {
      json.set(name, vmoba::Json::parse(text));
    } catch (const vmoba::Error&) {
      json.set(name, text);
    }
  }
  return json;
}

int verify(const Arguments& arguments) {
  if (arguments.positional.size() != 2) throw vmoba::Error(vmoba::ErrorCode::BadRequest, "verify takes one directory");
  const auto option = [&](const char* name, const char* fallback) {
    const auto found = arguments.options.find(name);
    return found == arguments.options.end() ? std::string(fallback) : found->second;
  };
  const bool json = arguments.options.contains("json");
  const auto summary = vmoba::verifyDirectory(arguments.positional[1], option("backend", "cpu"), std::atoi(option("threads", "0").c_str()), [&](const vmoba::VerifyRow& row) {
    if (json) {
      vmoba::Json line;
      line.set("file", row.file).set("tensor", row.tensor).set("error", row.error).set("tolerance", row.tolerance).set("pass", row.pass).set("note", row.note);
      std::printf("%s\n", line.dump().c_str());
    } else {
      std::printf("%s  %-32s %-40s %.3g%s%s\n", row.pass ? "PASS" : "FAIL", row.file.c_str(), row.tensor.c_str(), row.error, row.note.empty() ? "" : "  ", row.note.c_str());
    }
  });
  std::printf("%lld compared in %lld files, %lld failed, %.1f s\n", static_cast<long long>(summary.rows), static_cast<long long>(summary.files),
              static_cast<long long>(summary.failed), summary.seconds);
  return summary.failed == 0 ? 0 : 1;
}

int run(const Arguments& arguments) {
  const std::string command = arguments.positional.empty() ? "" : arguments.positional[0];
  if (command == "help" || arguments.options.contains("help")) return std::fputs(kUsage, stdout), 0;
  const auto target = [&]() -> const std::string& {
    if (arguments.positional.size() < 2) throw vmoba::Error(vmoba::ErrorCode::BadRequest, command + " needs an argument");
    return arguments.positional[1];
  };
  const auto progress = [](const vmoba::Json& line) { std::fprintf(stderr, "%s\n", line.dump().c_str()); };
  if (command == "verify") return verify(arguments);
  if (command == "devices") return std::printf("%s\n", vmoba::describeEngine().dump().c_str()), 0;
  if (command == "inspect") return std::printf("%s\n", vmoba::inspectModel(target()).dump().c_str()), 0;
  if (command == "bench" && target() == "attention") {
    const vmoba::Json result = vmoba::benchAttention(asJson(arguments.options), progress);
    return std::printf("%s\n", result.dump().c_str()), result.boolOr("accurate", true) ? 0 : 1;
  }
  if (command == "bench" && target() == "model") return std::printf("%s\n", vmoba::benchModel(asJson(arguments.options), progress).dump().c_str()), 0;
  if (command == "bench" && target() == "render") return std::printf("%s\n", vmoba::benchRender(asJson(arguments.options), progress).dump().c_str()), 0;
  if (command == "random-model") return vmoba::writeRandomModel(target(), asJson(arguments.options)), 0;
  std::fputs(kUsage, stderr);
  return 2;
}

}  // namespace

int main(int count, char** values) {
  try {
    return run(parse(count, values));
  } catch (const vmoba::Error& error) {
    std::fprintf(stderr, "%s: %s\n", vmoba::errorCodeName(error.code()), error.what());
    return 2;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "internal: %s\n", error.what());
    return 2;
  }
}
