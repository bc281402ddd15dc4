// Linear layers by our own tiles: the strict f32 path, and bf16 where cuBLASLt is not installed.
#include "kernels/cuda/linear.h"

#include "kernels/cuda/products.cuh"

namespace vmoba::cuda {
namespace {

template <class Out, bool Aligned>
struct LinearBf16 {
  static constexpr const char* name = "linear bf16";
  static constexpr int threads = bf16product::threads, blocksPerSM = 2;
  struct Arguments {
    const Bf16* x;
    const Bf16* weight;
    int64_t m;
    int n, k;
    Epilogue<Out> epilogue;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    using namespace bf16product;
    const int64_t m0 = int64_t{tile::blockIndex().x} * tileM, n0 = int64_t{tile::blockIndex().y} * tileN;
    MatrixRows<Aligned> a{p.x, p.m, p.k, {}, {}}, w{p.weight, p.n, p.k, {}, {}};
    TILE_UNROLL
    for (int i = 0; i < 2; ++i) {
      a.select(i, m0 + tile::threadIndex() / 4 + 64 * i);
      w.select(i, n0 + tile::threadIndex() / 4 + 64 * i);
    }
    bf16product::run(a, w, m0, n0, p.m, p.n, p.k, p.epilogue);
  }
};

struct LinearF32 {
  static constexpr const char* name = "linear f32";
  static constexpr int threads = f32product::threads, blocksPerSM = 4;
  struct Arguments {
    const float* x;
    const float* weight;
    int64_t m;
    int n, k;
    Epilogue<float> epilogue;
  };
  static TILE_DEVICE void run(const Arguments& p) {
    using namespace f32product;
    const int64_t m0 = int64_t{tile::blockIndex().x} * tileM, n0 = int64_t{tile::blockIndex().y} * tileN;
    MatrixRows a{p.x, p.m, p.k, nullptr, false}, w{p.weight, p.n, p.k, nullptr, false};
    a.select(m0 + tile::threadIndex());
    w.select(n0 + tile::threadIndex());
    f32product::run(a, w, m0, n0, p.m, p.n, p.k, p.epilogue);
  }
};

template <class Out>
void linearBf16(const LinearJob& job, tile::Stream stream) {
  const auto* x = static_cast<const Bf16*>(job.x);
  const auto* weight = static_cast<const Bf16*>(job.weight);
  auto* out = static_cast<Out*>(job.out);
  const Epilogue<Out> epilogue{job.bias, nullptr, out, job.function, job.n % 4 == 0 && alignedForFour(out)};
  const tile::Extent grid{tile::divideUp(job.m, bf16product::tileM), tile::divideUp(job.n, bf16product::tileN)};
  if (job.k % bf16product::chunk == 0 && reinterpret_cast<uintptr_t>(x) % 16 == 0) {
    tile::launch<LinearBf16<Out, true>>(stream, grid, bf16product::sharedBytes, {x, weight, job.m, job.n, job.k, epilogue});
  } else {
    tile::launch<LinearBf16<Out, false>>(stream, grid, bf16product::sharedBytes, {x, weight, job.m, job.n, job.k, epilogue});
  }
}

}  // namespace

void linear(const LinearJob& job, tile::Stream stream) {
  if (job.type == DType::F32) {
    const Epilogue<float> epilogue{job.bias, nullptr, static_cast<float*>(job.out), job.function, false};
    tile::launch<LinearF32>(stream, {tile::divideUp(job.m, f32product::tileM), tile::divideUp(job.n, f32product::tileN)}, f32product::sharedBytes,
                            {static_cast<const float*>(job.x), static_cast<const float*>(job.weight), job.m, job.n, job.k, epilogue});
  } else if (job.outType == DType::BF16) {
    linearBf16<Bf16>(job, stream);
  } else {
    linearBf16<float>(job, stream);
  }
}

}  // namespace vmoba::cuda
