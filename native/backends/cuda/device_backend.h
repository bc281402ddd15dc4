// The Backend over a DeviceRuntime: the CUDA runtime on a GPU, the emulated one in tests; nothing here knows which. Two
// streams: compute (operations in order) and copy (weights). One pool with a hard limit serves both.
//
// Easy to get wrong: memory goes back to the pool when the host lets go of a tensor, while the device may still use it. That is
// safe for the compute stream, where a later user is also enqueued later; the weight loader makes the copy stream wait.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "kernels/cuda/attention/plan_view.h"
#include "kernels/cuda/functions.h"
#include "kernels/cuda/tile/launch.h"
#include "native/backends/backend.h"
#include "native/backends/cuda/cublas_lt.h"
#include "native/backends/cuda/device_runtime.h"
#include "native/backends/cuda/timeline.h"
#include "native/backends/cuda/upload.h"
#include "native/backends/memory_pool.h"

namespace vmoba::cuda {

struct DeviceLinear final : LinearWeight {
  struct Part {
    int64_t first, rows;
    float scale;
  };
  Tensor values;      ///< [outputs, inputs] activation type, or F8E4M3 in parts
  std::vector<Part> parts;  ///< F8E4M3: rows that share a scale
  Tensor scales;      ///< the same [parts] f32
  Tensor bias;        ///< [outputs] f32, or empty
  Tensor biasInType;  ///< the same in the activation type, for cuBLASLt
  std::shared_ptr<Arrival> arrival;
};

struct DeviceConv final : ConvWeight {
  Tensor values;  ///< [outputs, taps, inputs] activation type
  Tensor bias;
  std::shared_ptr<Arrival> arrival;
};

class DeviceBackend final : public Backend {
 public:
  /// `library`: null = own products only. The pool's limit is options.memoryLimitBytes, or what is free now less a reserve for the desktop.
  DeviceBackend(std::string name, std::shared_ptr<DeviceRuntime> runtime, std::unique_ptr<CublasLt> library, const BackendOptions& options);
  ~DeviceBackend() override;

  std::string name() const override { return name_; }
  std::string instructionSet() const override;
  Precision precision() const override { return precision_; }

  Tensor allocate(DType dtype, Shape shape) override;
  void upload(const Tensor& destination, const void* host) override;
  void download(const Tensor& source, void* host) override;
  void copy(const Tensor& destination, const Tensor& source) override;
  void zero(const Tensor& tensor) override;
  void synchronize() override;
  size_t bytesInUse() const override { return pool_->inUse(); }
  size_t peakBytes() const override { return pool_->peak(); }
  size_t peakHeldBytes() const override { return pool_->peakHeld(); }
  void restartPeaks() override { pool_->restartPeaks(); }
  void trim() override { pool_->trim(); }

  std::shared_ptr<LinearWeight> makeLinear(std::span<const WeightView* const> weights, std::span<const WeightView* const> biases) override;
  std::shared_ptr<ConvWeight> makeConv(const WeightView& weight, const WeightView* bias) override;

  void linear(const Tensor& x, const LinearWeight& weight, const Tensor& out, Activation activation) override;
  void layerNorm(const Tensor& x, const Tensor& gain, const Tensor& offset, bool gainPlusOne, float eps, const Tensor& out) override;
  void rmsNorm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) override;
  void addGated(const Tensor& x, const Tensor& y, const Tensor& gate) override;
  void addVectors(const Tensor& a, const Tensor& b, const Tensor& out) override;
  void activate(const Tensor& x, Activation activation, const Tensor& out) override;
  void multiply(const Tensor& a, const Tensor& b, const Tensor& out) override;
  void convert(const Tensor& source, const Tensor& destination) override;
  void selfAttention(const SelfAttentionOp& op) override;
  void crossAttention(const CrossAttentionOp& op) override;
  void biasedAttention(const Tensor& qkv, int32_t heads, const Tensor& bias, std::span<const int32_t> bucketOfDistance,
                       std::span<const uint8_t> keyMask, const Tensor& out) override;
  void patchify(const Tensor& latent, std::array<int32_t, 3> patch, const Tensor& rows) override;
  void unpatchify(const Tensor& rows, std::array<int32_t, 3> patch, const Tensor& latent) override;
  void combine(std::span<const Term> terms, const Tensor& out) override;
  void projectChannels(const Tensor& x, const Tensor& factors, const Tensor& offset, const Tensor& out) override;
  bool allFinite(const Tensor& x) override;

  void conv3d(const Tensor& x, const ConvWeight& weight, const Conv& conv, const Tensor& out, const Tensor& residual) override;
  void channelNorm(const Tensor& x, const Tensor& gamma, bool silu, const Tensor& out) override;
  void upsample2x(const Tensor& x, const Tensor& out) override;
  void channelsToFrames(const Tensor& x, const Tensor& out) override;
  void frameAttention(const Tensor& qkv, const Tensor& out) override;

  KindSeconds takeSeconds() override;

 private:
  /// A block plan on the device; the host's copy tells whether a later call means the same one.
  struct DevicePlan {
    BlockPlan host;
    Tensor data;
    PlanView view;
  };

  /// Launches `enqueue` on the compute stream as work of `kind`; polls the cancel flag before and paces after.
  void run(Kind kind, const char* operation, double flops, double bytes, const std::function<void(tile::Stream)>& enqueue);
  void poll();
  double mostFlopsPerLaunch() const;
  template <class T>
  Tensor uploaded(DType type, std::span<const T> values);
  template <class T>
  std::vector<T> hostValues(const Tensor& scratch, size_t offset, size_t count);
  // Weights that stay in fp8 (device_fp8.cpp). `linearInFp8` is false where the library cannot multiply this.
  Tensor dequantised(const DeviceLinear& weight);
  bool linearInFp8(const Tensor& x, const DeviceLinear& weight, const Tensor& out, Function function, int64_t mostRows);
  Tensor makeBias(std::span<const WeightView* const> biases);
  void requireFinite();

  const DevicePlan& planOn(const BlockPlan* blocks, int32_t tokens);
  static constexpr size_t kLandingBytes = size_t{8} << 20;
  std::string name_;
  Precision precision_;
  std::shared_ptr<DeviceRuntime> runtime_;
  std::unique_ptr<CublasLt> library_;
  bool keepFp8_;  ///< weights stored in fp8 stay so (VMOBA_FP8=1)
  bool hopper_;   ///< attention by wgmma (not where VMOBA_HOPPER=0)
  bool wideTiles_;  ///< which may take wide tiles of keys (where VMOBA_HOPPER=wide)
  std::shared_ptr<MemoryPool> pool_;
  PinnedSlots slots_;
  std::unique_ptr<std::byte, std::function<void(std::byte*)>> landing_;  ///< pinned memory downloads pass through
  Timeline timeline_;
  std::unique_ptr<WeightLoader> loader_;
  double linearFlops_ = 0;
  Tensor notFinite_;  ///< u32, set by kernels that meet NaN or infinity
  Tensor workspace_;  ///< of cuBLASLt
  std::deque<DevicePlan> plans_;
  /// What synchronize still has to do for the host (statistics). They point into the caller's memory, so an operation that throws forgets them.
  std::vector<std::function<void()>> afterWork_;
};

}  // namespace vmoba::cuda
