// Pinned slots when the system refuses memory.
#include <gtest/gtest.h>

#include "native/backends/cuda/emulated_runtime.h"
#include "native/backends/cuda/upload.h"
#include "native/base/error.h"

namespace vmoba::cuda {
namespace {

TEST(PinnedSlots, GiveBackWhatTheyTookWhenTheSystemRefusesMore) {
  EmulatedFaults faults;
  faults.pinnedHeld = std::make_shared<int64_t>(0);
  faults.refusePinned = 3;
  const auto runtime = makeEmulatedRuntime(faults);
  try {
    PinnedSlots slots(*runtime, 4, 1024);
    FAIL() << "slots of refused memory";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::OutOfMemory);
  }
  EXPECT_EQ(*faults.pinnedHeld, 0);
  {
    const PinnedSlots slots(*runtime, 4, 1024);
    EXPECT_EQ(*faults.pinnedHeld, 4);
  }
  EXPECT_EQ(*faults.pinnedHeld, 0);
}

}  // namespace
}  // namespace vmoba::cuda
