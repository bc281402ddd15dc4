// The devices of this machine: the CPU always, accelerators through their libraries.
#include "native/backends/backend.h"
#include "native/backends/cpu/cpu_backend.h"
#include "native/backends/device_library.h"
#include "native/base/error.h"

namespace vmoba {
namespace {

/// "cuda", "cuda:1" -> "vmoba_cuda"; "emulated" (the CUDA backend's own kernels run on the CPU, for tests) -> "vmoba_emulated".
std::string libraryOf(const std::string& device) {
  const std::string kind = device.substr(0, device.find(':'));
  return kind == "cuda" || kind == "emulated" ? "vmoba_" + kind : "";
}

/// The emulated device is for those who ask for it by name; it is never listed among a machine's devices.
std::vector<DeviceInfo> devicesLike(const std::string& id) {
  if (id != "emulated") return listDevices();
  const FoundLibrary& found = openBackendLibrary(libraryOf(id));
  if (found.library == nullptr) throw Error(ErrorCode::Unsupported, "emulated: " + found.reason, "device");
  return found.library->listDevices();
}

}  // namespace

std::vector<DeviceInfo> listDevices() {
  std::vector<DeviceInfo> devices{cpu::describeCpu()};
  const FoundLibrary& cuda = openBackendLibrary("vmoba_cuda");
  if (cuda.library == nullptr) {
    DeviceInfo none;
    none.id = none.kind = "cuda";
    none.name = "NVIDIA GPU";
    none.usable = false;
    none.reason = cuda.reason;
    devices.push_back(none);
  } else {
    for (DeviceInfo& device : cuda.library->listDevices()) devices.push_back(std::move(device));
  }
  return devices;
}

DeviceInfo describeDevice(const std::string& device) {
  const std::string id = device.empty() ? "cpu" : device == "cuda" ? "cuda:0" : device;
  for (DeviceInfo& info : devicesLike(id))
    if (info.id == id || (info.id == "cuda" && id == "cuda:0")) return info;
  throw Error(ErrorCode::Unsupported, "unknown device '" + device + "': `devices` lists what this machine has", "device");
}

std::unique_ptr<Backend> makeBackend(const std::string& device, const BackendOptions& options) {
  const DeviceInfo info = describeDevice(device);
  if (!info.usable) throw Error(ErrorCode::Unsupported, info.id + ": " + info.reason, "device");
  if (info.kind == "cpu") return cpu::makeCpuBackend(options);
  return openBackendLibrary(libraryOf(info.id)).library->make(info.id, options);
}

}  // namespace vmoba
