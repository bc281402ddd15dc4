// Hopper's tile operations on the CPU, over the emulated thread block. Included by kernels/cuda/tile/warpgroup.h only.
#pragma once

namespace vmoba::tile {

inline void initPhase(Shared<uint64_t> barriers, int i, int arrivals) { emulation::current().block->initPhase(barriers.place(i), arrivals); }
inline void arrivePhase(Shared<uint64_t> barriers, int i) { emulation::current().block->arrivePhase(barriers.place(i)); }
inline void waitPhase(Shared<uint64_t> barriers, int i, int parity) { emulation::current().block->waitPhase(barriers.place(i), parity); }
inline void fenceAsyncProxy() { emulation::current().block->fenceAsyncProxy(); }

inline void expectBytes(Shared<uint64_t> barriers, int i, int bytes) { emulation::current().block->expectBytes(barriers.place(i), bytes); }

struct RowBoxes {
  const Bf16* matrix = nullptr;
  int64_t rows = 0;
  int columns = 0, boxRows = 0;
};
inline RowBoxes rowBoxes(const Bf16* matrix, int64_t rows, int columns, int boxRows) { return {matrix, rows, columns, boxRows}; }
inline void fetchBox(Shared<Bf16> to, int element, const RowBoxes& boxes, int panel, int row, Shared<uint64_t> barriers, int barrier) {
  std::vector<const std::byte*> rows;
  for (int64_t i = row; i < row + boxes.boxRows; ++i)
    rows.push_back(i < boxes.rows ? reinterpret_cast<const std::byte*>(boxes.matrix + i * boxes.columns + panel * 64) : nullptr);
  emulation::current().block->fetchBox(barriers.place(barrier), to.place(element), std::move(rows));
}

template <int Registers>
void keepRegisters() {
  static_assert(Registers % 8 == 0 && Registers >= 24 && Registers <= 256);
}
template <int Registers>
void claimRegisters() {
  static_assert(Registers % 8 == 0 && Registers >= 24 && Registers <= 256);
}

inline Operand operand(Shared<Bf16> window, int element, int panelBytes = 16) { return operandAt(window.place(element), panelBytes); }

template <class... Registers>
void fenceProducts(Registers&&...) {
  emulation::current().block->fenceProducts();
}
inline void commitProducts() { emulation::current().block->commitProducts(); }
template <int GroupsLeft, class... Registers>
void waitProducts(Registers&... registers) {
  emulation::Block& block = *emulation::current().block;
  block.waitProducts(GroupsLeft);
  (block.requireSettled(registers), ...);
}

template <int N>
void multiplyAsync(float (&d)[N], Operand a, Operand b, bool accumulate) {
  emulation::current().block->startProduct({d, {}}, {2 * N, false, false, accumulate, a.bits(), b.bits()});
}
template <int N>
void multiplyAsyncByRows(float (&d)[N], const uint32_t (&a)[4], Operand b, bool accumulate = true) {
  emulation::Product::Lane lane{d, {a[0], a[1], a[2], a[3]}};
  if (planted(emulation::PlantedFault::SwapFragment)) std::swap(lane.a[1], lane.a[2]);
  emulation::current().block->startProduct(lane, {2 * N, true, true, accumulate, 0, b.bits()});
}

}  // namespace vmoba::tile
