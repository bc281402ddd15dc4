// Backends that live in a shared library of their own, found at run time: the program starts without them, and says why one
// cannot be used. Such a library exports two plain C functions; everything behind them is C++ of this very build, so the
// first check is that both sides were compiled from the same headers by the same compiler.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "native/backends/backend.h"

namespace vmoba {

/// What a backend library offers. Functions may throw Error.
struct BackendLibrary {
  std::vector<DeviceInfo> (*listDevices)();
  std::unique_ptr<Backend> (*make)(const std::string& device, const BackendOptions& options);
};

/// `const char* vmobaBackendAbi()`: text that differs whenever the two sides could disagree about a type.
constexpr const char* kBackendAbiSymbol = "vmobaBackendAbi";
/// `const vmoba::BackendLibrary* vmobaBackendLibrary()`
constexpr const char* kBackendLibrarySymbol = "vmobaBackendLibrary";

#if defined(_WIN32)
#define VMOBA_BACKEND_EXPORT __declspec(dllexport)
#else
#define VMOBA_BACKEND_EXPORT __attribute__((visibility("default")))
#endif

struct FoundLibrary {
  const BackendLibrary* library = nullptr;
  std::string reason;  ///< why there is none, and what to do
};

/// Opens `name` (without prefix and suffix, e.g. "vmoba_cuda") from the folder named by VMOBA_BACKENDS, else from beside the
/// module this code is in. Opened once per process and never closed: its threads and static objects outlive any caller.
const FoundLibrary& openBackendLibrary(const std::string& name);

}  // namespace vmoba
