// The emulator itself: that operations mean what the PTX manual says and that broken kernels are caught.
#include <gtest/gtest.h>

#include <functional>
#include <random>

#include "kernels/cuda/tile/launch.h"

namespace vmoba {
namespace {

// A kernel whose body is a lambda of the test.
struct Lambda {
  static constexpr const char* name = "test kernel";
  static constexpr int threads = 64, blocksPerSM = 1;
  struct Arguments {
    std::function<void()> body;
  };
  static void run(const Arguments& a) { a.body(); }
};

void onBlocks(int blocks, int sharedBytes, std::function<void()> body, emulation::Options options = {}) {
  tile::launch<Lambda>({&options}, {blocks}, sharedBytes, {std::move(body)});
}

std::string violationOf(int sharedBytes, std::function<void()> body, emulation::Options options = {}) {
  try {
    onBlocks(1, sharedBytes, std::move(body), options);
  } catch (const emulation::Violation& violation) {
    return violation.what();
  }
  return "none";
}

TEST(Emulation, ThreadsExchangeThroughSharedMemoryAcrossABarrier) {
  std::vector<int> out(64 * 3);
  onBlocks(3, 64 * 4, [&] {
    const auto window = tile::sharedWindow<int>(0, 64);
    window.set(tile::threadIndex(), tile::threadIndex() * 10 + tile::blockIndex().x);
    tile::barrier();
    out[static_cast<size_t>(tile::blockIndex().x * 64 + tile::threadIndex())] = window.get(63 - tile::threadIndex());
  });
  for (int i = 0; i < 64 * 3; ++i) ASSERT_EQ(out[static_cast<size_t>(i)], (63 - i % 64) * 10 + i / 64);
}

TEST(Emulation, NamesARaceWhereABarrierIsMissing) {
  const auto body = [] {
    const auto window = tile::sharedWindow<int>(0, 64);
    window.set(tile::threadIndex(), 1);
    tile::barrier();
    window.get(63 - tile::threadIndex());
    tile::barrier();
    window.set(tile::threadIndex(), 2);
  };
  EXPECT_EQ(violationOf(256, body), "none");
  for (const int nth : {0, 1})
    for (const uint32_t seed : {1u, 2u, 3u}) {
      const std::string what = violationOf(256, body, {{emulation::PlantedFault::DropBarrier, nth}, seed});
      EXPECT_TRUE(what.find("race") != std::string::npos || what.find("nothing wrote") != std::string::npos) << what;
    }
}

TEST(Emulation, AWarpBarrierOrdersOnlyItsOwnWarp) {
  const auto exchange = [](int distance) {
    return [distance] {
      const auto window = tile::sharedWindow<int>(0, 64);
      window.set(tile::threadIndex(), 1);
      tile::warpBarrier();
      window.get(tile::threadIndex() ^ distance);
    };
  };
  EXPECT_EQ(violationOf(256, exchange(1)), "none");
  EXPECT_NE(violationOf(256, exchange(32)), "none");
}

TEST(Emulation, CatchesUnwrittenMisplacedAndPrematureReads) {
  EXPECT_NE(violationOf(256, [] { tile::sharedWindow<int>(0, 64).get(0); }).find("nothing wrote"), std::string::npos);
  EXPECT_NE(violationOf(256, [] { tile::sharedWindow<int>(0, 8).set(tile::threadIndex(), 1); }).find("outside a window"), std::string::npos);
  EXPECT_NE(violationOf(256, [] { tile::sharedWindow<int>(0, 65); }).find("exceeds"), std::string::npos);
  alignas(16) static const int source[64 * 4] = {1, 2, 3, 4};
  const auto copy = [](bool wait) {
    return [wait] {
      const auto window = tile::sharedWindow<int>(0, 64 * 4);
      const int mine = tile::threadIndex() * 4;
      tile::copyAsync<16>(window, mine, source + mine, 8);
      tile::commitCopies();
      if (wait) tile::waitCopies<0>();
      if (window.get(mine + 1) != source[mine + 1] || window.get(mine + 2) != 0) throw std::runtime_error("wrong copy");
      if (!wait) tile::waitCopies<0>();
    };
  };
  EXPECT_EQ(violationOf(1024, copy(true)), "none");
  EXPECT_NE(violationOf(1024, copy(false)).find("has yet to write"), std::string::npos);
}

TEST(Emulation, ReportsDeadlockAndDivergenceInsteadOfHanging) {
  EXPECT_NE(violationOf(0, [] {
              if (tile::threadIndex() != 5) tile::barrier();
            }).find("deadlock"), std::string::npos);
  EXPECT_NE(violationOf(0, [] {
              if (tile::laneIndex() < 16) tile::shuffleXor(1, 1);
            }).find("deadlock"), std::string::npos);
  EXPECT_NE(violationOf(0, [] {
              if (tile::laneIndex() < 16)
                tile::shuffleXor(1, 1);
              else
                tile::ballot(true);
            }).find("diverge"), std::string::npos);
}

TEST(Emulation, ShufflesAndBallotsFollowTheManual) {
  onBlocks(1, 0, [] {
    const int lane = tile::laneIndex();
    if (tile::shuffle(lane, 7) != 7 || tile::shuffleXor(lane, 5) != (lane ^ 5) || tile::shuffleUp(lane, 3) != (lane < 3 ? lane : lane - 3) ||
        tile::ballot(lane % 3 == 0) != 0x49249249u || tile::lanesAlike<2>(static_cast<uint32_t>(lane)) != 0x11111111u << lane % 4 || tile::warpSum(lane) != 496)
      throw std::runtime_error("wrong exchange");
  });
}

// The product of whole matrices by ldmatrix and mma, against a plain loop: layouts that only agree with each other would fail.
TEST(Emulation, MatrixFragmentsMultiplyMatrices) {
  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  std::vector<Bf16> a(16 * 16), b(16 * 8);  // b is [k][n]
  for (Bf16& x : a) x = toBf16(normal(random));
  for (Bf16& x : b) x = toBf16(normal(random));
  std::vector<float> c(16 * 8, -1);
  const auto body = [&] {
    const auto sharedA = tile::sharedWindow<Bf16>(0, 256);
    const auto sharedB = tile::sharedWindow<Bf16>(512, 128);
    for (int i = tile::threadIndex(); i < 256; i += 64) sharedA.set(i, a[static_cast<size_t>(i)]);
    for (int i = tile::threadIndex(); i < 128; i += 64) sharedB.set(i, b[static_cast<size_t>(i)]);
    tile::barrier();
    const int lane = tile::laneIndex();
    uint32_t fragmentA[4], fragmentB[4];
    tile::loadMatrices(fragmentA, sharedA, (lane % 16) * 16 + lane / 16 * 8);
    tile::loadMatricesTransposed(fragmentB, sharedB, (lane % 16) * 8);
    float sum[4] = {};
    tile::multiplyAccumulate(sum, fragmentA, fragmentB[0], fragmentB[1]);
    if (tile::warpIndex() == 0)
      for (int j = 0; j < 4; ++j) c[static_cast<size_t>((lane / 4 + j / 2 * 8) * 8 + lane % 4 * 2 + j % 2)] = sum[j];
  };
  onBlocks(1, 512 + 256, body);
  const auto worst = [&] {
    double most = 0;
    for (int i = 0; i < 16; ++i)
      for (int j = 0; j < 8; ++j) {
        double exact = 0;
        for (int k = 0; k < 16; ++k) exact += double{toFloat(a[size_t(i * 16 + k)])} * double{toFloat(b[size_t(k * 8 + j)])};
        most = std::max(most, std::abs(exact - double{c[size_t(i * 8 + j)]}));
      }
    return most;
  };
  EXPECT_LT(worst(), 1e-5);
  onBlocks(1, 512 + 256, body, {{emulation::PlantedFault::SwapFragment}});
  EXPECT_GT(worst(), 0.1);
}

TEST(Emulation, AtomicsFromAllBlocksAddUp) {
  uint32_t total = 0;
  onBlocks(7, 4, [&] {
    const auto window = tile::sharedWindow<uint32_t>(0, 1);
    if (tile::threadIndex() == 0) window.set(0, 0);
    tile::barrier();
    tile::atomicAdd(window, 0, 1u);
    tile::barrier();
    if (tile::threadIndex() == 0) tile::atomicAdd(&total, window.get(0));
  });
  EXPECT_EQ(total, 7u * 64u);
}

}  // namespace
}  // namespace vmoba
