// The CPU backend: products and convolutions by oneDNN where the build has it (portable loops otherwise), bf16 products on a matrix
// unit, attention, norms and element-wise work by our kernels, all on the calling thread's pool.
#pragma once
#include <chrono>
#include <memory>

#include "native/backends/backend.h"
#include "native/backends/memory_pool.h"

namespace vmoba::cpu {

DeviceInfo describeCpu();
std::unique_ptr<Backend> makeCpuBackend(const BackendOptions& options);
/// True when products and attention both multiply bf16 at full speed, in this build and on this processor.
bool hasFastBf16();

/// Matrix products and convolutions: oneDNN or the portable implementation, chosen at build time; `withMatrixUnit` puts our own products before it.
class ProductLibrary {
 public:
  virtual ~ProductLibrary() = default;
  /// `rows` is [outputs, inputs] in `type`; the library may repack it. bias [outputs] or empty.
  virtual std::shared_ptr<LinearWeight> packLinear(const std::byte* rows, DType type, int64_t outputs, int64_t inputs,
                                                   std::span<const float> bias) = 0;
  virtual void linear(const std::byte* x, int64_t rows, const LinearWeight& weight, std::byte* out, DType outType, Activation activation,
                      std::span<std::byte> scratch) = 0;
  /// What `linear` needs of scratch.
  virtual size_t scratchBytes(const LinearWeight& /*weight*/, int /*threads*/) const { return 0; }
  /// `values` is [out, in, kt, kh, kw] in `type`.
  virtual std::shared_ptr<ConvWeight> packConv(const std::byte* values, DType type, int64_t outputs, int64_t inputs,
                                               std::array<int64_t, 3> kernel, std::span<const float> bias) = 0;
  virtual void conv(const std::byte* x, const Shape& in, const ConvWeight& weight, const Backend::Conv& conv, std::byte* out,
                    const Shape& outShape) = 0;
  /// About as many as take a tenth of a second.
  virtual double flopsPerPiece(const LinearWeight& /*weight*/) const { return 5e10; }
  /// Whether activations are bf16 and the matrix unit (AMX) may be used.
  virtual bool mayUseMatrixUnit() const { return false; }
  static std::unique_ptr<ProductLibrary> make(DType activationType);
  static const char* name();  ///< "oneDNN 2.6.3" or "portable"
  /// Whether the library multiplies bf16 by instructions made for it, and may use them.
  static bool hasFastBf16();
};

/// `library`, but for products that the processor's matrix unit does by our own kernel.
std::unique_ptr<ProductLibrary> withMatrixUnit(std::unique_ptr<ProductLibrary> library);

class CpuBackend final : public Backend {
 public:
  explicit CpuBackend(const BackendOptions& options);

  std::string name() const override { return "cpu"; }
  std::string instructionSet() const override;
  Precision precision() const override { return precision_; }
  int threads() const override { return threads_; }

  Tensor allocate(DType dtype, Shape shape) override;
  void upload(const Tensor& destination, const void* host) override;
  void download(const Tensor& source, void* host) override;
  void copy(const Tensor& destination, const Tensor& source) override;
  void zero(const Tensor& tensor) override;
  void synchronize() override {}
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
  /// Adds the time of its scope to one kind, polls the cancel flag at entry and beats at exit.
  class Timed {
   public:
    Timed(CpuBackend& backend, double& kind) : backend_(backend), kind_(kind) { backend.throwIfCancelled(); }
    ~Timed() {
      kind_ += std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
      backend_.beat();
    }

   private:
    CpuBackend& backend_;
    double& kind_;
    std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  };

  Precision precision_;
  int threads_;
  std::shared_ptr<MemoryPool> pool_;
  std::unique_ptr<ProductLibrary> products_;
  KindSeconds seconds_;
};

/// Element count a parallel piece should not go below: smaller ones cost more in hand-over than they save.
constexpr int64_t kGrainElements = 16384;
inline int64_t rowGrain(int64_t width) { return std::max<int64_t>(1, kGrainElements / std::max<int64_t>(width, 1)); }

}  // namespace vmoba::cpu
