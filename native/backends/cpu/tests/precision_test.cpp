// Which precisions the CPU offers: bf16 only where products and attention are both made for it.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>

#include "kernels/cpu/tile.h"
#include "native/backends/backend.h"
#include "native/backends/cpu/cpu_backend.h"

namespace vmoba {
namespace {

bool offersBf16() {
  const std::vector<Precision> precisions = describeDevice("cpu").precisions;
  return std::find(precisions.begin(), precisions.end(), Precision::BF16) != precisions.end();
}

TEST(PrecisionOnCpu, IsBf16OnlyWhereAttentionHasAKernelOfIt) {
  EXPECT_EQ(offersBf16(), cpu::ProductLibrary::hasFastBf16() && cpu::chooseTileKernel(DType::BF16, nullptr).element == DType::BF16);
}

TEST(PrecisionOnCpuDeathTest, IsF32WhereTheLibraryIsKeptFromBf16Instructions) {
  testing::FLAGS_gtest_death_test_style = "threadsafe";  // a new process: the library reads the variable once
  setenv("ONEDNN_MAX_CPU_ISA", "AVX2", 1);
  EXPECT_EXIT(std::exit(offersBf16() ? 1 : 0), testing::ExitedWithCode(0), "");
  unsetenv("ONEDNN_MAX_CPU_ISA");
}

}  // namespace
}  // namespace vmoba
