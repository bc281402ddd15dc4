#include "native/backends/device_library.h"

#include <cstdlib>
#include <filesystem>
#include <map>
#include <mutex>

#include "native/base/error.h"

#if defined(_WIN32)
#include <windows.h>
#else
#include <dlfcn.h>
#endif

namespace vmoba {
namespace {

namespace fs = std::filesystem;

#if defined(_WIN32)
constexpr const char* kPrefix = "";
constexpr const char* kSuffix = ".dll";

fs::path ownFolder() {
  HMODULE module = nullptr;
  GetModuleHandleExA(GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT, reinterpret_cast<LPCSTR>(&ownFolder), &module);
  char path[MAX_PATH] = {};
  GetModuleFileNameA(module, path, sizeof path);
  return fs::path(path).parent_path();
}
void* open(const fs::path& path, std::string* reason) {
  void* handle = LoadLibraryW(path.c_str());
  if (handle == nullptr) *reason = "Windows error " + std::to_string(GetLastError());
  return handle;
}
void* symbol(void* handle, const char* name) { return reinterpret_cast<void*>(GetProcAddress(static_cast<HMODULE>(handle), name)); }
#else
constexpr const char* kPrefix = "lib";
constexpr const char* kSuffix = ".so";

fs::path ownFolder() {
  Dl_info info{};
  dladdr(reinterpret_cast<const void*>(&openBackendLibrary), &info);
  std::error_code ignored;
  return info.dli_fname == nullptr ? fs::path() : fs::absolute(info.dli_fname, ignored).parent_path();
}
void* open(const fs::path& path, std::string* reason) {
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) *reason = dlerror();
  return handle;
}
void* symbol(void* handle, const char* name) { return dlsym(handle, name); }
#endif

/// In an installed application the library lies beside the addon; in a build folder, in native/backends.
std::vector<fs::path> candidates(const std::string& name) {
  const std::string file = kPrefix + name + kSuffix;
  if (const char* named = std::getenv("VMOBA_BACKENDS"); named != nullptr && *named != '\0') return {fs::path(named) / file};
  const fs::path own = ownFolder();
  return {own / file, own.parent_path() / "backends" / file};
}

FoundLibrary find(const std::string& name) {
  std::error_code ignored;
  const std::vector<fs::path> paths = candidates(name);
  for (const fs::path& path : paths) {
    if (!fs::exists(path, ignored)) continue;
    std::string reason;
    void* handle = open(path, &reason);
    if (handle == nullptr) return {nullptr, path.filename().string() + " could not be loaded: " + reason};
    const auto abi = reinterpret_cast<const char* (*)()>(symbol(handle, kBackendAbiSymbol));
    const auto entry = reinterpret_cast<const BackendLibrary* (*)()>(symbol(handle, kBackendLibrarySymbol));
    if (abi == nullptr || entry == nullptr) return {nullptr, path.filename().string() + " is no backend library; reinstall the application"};
    if (std::string(abi()) != VMOBA_BACKEND_ABI)
      return {nullptr, path.filename().string() + " belongs to another version of this program; reinstall the application or rebuild all of it"};
    return {entry(), ""};
  }
  return {nullptr, paths.front().filename().string() + " is not installed here"};
}

}  // namespace

const FoundLibrary& openBackendLibrary(const std::string& name) {
  static std::mutex mutex;
  static std::map<std::string, FoundLibrary> known;
  const std::lock_guard lock(mutex);
  auto found = known.find(name);
  if (found == known.end()) found = known.emplace(name, find(name)).first;
  return found->second;
}

}  // namespace vmoba
