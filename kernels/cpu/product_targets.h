// What the dispatcher of matrix products asks of the kernel. Internal to both.
#pragma once
#include "kernels/cpu/product.h"

namespace vmoba::cpu {

// The kernel computes squares of kSquare rows and columns, whose products it adds 32 inputs (a step) at a time.
constexpr int64_t kSquare = 32, kStepInputs = 32;
/// Weights are packed as [panels of kSquare outputs][steps][2 groups of 16 outputs][16 pairs of inputs][16 outputs][2].
constexpr int64_t kStepElements = kSquare * kStepInputs;
/// Inputs whose products with one panel are added before the next: as many as leave room for the other operand in the first-level cache.
constexpr int64_t kSpanInputs = 512;
/// Rows and inputs of x that stay in the second-level cache while the weights pass by.
constexpr int64_t kBlockRows = 256, kBlockInputs = 1536;
/// Panels of one block where its sums wait for further inputs: bounds the memory they wait in.
constexpr int64_t kMostPanels = 128;

inline int64_t partsOf(int64_t whole, int64_t most) { return (whole + most - 1) / most; }

/// Rows [firstRow, lastRow) and panels [firstPanel, lastPanel) of a product.
struct ProductBlock {
  const Product& job;
  int64_t firstRow, lastRow, firstPanel, lastPanel;
  uint16_t* packed;  ///< [kBlockRows, kBlockInputs]
  float* square;     ///< [kSquare, kSquare]
  float* sums;       ///< [panels of the block, kBlockRows, kSquare]; one panel where all inputs fit
};

#if defined(VMOBA_AMX)
namespace amx {
void multiplyBlock(const ProductBlock& block);
}
#endif

}  // namespace vmoba::cpu
