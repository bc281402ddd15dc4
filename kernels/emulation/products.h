// wgmma as the PTX manual describes it: where the elements of its operands lie in shared memory, and which lane holds which
// element of fragments and accumulators. Knows nothing of how a kernel lays them out.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

namespace vmoba::emulation {

/// The manual's matrix descriptor, decoded. Only 128-byte swizzle with patterns at multiples of 1024 bytes is known here.
struct MatrixDescriptor {
  uint32_t start = 0, leadingBytes = 0, strideBytes = 0;
  bool plain = false;  ///< a planted fault: nothing is swizzled
  /// Throws std::invalid_argument saying what is wrong with the bits.
  MatrixDescriptor(uint64_t bits, bool mnMajor);
  /// Byte offset in shared memory of element (mn, k), k < 16.
  uint32_t offset(int mn, int k) const;

 private:
  bool mnMajor_;
};

/// One product that a warp takes part in with 16 of its warpgroup's 64 rows.
struct Product {
  /// What the instruction says, alike in all lanes of the warpgroup.
  struct Shape {
    int columns = 0;            ///< of D: N
    bool fragments = false;     ///< A comes from registers, not from the descriptor `a`
    bool bTransposed = false;   ///< B is MN-major
    bool accumulate = true;
    uint64_t a = 0, b = 0;
    bool operator==(const Shape&) const = default;
  };
  struct Lane {
    float* d = nullptr;         ///< [columns/2] accumulators
    uint32_t a[4] = {};         ///< fragment of A
  };

  Shape shape;
  int warp = 0;
  Lane lanes[32];
  std::vector<float> before;    ///< [32, columns/2] accumulators at the start; empty where an earlier product in flight makes them
  std::vector<uint32_t> pieces; ///< byte offsets of the 16-byte pieces it reads

  /// Lists `pieces`. Throws as MatrixDescriptor does.
  void locate();
  /// Writes the accumulators. `element(offset)`: bf16 bits in shared memory.
  void finish(bool plain, const std::function<uint16_t(uint32_t)>& element) const;
};

}  // namespace vmoba::emulation
