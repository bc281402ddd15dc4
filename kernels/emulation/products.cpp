#include "kernels/emulation/products.h"

#include <bit>
#include <stdexcept>
#include <string>

namespace vmoba::emulation {
namespace {

float floatOf(uint32_t bf16) { return std::bit_cast<float>(bf16 << 16); }

}  // namespace

// Bits 0-13 start address, 16-29 leading dimension byte offset, 32-45 stride dimension byte offset (each without its four lowest
// bits), 49-51 base offset, 62-63 swizzle mode (1: 128 bytes).
MatrixDescriptor::MatrixDescriptor(uint64_t bits, bool mnMajor) : mnMajor_(mnMajor) {
  const auto field = [bits](int first, int width) { return static_cast<uint32_t>(bits >> first & ((uint64_t{1} << width) - 1)); };
  start = field(0, 14) << 4;
  leadingBytes = field(16, 14) << 4;
  strideBytes = field(32, 14) << 4;
  const auto refuse = [](const std::string& what) { throw std::invalid_argument("a matrix descriptor " + what); };
  if (field(14, 2) || field(30, 2) || field(46, 3) || field(52, 10)) refuse("has reserved bits set");
  if (field(62, 2) != 1) refuse("asks for swizzle mode " + std::to_string(field(62, 2)) + ", only 128-byte swizzle is emulated");
  if (field(49, 3) != 0) refuse("has a base offset");
  if (start % 1024 >= (mnMajor ? 1u : 128u)) refuse("starts at byte " + std::to_string(start) + ", where no swizzle pattern begins");
}

// Atoms are eight rows of 128 bytes. K-major: a row is one mn, and each eight mn lie `stride` apart. MN-major: a row is one k with
// 64 mn along it; each eight k lie `stride` apart, each 64 mn `leading`. The swizzle permutes the 16-byte pieces of a row by the
// row's number in its atom, that is address bits 4-6 by bits 7-9.
uint32_t MatrixDescriptor::offset(int mn, int k) const {
  const auto m = static_cast<uint32_t>(mn), c = static_cast<uint32_t>(k);
  const uint32_t at = start + (mnMajor_ ? m / 64 * leadingBytes + c / 8 * strideBytes + c % 8 * 128 + m % 64 * 2 : m / 8 * strideBytes + m % 8 * 128 + c * 2);
  return plain ? at : at ^ (at >> 7 & 7) << 4;
}

void Product::locate() {
  if (!shape.fragments) {
    const MatrixDescriptor a(shape.a, false);
    for (int row = 0; row < 16; ++row)
      for (int k = 0; k < 16; k += 8) pieces.push_back(a.offset(warp % 4 * 16 + row, k));
  }
  const MatrixDescriptor b(shape.b, shape.bTransposed);
  if (shape.bTransposed) {
    for (int k = 0; k < 16; ++k)
      for (int n = 0; n < shape.columns; n += 8) pieces.push_back(b.offset(n, k));
  } else {
    for (int n = 0; n < shape.columns; ++n)
      for (int k = 0; k < 16; k += 8) pieces.push_back(b.offset(n, k));
  }
}

void Product::finish(bool plain, const std::function<uint16_t(uint32_t)>& element) const {
  const auto columns = static_cast<size_t>(shape.columns);
  float a[16][16];
  std::vector<float> b(16 * columns), d(16 * columns);
  if (shape.fragments) {
    for (int lane = 0; lane < 32; ++lane)
      for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + i % 2 * 8, k = lane % 4 * 2 + i / 2 * 8;
        a[row][k] = floatOf(lanes[lane].a[i] & 0xffffu);
        a[row][k + 1] = floatOf(lanes[lane].a[i] >> 16);
      }
  } else {
    MatrixDescriptor descriptor(shape.a, false);
    descriptor.plain = plain;
    for (int row = 0; row < 16; ++row)
      for (int k = 0; k < 16; ++k) a[row][k] = floatOf(element(descriptor.offset(warp % 4 * 16 + row, k)));
  }
  MatrixDescriptor descriptor(shape.b, shape.bTransposed);
  descriptor.plain = plain;
  for (int k = 0; k < 16; ++k)
    for (size_t n = 0; n < columns; ++n) b[static_cast<size_t>(k) * columns + n] = floatOf(element(descriptor.offset(static_cast<int>(n), k)));

  // Register i of a lane: row lane/4, eight further where i%4 >= 2; column 8·(i/4) + 2·(lane%4) + i%2.
  const auto place = [columns](int lane, size_t i) { return static_cast<size_t>(lane / 4 + static_cast<int>(i % 4 / 2) * 8) * columns + i / 4 * 8 + static_cast<size_t>(lane % 4 * 2) + i % 2; };
  for (int lane = 0; lane < 32; ++lane)
    for (size_t i = 0; i < columns / 2; ++i)
      d[place(lane, i)] = !shape.accumulate ? 0.0f : before.empty() ? lanes[lane].d[i] : before[static_cast<size_t>(lane) * columns / 2 + i];
  for (size_t row = 0; row < 16; ++row)
    for (size_t k = 0; k < 16; ++k)
      for (size_t n = 0; n < columns; ++n) d[row * columns + n] += a[row][k] * b[k * columns + n];
  for (int lane = 0; lane < 32; ++lane)
    for (size_t i = 0; i < columns / 2; ++i) lanes[lane].d[i] = d[place(lane, i)];
}

}  // namespace vmoba::emulation
