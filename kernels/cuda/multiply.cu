#include "kernels/cuda/multiply.h"

namespace vmoba::cuda {
namespace {

template <class T>
struct Multiply {
  static constexpr const char* name = "multiply";
  static constexpr int threads = 256, blocksPerSM = 4, perThread = 4;
  struct Arguments {
    const T* a;
    const T* b;
    T* out;
    int64_t count;
  };
  static TILE_DEVICE void run(const Arguments& x) {
    const int64_t first = int64_t{tile::blockIndex().x} * threads * perThread + tile::threadIndex();
    TILE_UNROLL
    for (int j = 0; j < perThread; ++j) {
      const int64_t i = first + int64_t{j} * threads;
      if (tile::within(i, x.count)) x.out[i] = tile::fromFloat<T>(tile::toFloat(x.a[i]) * tile::toFloat(x.b[i]));
    }
  }
};

}  // namespace

template <class T>
void multiply(tile::Stream stream, const T* a, const T* b, T* out, int64_t count) {
  using Kernel = Multiply<T>;
  tile::launch<Kernel>(stream, {tile::divideUp(count, Kernel::threads * Kernel::perThread)}, 0, {a, b, out, count});
}

template void multiply<float>(tile::Stream, const float*, const float*, float*, int64_t);
template void multiply<Bf16>(tile::Stream, const Bf16*, const Bf16*, Bf16*, int64_t);

}  // namespace vmoba::cuda
