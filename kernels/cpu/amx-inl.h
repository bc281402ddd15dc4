// The matrix unit's instructions and what is made of them, by plain intrinsics and assembly. Included inside the namespace of each file
// compiled for such processors (no include guard). Tile loads and stores are opaque to the compiler: they clobber memory.

// The eight tile registers: sums of 2 x 2 tiles, two tiles of rows, two of keys or values. All are 16 rows of 64 bytes.
constexpr int kSums = 0, kLeft = 4, kRight = 6;

struct alignas(64) Configuration {
  uint8_t palette = 1, start = 0, reserved[14] = {};
  uint16_t columnBytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr Configuration kConfiguration;

template <int T>
inline void zeroTile() {
  asm volatile("tilezero %%tmm%c0" ::"n"(T));
}
template <int T>
inline void loadTile(const uint16_t* from, int64_t stride) {
  asm volatile("tileloadd (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride * 2), "n"(T) : "memory");
}
/// What is read once and would only drive the rest out of the first-level cache.
template <int T>
inline void streamTile(const uint16_t* from, int64_t stride) {
  asm volatile("tileloaddt1 (%0,%1,1), %%tmm%c2" ::"r"(from), "r"(stride * 2), "n"(T) : "memory");
}
template <int T>
inline void storeTile(float* to, int64_t stride) {
  asm volatile("tilestored %%tmm%c2, (%0,%1,1)" ::"r"(to), "r"(stride * 4), "n"(T) : "memory");
}
template <int Sum, int Left, int Right>
inline void multiplyTiles() {
  asm volatile("tdpbf16ps %%tmm%c2, %%tmm%c1, %%tmm%c0" ::"n"(Sum), "n"(Left), "n"(Right));
}

/// Sums of H x W tiles.
template <int H, int W>
inline void zeroSums() {
  zeroTile<kSums>();
  if constexpr (W > 1) zeroTile<kSums + 1>();
  if constexpr (H > 1) zeroTile<kSums + 2>();
  if constexpr (H > 1 && W > 1) zeroTile<kSums + 3>();
}
/// Which operand is read once and would only drive the other out of the first-level cache.
enum Streamed { kStreamNeither, kStreamLeft, kStreamRight };
/// sums += left [16 H rows, 32]·right [32, 16 W]; `right` holds words of two elements, its second tile `rightOffset` elements on.
template <int H, int W, Streamed kStreamed>
inline void multiplySums(const uint16_t* left, int64_t leftStride, const uint16_t* right, int64_t rightOffset, int64_t rightStride) {
  const auto loadLeft = [&]<int T>(const uint16_t* from) { kStreamed == kStreamLeft ? streamTile<T>(from, leftStride) : loadTile<T>(from, leftStride); };
  const auto loadRight = [&]<int T>(const uint16_t* from) { kStreamed == kStreamRight ? streamTile<T>(from, rightStride) : loadTile<T>(from, rightStride); };
  loadLeft.template operator()<kLeft>(left);
  loadRight.template operator()<kRight>(right);
  multiplyTiles<kSums, kLeft, kRight>();
  if constexpr (W > 1) {
    loadRight.template operator()<kRight + 1>(right + rightOffset);
    multiplyTiles<kSums + 1, kLeft, kRight + 1>();
  }
  if constexpr (H > 1) {
    loadLeft.template operator()<kLeft + 1>(left + 16 * leftStride);
    multiplyTiles<kSums + 2, kLeft + 1, kRight>();
    if constexpr (W > 1) multiplyTiles<kSums + 3, kLeft + 1, kRight + 1>();
  }
}
template <int H, int W>
inline void storeSums(float* to, int64_t stride) {
  storeTile<kSums>(to, stride);
  if constexpr (W > 1) storeTile<kSums + 1>(to + 16, stride);
  if constexpr (H > 1) storeTile<kSums + 2>(to + 16 * stride, stride);
  if constexpr (H > 1 && W > 1) storeTile<kSums + 3>(to + 16 * stride + 16, stride);
}
/// f<H, W>() with two tiles of rows or one, two tiles of columns or one.
template <class F>
inline void byShape(bool tall, bool wide, const F& f) {
  tall ? wide ? f.template operator()<2, 2>() : f.template operator()<2, 1>() : wide ? f.template operator()<1, 2>() : f.template operator()<1, 1>();
}
