// 3-D convolutions on channels-last images as implicit GEMM: the matrix of gathered input pixels is never stored. No temporal
// padding: callers prepend cached frames (causal VAE).
#pragma once
#include <cstdint>

#include "kernels/cuda/tile/launch.h"

namespace vmoba::cuda {

struct ConvShape {
  int32_t height = 0, width = 0, channels = 0;        ///< of the input; its frames are implied
  int32_t outFrames = 0, outHeight = 0, outWidth = 0;
  int32_t kernelT = 1, kernelH = 1, kernelW = 1;
  int32_t strideT = 1, strideH = 1, strideW = 1;
  int32_t padTop = 0, padLeft = 0;                    ///< what lies beyond the image is zero on every side
};

struct ConvJob {
  DType type = DType::F32;          ///< of x, weight, residual and out
  const void* x = nullptr;          ///< [T, H, W, C]
  const void* weight = nullptr;     ///< [outChannels, kt·kh·kw, C], see arrangeConvWeight
  const float* bias = nullptr;      ///< [outChannels] or null
  const void* residual = nullptr;   ///< like out, added; or null
  void* out = nullptr;              ///< [outFrames, outHeight, outWidth, outChannels]
  ConvShape shape;
  int32_t outChannels = 0;
};
void conv3d(const ConvJob& job, tile::Stream stream);

/// [out, in, taps] as checkpoints store it -> [out, taps, in], converted to `type`; `source` F32, F16 or BF16.
void arrangeConvWeight(const void* source, DType sourceType, void* destination, DType type, int64_t outputs, int64_t inputs, int64_t taps, tile::Stream stream);

}  // namespace vmoba::cuda
