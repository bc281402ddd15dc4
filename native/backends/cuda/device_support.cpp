#include "native/backends/cuda/device_support.h"

namespace vmoba::cuda {
namespace {

std::string version(int number) { return std::to_string(number / 1000) + "." + std::to_string(number % 1000 / 10); }

std::string gibibytes(size_t bytes) {
  const size_t tenths = bytes * 10 >> 30;
  return std::to_string(tenths / 10) + "." + std::to_string(tenths % 10) + " GiB";
}

DeviceInfo unusable(const std::string& reason) {
  DeviceInfo info;
  info.id = "cuda:0";
  info.kind = "cuda";
  info.name = "NVIDIA GPU";
  info.usable = false;
  info.reason = reason;
  return info;
}

std::string refusal(const DeviceFacts& facts) {
  const std::string capability = std::to_string(facts.major) + "." + std::to_string(facts.minor);
  if (facts.major < kLeastMajor)
    return "its compute capability is " + capability + "; the kernels need " + std::to_string(kLeastMajor) +
           ".0 or newer (GeForce RTX 30 series, A100 and later)";
  if (facts.memoryBytes < kLeastMemoryBytes)
    return "it has " + gibibytes(facts.memoryBytes) + " of memory; at least " + gibibytes(kLeastMemoryBytes) + " are needed";
  return "";
}

}  // namespace

std::vector<DeviceInfo> describeDevices(const Probe& probe) {
  if (probe.driverVersion == 0)
    return {unusable("no NVIDIA driver was found; install one for CUDA " + version(probe.runtimeVersion) + " or newer to render on a GPU")};
  if (probe.driverVersion / 1000 < probe.runtimeVersion / 1000)
    return {unusable("the NVIDIA driver supports CUDA " + version(probe.driverVersion) + "; this program needs CUDA " +
                     std::to_string(probe.runtimeVersion / 1000) + ": update the driver")};
  if (!probe.failure.empty()) return {unusable("the NVIDIA driver reports: " + probe.failure)};
  if (probe.devices.empty()) return {unusable("an NVIDIA driver is installed, but it finds no GPU")};

  std::vector<DeviceInfo> infos;
  for (size_t i = 0; i < probe.devices.size(); ++i) {
    const DeviceFacts& facts = probe.devices[i];
    DeviceInfo info;
    info.id = "cuda:" + std::to_string(i);
    info.kind = "cuda";
    info.name = facts.name;
    info.memoryBytes = facts.memoryBytes;
    info.instructionSet = "sm_" + std::to_string(facts.major) + std::to_string(facts.minor);
    info.precisions = {Precision::F32, Precision::BF16};
    info.reason = refusal(facts);
    info.usable = info.reason.empty();
    infos.push_back(std::move(info));
  }
  return infos;
}

}  // namespace vmoba::cuda
