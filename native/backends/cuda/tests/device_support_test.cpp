// Why a GPU cannot be used, in words; and backend libraries that are missing or foreign.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include <unistd.h>

#include "native/backends/cuda/device_support.h"
#include "native/backends/device_library.h"
#include "native/base/error.h"

namespace vmoba {
namespace {

cuda::DeviceFacts gpu(int major, int minor, size_t gibibytes) {
  cuda::DeviceFacts facts;
  facts.name = "Test GPU";
  facts.major = major;
  facts.minor = minor;
  facts.memoryBytes = gibibytes << 30;
  return facts;
}

DeviceInfo only(const cuda::Probe& probe) {
  const auto devices = cuda::describeDevices(probe);
  EXPECT_EQ(devices.size(), 1u);
  return devices.at(0);
}

TEST(DeviceSupport, SaysThatThereIsNoDriver) {
  const DeviceInfo info = only({0, 13000, "", {}});
  EXPECT_FALSE(info.usable);
  EXPECT_NE(info.reason.find("no NVIDIA driver"), std::string::npos);
}

TEST(DeviceSupport, SaysThatTheDriverIsTooOld) {
  const DeviceInfo info = only({12040, 13000, "", {}});
  EXPECT_FALSE(info.usable);
  EXPECT_EQ(info.reason, "the NVIDIA driver supports CUDA 12.4; this program needs CUDA 13: update the driver");
}

TEST(DeviceSupport, SaysThatThereIsNoGpuAndWhatTheDriverReports) {
  EXPECT_NE(only({13000, 13000, "", {}}).reason.find("finds no GPU"), std::string::npos);
  EXPECT_NE(only({13000, 13000, "system not yet initialized", {}}).reason.find("system not yet initialized"), std::string::npos);
}

TEST(DeviceSupport, JudgesEveryGpuByCapabilityAndMemory) {
  const auto devices = cuda::describeDevices({13000, 13000, "", {gpu(7, 5, 24), gpu(8, 6, 2), gpu(9, 0, 80)}});
  ASSERT_EQ(devices.size(), 3u);
  EXPECT_FALSE(devices[0].usable);
  EXPECT_NE(devices[0].reason.find("compute capability is 7.5"), std::string::npos);
  EXPECT_FALSE(devices[1].usable);
  EXPECT_NE(devices[1].reason.find("2.0 GiB"), std::string::npos);
  EXPECT_TRUE(devices[2].usable);
  EXPECT_EQ(devices[2].id, "cuda:2");
  EXPECT_EQ(devices[2].instructionSet, "sm_90");
}

TEST(DeviceLibrary, SaysWhatIsMissingOrForeign) {
  const auto folder = std::filesystem::temp_directory_path() / ("vmoba-libraries-" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) + std::to_string(getpid()));
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "libvmoba_cuda.so") << "not a library";
  setenv("VMOBA_BACKENDS", folder.c_str(), 1);
  EXPECT_NE(openBackendLibrary("vmoba_cuda").reason.find("could not be loaded"), std::string::npos);
  EXPECT_NE(openBackendLibrary("vmoba_emulated").reason.find("is not installed here"), std::string::npos);
  try {
    makeBackend("cuda", {});
    FAIL() << "a backend out of nothing";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::Unsupported);
    EXPECT_EQ(error.field(), "device");
  }
  EXPECT_THROW(makeBackend("abacus", {}), Error);
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace vmoba
