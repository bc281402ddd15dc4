// The sampler's kernels: combinations exactly as the host adds them, at ragged sizes and addresses.
#include <utility>

#include "kernels/cuda/latent.h"
#include "kernels/cuda/tests/tensors.h"

namespace vmoba::cuda {
namespace {

using namespace test;

TEST(Latent, CombinationsAreAddedInDoubleAndRoundedOnce) {
  const double coefficients[] = {0.8317, -1.25e-3, 1e4, -0.31};
  for (const size_t count : {size_t{1}, size_t{1023}, size_t{4096}})
    for (size_t terms = 1; terms <= 4; ++terms)
      for (const size_t shift : {size_t{0}, size_t{1}}) {  // on a vector's boundary and off it
        std::vector<Values<float>> x;
        auto out = Values<float>::poisoned(count + shift);
        Combination job;
        for (size_t t = 0; t < terms; ++t) x.emplace_back(random(count + shift, static_cast<uint32_t>(t + 1)));
        for (size_t t = 0; t < terms; ++t) {
          job.x[t] = x[t].data() + shift;
          job.coefficient[t] = coefficients[t];
        }
        job.terms = static_cast<int32_t>(terms);
        job.out = out.data() + shift;
        job.count = static_cast<int64_t>(count);
        combine(job, {});
        std::vector<double> sums(count);
        for (size_t i = 0; i < count; ++i) {
          for (size_t t = 0; t < terms; ++t) sums[i] += coefficients[t] * x[t].exact[i + shift];
          ASSERT_EQ(out[i + shift], static_cast<double>(static_cast<float>(sums[i]))) << i << " of " << count << ", " << terms << " terms";
        }
        EXPECT_TRUE(out.tailUntouched());
        if (shift > 0) {
          EXPECT_TRUE(std::isnan(out[0]));
        }
        // In place of one of its terms.
        job.out = x.back().data() + shift;
        combine(job, {});
        for (size_t i = 0; i < count; ++i) ASSERT_EQ(x.back()[i + shift], out[i + shift]);
      }
}

TEST(Latent, ChannelsAreProjectedAtEveryPosition) {
  for (const size_t positions : {size_t{1}, size_t{85}, size_t{515}})
    for (const size_t columns : {size_t{3}, size_t{1}}) {
      const size_t channels = 16;
      const Values<float> x(random(channels * positions, 1)), factors(random(channels * columns, 2)), offset(random(columns, 3));
      auto out = Values<float>::poisoned(positions * columns);
      projectChannels(x.data(), factors.data(), offset.data(), out.data(), static_cast<int64_t>(positions), 16, static_cast<int32_t>(columns), {});
      std::vector<double> expected;
      for (size_t i = 0; i < positions; ++i)
        for (size_t r = 0; r < columns; ++r) {
          expected.push_back(offset.exact[r]);
          for (size_t c = 0; c < channels; ++c) expected.back() += x.exact[c * positions + i] * factors.exact[c * columns + r];
        }
      EXPECT_LT(relativeError(out, expected), bound<float>());
      EXPECT_TRUE(out.tailUntouched());
    }
}

TEST(Latent, OneNanOrInfinityIsFoundAnywhereButBehindTheEnd) {
  for (const size_t count : {size_t{1}, size_t{1022}, size_t{1024}}) {
    Values<float> x(random(count, 1));  // NaN behind the end
    const auto found = [&] {
      uint32_t flag = 0;
      findNotFinite(x.data(), static_cast<int64_t>(count), &flag, {});
      return flag != 0;
    };
    EXPECT_FALSE(found());
    for (const size_t at : {size_t{0}, count / 2, count - 1})
      for (const float bad : {std::numeric_limits<float>::quiet_NaN(), -std::numeric_limits<float>::infinity()}) {
        const float good = std::exchange(x.stored[at], bad);
        EXPECT_TRUE(found()) << at;
        x.stored[at] = good;
      }
  }
}

}  // namespace
}  // namespace vmoba::cuda
