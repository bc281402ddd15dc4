// The tile operations on the CPU: functions with the documented meaning of a GPU's instructions, over the emulated thread
// block the calling fiber belongs to. Included by kernels/cuda/tile/tile.h only.
#pragma once
#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/emulation/block.h"

namespace vmoba::tile {

inline int threadIndex() { return emulation::current().index; }
inline Extent blockIndex() {
  const auto& index = emulation::current().block->index();
  return {index.x, index.y, index.z};
}
inline Extent gridExtent() {
  const auto& grid = emulation::current().block->shape().grid;
  return {grid.x, grid.y, grid.z};
}
inline int blockThreads() { return emulation::current().block->shape().threads; }

inline void barrier() { emulation::current().block->barrier(); }
inline void warpBarrier() { emulation::current().block->warpBarrier(); }

inline bool planted(emulation::PlantedFault::Kind kind) { return emulation::current().block->options().fault.kind == kind; }

inline bool within(int64_t index, int64_t count) {
  return index < count - (planted(emulation::PlantedFault::RaggedTail) ? 1 : 0);
}
inline bool within(int index, int count) { return within(int64_t{index}, int64_t{count}); }

// Scalars ----------------------------------------------------------------------------------------------------------

inline uint32_t bitsOfFloat(float value) { return std::bit_cast<uint32_t>(value); }
inline float floatOfBits(uint32_t bits) { return std::bit_cast<float>(bits); }
inline float fma(float a, float b, float c) { return std::fmaf(a, b, c); }
inline float maximum(float a, float b) { return std::fmax(a, b); }
inline float minimum(float a, float b) { return std::fmin(a, b); }
inline float squareRoot(float value) { return std::sqrt(value); }
inline double squareRoot(double value) { return std::sqrt(value); }
inline float exponential(float value) { return std::exp(value); }
inline float reciprocal(float value) { return 1 / value; }
inline float logarithm2Quick(float value) { return std::log2(value); }
inline float exponential2(float value) { return std::exp2(value); }
inline float logarithm2(float value) { return std::log2(value); }
inline float hyperbolicTangent(float value) { return std::tanh(value); }
inline float errorFunction(float value) { return std::erf(value); }
inline uint32_t packBf16(float low, float high) {
  return static_cast<uint32_t>(vmoba::toBf16(low).bits) | (static_cast<uint32_t>(vmoba::toBf16(high).bits) << 16);
}
inline int renewed(int value) { return value; }
inline int populationCount(uint32_t bits) { return std::popcount(bits); }
inline int lowestBit(uint32_t bits) { return bits ? std::countr_zero(bits) : -1; }
inline int highestBit(uint32_t bits) { return 31 - std::countl_zero(bits); }
inline uint32_t setBit(uint32_t word, int bit) {
  return word | (1u << (planted(emulation::PlantedFault::SelectionBit) ? bit ^ 1 : bit));
}
inline bool bitOf(uint32_t word, int bit) { return (word >> bit) & 1u; }

// Warp -------------------------------------------------------------------------------------------------------------

template <class T>
T exchange(const char* name, T value, int source) {
  struct Slot {
    T value, result;
    int source;
  } mine{value, value, source};
  emulation::current().block->collective(name, mine, [](const auto& lane) {
    for (int i = 0; i < warpLanes; ++i) {
      const int from = lane(i).source;
      lane(i).result = from >= 0 && from < warpLanes ? lane(from).value : lane(i).value;
    }
  });
  return mine.result;
}
template <class T>
T shuffle(T value, int lane) {
  return exchange("a shuffle", value, lane % warpLanes);
}
inline uint32_t uniform(uint32_t value) {
  emulation::current().block->collective("a uniform value", value, [](const auto& lane) {
    for (int i = 1; i < warpLanes; ++i)
      if (lane(i) != lane(0)) emulation::current().block->fail("a value said to be uniform differs between lanes");
  });
  return value;
}
template <class T>
T shuffleXor(T value, int mask) {
  return exchange("a shuffle", value, emulation::current().lane ^ mask);
}
template <class T>
T shuffleUp(T value, int delta) {
  return exchange("a shuffle", value, emulation::current().lane - delta);
}
inline uint32_t ballot(bool predicate) {
  struct Slot {
    bool predicate;
    uint32_t bits;
  } mine{predicate, 0};
  emulation::current().block->collective("a ballot", mine, [](const auto& lane) {
    uint32_t bits = 0;
    for (int i = 0; i < warpLanes; ++i) bits |= (lane(i).predicate ? 1u : 0u) << i;
    for (int i = 0; i < warpLanes; ++i) lane(i).bits = bits;
  });
  return mine.bits;
}
template <int Bits>
uint32_t lanesAlike(uint32_t value) {
  struct Slot {
    uint32_t value, alike;
  } mine{value & ((1u << Bits) - 1u), 0};
  emulation::current().block->collective("a match", mine, [](const auto& lane) {
    for (int i = 0; i < warpLanes; ++i)
      for (int j = 0; j < warpLanes; ++j) lane(i).alike |= (lane(i).value == lane(j).value ? 1u : 0u) << j;
  });
  return mine.alike;
}

// Shared memory ----------------------------------------------------------------------------------------------------

template <class T>
class Shared {
  static_assert(sizeof(T) >= 2, "races are found in units of two bytes");

 public:
  Shared(uint32_t offset, int count) : offset_(offset), count_(count) {}
  T get(int i) const {
    T value;
    std::memcpy(&value, block().read(place<T>(i), sizeof(T)), sizeof(T));
    return value;
  }
  void set(int i, T value) const { std::memcpy(block().write(place<T>(i), sizeof(T)), &value, sizeof(T)); }
  Shared from(int first) const { return Shared(offset_ + static_cast<uint32_t>(first) * static_cast<uint32_t>(sizeof(T)), count_ - first); }
  template <class U>
  U getAs(int i) const {
    U value;
    std::memcpy(&value, block().read(place<U>(i), sizeof(U)), sizeof(U));
    return value;
  }
  template <class U>
  void setAs(int i, U value) const {
    std::memcpy(block().write(place<U>(i), sizeof(U)), &value, sizeof(U));
  }
  /// Byte offset of element i (in units of U), checked against the window and U's alignment.
  template <class U = T>
  uint32_t place(int i) const {
    if (i < 0 || (static_cast<int64_t>(i) + 1) * static_cast<int64_t>(sizeof(U)) > static_cast<int64_t>(count_) * static_cast<int64_t>(sizeof(T)))
      block().fail("element " + std::to_string(i) + " is outside a window of " + std::to_string(count_) + " elements");
    const uint32_t at = offset_ + static_cast<uint32_t>(i) * static_cast<uint32_t>(sizeof(U));
    if (at % alignof(U) != 0) block().fail("shared byte " + std::to_string(at) + " is misaligned for its type");
    return at;
  }

 private:
  static emulation::Block& block() { return *emulation::current().block; }
  uint32_t offset_;
  int count_;
};

template <class T>
Shared<T> sharedWindow(int byteOffset, int count) {
  emulation::Block& block = *emulation::current().block;
  if (byteOffset < 0 || static_cast<size_t>(byteOffset) + static_cast<size_t>(count) * sizeof(T) > block.shape().sharedBytes)
    block.fail("a window of " + std::to_string(count) + " elements at byte " + std::to_string(byteOffset) + " exceeds the " +
               std::to_string(block.shape().sharedBytes) + " bytes of shared memory");
  return Shared<T>(static_cast<uint32_t>(byteOffset), count);
}

template <int Bytes, class T>
void copyAsync(Shared<T> destination, int i, const T* source, int validBytes = Bytes) {
  static_assert(Bytes == 16 || Bytes == 8 || Bytes == 4);
  emulation::current().block->startCopy(destination.place(i), source, Bytes, validBytes);
}
inline void commitCopies() { emulation::current().block->commitCopies(); }
template <int GroupsLeft>
void waitCopies() {
  emulation::current().block->waitCopies(GroupsLeft);
}

template <bool Transposed>
void loadMatricesOf(uint32_t (&r)[4], Shared<Bf16> window, int element) {
  emulation::Block& block = *emulation::current().block;
  struct Slot {
    uint16_t row[8];
    uint32_t r[4];
  } mine;
  const uint32_t at = window.place(element);
  if (at % 16 != 0) block.fail("ldmatrix row at shared byte " + std::to_string(at) + " is not 16-byte aligned");
  std::memcpy(mine.row, block.read(at, 16), 16);
  block.collective("ldmatrix", mine, [](const auto& lane) {
    for (int t = 0; t < warpLanes; ++t)
      for (int m = 0; m < 4; ++m) {
        uint32_t low, high;
        if constexpr (Transposed) {
          low = lane(8 * m + 2 * (t % 4)).row[t / 4];
          high = lane(8 * m + 2 * (t % 4) + 1).row[t / 4];
        } else {
          low = lane(8 * m + t / 4).row[2 * (t % 4)];
          high = lane(8 * m + t / 4).row[2 * (t % 4) + 1];
        }
        lane(t).r[m] = low | (high << 16);
      }
  });
  std::memcpy(r, mine.r, sizeof(r));
}
inline void loadMatrices(uint32_t (&r)[4], Shared<Bf16> window, int element) { loadMatricesOf<false>(r, window, element); }
inline void loadMatricesTransposed(uint32_t (&r)[4], Shared<Bf16> window, int element) { loadMatricesOf<true>(r, window, element); }

inline void multiplyAccumulate(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  struct Slot {
    float c[4];
    uint32_t a[4], b[2];
  } mine{{c[0], c[1], c[2], c[3]}, {a[0], a[1], a[2], a[3]}, {b0, b1}};
  if (planted(emulation::PlantedFault::SwapFragment)) std::swap(mine.a[1], mine.a[2]);
  emulation::current().block->collective("mma", mine, [](const auto& lane) {
    const auto low = [](uint32_t pair) { return std::bit_cast<float>(pair << 16); };
    const auto high = [](uint32_t pair) { return std::bit_cast<float>(pair & 0xffff0000u); };
    float rows[16][16], columns[16][8], sum[16][8];
    for (int t = 0; t < warpLanes; ++t) {
      const Slot& slot = lane(t);
      const int g = t / 4, two = 2 * (t % 4);
      for (int half = 0; half < 2; ++half) {
        rows[g][two + 8 * half] = low(slot.a[2 * half]);
        rows[g][two + 8 * half + 1] = high(slot.a[2 * half]);
        rows[g + 8][two + 8 * half] = low(slot.a[2 * half + 1]);
        rows[g + 8][two + 8 * half + 1] = high(slot.a[2 * half + 1]);
        columns[two + 8 * half][g] = low(slot.b[half]);
        columns[two + 8 * half + 1][g] = high(slot.b[half]);
        sum[g + 8 * half][two] = slot.c[2 * half];
        sum[g + 8 * half][two + 1] = slot.c[2 * half + 1];
      }
    }
    for (int i = 0; i < 16; ++i)
      for (int k = 0; k < 16; ++k)
        for (int j = 0; j < 8; ++j) sum[i][j] += rows[i][k] * columns[k][j];
    for (int t = 0; t < warpLanes; ++t) {
      Slot& slot = lane(t);
      const int g = t / 4, two = 2 * (t % 4);
      for (int half = 0; half < 2; ++half) {
        slot.c[2 * half] = sum[g + 8 * half][two];
        slot.c[2 * half + 1] = sum[g + 8 * half][two + 1];
      }
    }
  });
  std::memcpy(c, mine.c, sizeof(c));
}

// Atomics ----------------------------------------------------------------------------------------------------------

template <class T>
T atomicAdd(T* address, T value) {
  return std::atomic_ref<T>(*address).fetch_add(value);
}
inline uint32_t atomicOr(uint32_t* address, uint32_t value) { return std::atomic_ref<uint32_t>(*address).fetch_or(value); }
inline uint32_t atomicMax(uint32_t* address, uint32_t value) {
  std::atomic_ref<uint32_t> place(*address);
  uint32_t before = place.load();
  while (before < value && !place.compare_exchange_weak(before, value)) {
  }
  return before;
}
inline uint32_t atomicMin(uint32_t* address, uint32_t value) {
  std::atomic_ref<uint32_t> place(*address);
  uint32_t before = place.load();
  while (before > value && !place.compare_exchange_weak(before, value)) {
  }
  return before;
}
template <class T>
T atomicAdd(Shared<T> window, int i, T value) {
  std::byte* at = emulation::current().block->update(window.place(i), sizeof(T));
  T before;
  std::memcpy(&before, at, sizeof(T));
  const T after = before + value;
  std::memcpy(at, &after, sizeof(T));
  return before;
}
inline uint32_t atomicOr(Shared<uint32_t> window, int i, uint32_t value) {
  std::byte* at = emulation::current().block->update(window.place(i), sizeof(uint32_t));
  uint32_t before;
  std::memcpy(&before, at, sizeof(before));
  const uint32_t after = before | value;
  std::memcpy(at, &after, sizeof(after));
  return before;
}

}  // namespace vmoba::tile
