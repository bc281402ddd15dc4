// A memcpy by several threads copies what one does.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "native/backends/cuda/wide_copy.h"

namespace vmoba::cuda {
namespace {

TEST(WideCopy, CopiesEveryByteWhateverTheSizeAndThreads) {
  std::vector<std::byte> from(size_t{5} << 20);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<std::byte>(i * 2654435761u >> 24);
  for (const unsigned threads : {1u, 2u, 5u}) {
    WideCopy wide(threads);
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{512} << 10, (size_t{512} << 10) + 1, (size_t{3} << 20) + 7, from.size()}) {
      std::vector<std::byte> to(bytes + 1, std::byte{0xee});
      wide.copy(to.data(), from.data(), bytes);
      EXPECT_TRUE(std::equal(to.begin(), to.end() - 1, from.begin())) << threads << " threads, " << bytes << " bytes";
      EXPECT_EQ(to.back(), std::byte{0xee});
    }
  }
}

}  // namespace
}  // namespace vmoba::cuda
