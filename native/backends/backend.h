// The operations a video diffusion transformer, its text encoder and its VAE need, on tensors in a device's memory.
// Written for an accelerator: operations are enqueued in order and may return before they finish; `synchronize` (and every
// `download`) waits. Host pointers given to `upload` may be reused as soon as it returns. The CPU backend simply runs at once.
//
// Conventions: row-major; activations are `activationType()` (bf16, or f32 in strict mode) unless a comment says f32; the
// residual stream, norm statistics, modulation and accumulation are f32 always. Images are channels-last [T, H, W, C].
// Shape mismatches are bugs of the caller: Error{Internal}.
#pragma once
#include <array>
#include <atomic>
#include <cstddef>
#include <functional>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kernels/attention.h"
#include "native/base/activation.h"
#include "native/base/dtype.h"
#include "native/weights/checkpoint.h"

namespace vmoba {

/// Device memory, returned to its backend's pool when the last tensor lets go.
class Storage {
 public:
  virtual ~Storage() = default;
};

/// Up to five extents.
struct Shape {
  std::array<int64_t, 5> extent{};
  int rank = 0;
  Shape() = default;
  Shape(std::initializer_list<int64_t> extents) {
    for (const int64_t e : extents) extent[static_cast<size_t>(rank++)] = e;
  }
  int64_t operator[](int axis) const { return extent[static_cast<size_t>(axis)]; }
  int64_t elements() const {
    int64_t n = 1;
    for (int i = 0; i < rank; ++i) n *= extent[static_cast<size_t>(i)];
    return n;
  }
  bool operator==(const Shape&) const = default;
};

/// A dense row-major view of device memory. Copying shares the memory.
struct Tensor {
  std::shared_ptr<Storage> storage;
  std::byte* address = nullptr;  ///< device address; only the owning backend may dereference it
  DType dtype = DType::F32;
  Shape shape;

  explicit operator bool() const { return address != nullptr; }
  int64_t elements() const { return shape.elements(); }
  size_t bytes() const { return static_cast<size_t>(elements()) * elementBytes(dtype); }
  /// Rows [from, to) along the first axis, sharing memory.
  Tensor rows(int64_t from, int64_t to) const {
    Tensor part = *this;
    part.shape.extent[0] = to - from;
    part.address = address + static_cast<size_t>(from * (elements() / shape[0])) * elementBytes(dtype);
    return part;
  }
  /// The same elements under another shape.
  Tensor reshaped(Shape other) const {
    Tensor same = *this;
    same.shape = other;
    return same;
  }
};

/// Weights in the layout the device multiplies fastest with. Opaque to the engine.
class LinearWeight {
 public:
  virtual ~LinearWeight() = default;
  int64_t inputs = 0, outputs = 0;
  size_t bytes = 0;  ///< device memory held
};
class ConvWeight {
 public:
  virtual ~ConvWeight() = default;
  int64_t inputs = 0, outputs = 0;
  std::array<int64_t, 3> kernel{1, 1, 1};  ///< t, h, w
  size_t bytes = 0;
};

enum class Precision : uint8_t { F32, BF16 };

/// Self-attention of one branch; q, k, v are column slices of one [S, 3*dim] tensor (fused projection).
struct SelfAttentionOp {
  Tensor qkv;                      ///< [S, 3*heads*headDim]
  int32_t heads = 0;
  Tensor normQ, normK;             ///< [heads*headDim] f32 RMS weights; empty = no norm
  float normEps = 1e-6f;
  Tensor ropeCos, ropeSin;         ///< [S, headDim/2] f32; empty = no rotation
  const BlockPlan* blocks = nullptr;  ///< null = dense; must stay alive until synchronize
  SelectionRule rule;
  Tensor out;                      ///< [S, heads*headDim]
  StatisticsRequest request;
  AttentionStatistics* statistics = nullptr;  ///< complete after synchronize
  AttentionProbe* probe = nullptr;            ///< verification only; complete after synchronize
};

struct CrossAttentionOp {
  Tensor q;                        ///< [S, heads*headDim]
  Tensor kv;                       ///< [keys, 2*heads*headDim]: k then v, k not yet normed
  int32_t heads = 0;
  Tensor normQ, normK;             ///< [heads*headDim] f32
  float normEps = 1e-6f;
  Tensor out;                      ///< [S, heads*headDim]
  bool accumulate = false;         ///< out += (image branch of i2v)
  std::vector<int32_t> keyGroup;   ///< group (prompt word) of each key, -1 = none; empty = no map
  int32_t groups = 0;
  Tensor groupMass;                ///< [groups, S] f32, accumulated
};

/// Seconds spent since the last reset, by kind. On an accelerator, measured by device events.
struct KindSeconds {
  double linears = 0, attention = 0, routing = 0, other = 0;
  double linearFlops = 0;
};

class Backend {
 public:
  virtual ~Backend() = default;

  virtual std::string name() const = 0;            ///< "cpu", "cuda:0"
  virtual std::string instructionSet() const = 0;  ///< part of a checkpoint's identity
  virtual Precision precision() const = 0;
  virtual int threads() const { return 1; }
  DType activationType() const { return precision() == Precision::BF16 ? DType::BF16 : DType::F32; }

  // Memory -------------------------------------------------------------------------------------------------------
  /// Uninitialised memory from the pool. Error{OutOfMemory} with the sizes when the limit is reached.
  virtual Tensor allocate(DType dtype, Shape shape) = 0;
  virtual void upload(const Tensor& destination, const void* host) = 0;
  virtual void download(const Tensor& source, void* host) = 0;
  virtual void copy(const Tensor& destination, const Tensor& source) = 0;  ///< same dtype and element count
  virtual void zero(const Tensor& tensor) = 0;
  virtual void synchronize() = 0;
  virtual size_t bytesInUse() const = 0;
  virtual size_t peakBytes() const = 0;            ///< since the peaks were restarted, or ever
  virtual size_t peakHeldBytes() const = 0;        ///< with what the pool keeps for reuse
  virtual void restartPeaks() = 0;                 ///< peaks count from what is in use and held now
  virtual void trim() = 0;  ///< gives pooled memory back to the system

  // Weights ------------------------------------------------------------------------------------------------------
  /// Rows of all `weights` ([n_i, k] each) stacked into one [sum n_i, k] product with the matching biases (empty = none).
  /// Types smaller than the activation type are dequantised. May copy asynchronously; the views' mapping must outlive the call.
  virtual std::shared_ptr<LinearWeight> makeLinear(std::span<const WeightView* const> weights,
                                                   std::span<const WeightView* const> biases) = 0;
  /// [out, in, (t,) h, w] with bias (null = none).
  virtual std::shared_ptr<ConvWeight> makeConv(const WeightView& weight, const WeightView* bias) = 0;
  /// The tensor's elements as f32 on the device, flattened.
  Tensor makeVector(const WeightView& view);
  Tensor makeVector(std::span<const float> values);

  // Transformer --------------------------------------------------------------------------------------------------
  /// out = activation(x·Wᵀ + b). x [M, K] activation type; out [M, N] activation type or f32.
  virtual void linear(const Tensor& x, const LinearWeight& weight, const Tensor& out, Activation activation = Activation::None) = 0;
  /// out = LN(x)·gain + offset over the last axis, biased variance. x f32 [M, D]; gain, offset f32 [D] or empty; with
  /// `gainPlusOne` the factor is 1 + gain (adaptive modulation). out activation type.
  virtual void layerNorm(const Tensor& x, const Tensor& gain, const Tensor& offset, bool gainPlusOne, float eps, const Tensor& out) = 0;
  /// out = x / sqrt(mean(x²) + eps)·weight. x f32 [M, D]; out activation type or f32.
  virtual void rmsNorm(const Tensor& x, const Tensor& weight, float eps, const Tensor& out) = 0;
  /// x += y·gate (gate f32 [D] or empty = 1). x f32 [M, D]; y activation type or f32.
  virtual void addGated(const Tensor& x, const Tensor& y, const Tensor& gate) = 0;
  /// out = a + b, all f32, b repeated over a's leading rows.
  virtual void addVectors(const Tensor& a, const Tensor& b, const Tensor& out) = 0;
  /// out = activation(x), any float types.
  virtual void activate(const Tensor& x, Activation activation, const Tensor& out) = 0;
  /// out = a ⊙ b, activation type.
  virtual void multiply(const Tensor& a, const Tensor& b, const Tensor& out) = 0;
  virtual void convert(const Tensor& source, const Tensor& destination) = 0;
  virtual void selfAttention(const SelfAttentionOp& op) = 0;
  virtual void crossAttention(const CrossAttentionOp& op) = 0;
  /// umT5: softmax(q·kᵀ + bias[bucket(key - query)])·v without scaling. qkv [L, 3*heads*d]; bias f32 [buckets, heads].
  /// keyMask empty or L values, 0 = hidden.
  virtual void biasedAttention(const Tensor& qkv, int32_t heads, const Tensor& bias, std::span<const int32_t> bucketOfDistance,
                               std::span<const uint8_t> keyMask, const Tensor& out) = 0;
  /// latent f32 [C, T, H, W] -> token rows [t·h·w, C·pt·ph·pw] (channel slowest), activation type.
  virtual void patchify(const Tensor& latent, std::array<int32_t, 3> patch, const Tensor& rows) = 0;
  /// head rows f32 [t·h·w, pt·ph·pw·C] (channel fastest) -> latent f32 [C, T, H, W].
  virtual void unpatchify(const Tensor& rows, std::array<int32_t, 3> patch, const Tensor& latent) = 0;

  // Sampler, f32 --------------------------------------------------------------------------------------------------
  struct Term {
    Tensor tensor;
    double coefficient = 1;
  };
  static constexpr size_t kMostTerms = 4;
  /// out = Σ coefficient·tensor over one to `kMostTerms` terms of out's size, added in their order in double and rounded once: the
  /// same bits on every device. `out` may be one of them.
  virtual void combine(std::span<const Term> terms, const Tensor& out) = 0;
  /// out[i, r] = offset[r] + Σ_c x[c, i]·factors[c, r]. x [C, ...]; factors [C, R]; offset [R]; out [..., R].
  virtual void projectChannels(const Tensor& x, const Tensor& factors, const Tensor& offset, const Tensor& out) = 0;
  /// Whether x holds neither NaN nor infinity. Waits.
  virtual bool allFinite(const Tensor& x) = 0;

  // VAE, channels-last [T, H, W, C], activation type --------------------------------------------------------------
  struct Conv {
    std::array<int32_t, 3> stride{1, 1, 1};
    std::array<int32_t, 2> padTop{0, 0};     ///< h, w before
    std::array<int32_t, 2> padBottom{0, 0};  ///< h, w after
  };
  /// Convolution without temporal padding: T_out = (T - kt)/stride_t + 1. Callers prepend cached frames. With `residual`
  /// (same shape as out) the result is added to it.
  virtual void conv3d(const Tensor& x, const ConvWeight& weight, const Conv& conv, const Tensor& out, const Tensor& residual = {}) = 0;
  /// out = x / max(|x|₂ over channels, 1e-12)·sqrt(C)·gamma, then SiLU when asked.
  virtual void channelNorm(const Tensor& x, const Tensor& gamma, bool silu, const Tensor& out) = 0;
  /// Every pixel repeated 2×2.
  virtual void upsample2x(const Tensor& x, const Tensor& out) = 0;
  /// [T, H, W, 2C] -> [2T, H, W, C]: channels [0, C) become the even, [C, 2C) the odd frames.
  virtual void channelsToFrames(const Tensor& x, const Tensor& out) = 0;
  /// Single-head attention over the H·W positions of each frame. qkv [T, H, W, 3C]; out [T, H, W, C]; scale 1/sqrt(C).
  virtual void frameAttention(const Tensor& qkv, const Tensor& out) = 0;

  // Control ------------------------------------------------------------------------------------------------------
  /// Polled inside long operations; when raised they throw Error{Cancelled} within a fraction of a second.
  void setCancelFlag(const std::atomic<bool>* flag) { cancel_ = flag; }
  /// Called often from inside long work (per operation or launch): the heartbeat that tells slow from hung.
  void setHeartbeat(std::function<void()> beat) { heartbeat_ = std::move(beat); }
  virtual KindSeconds takeSeconds() = 0;  ///< since the previous call; synchronizes

 protected:
  void beat() const {
    if (heartbeat_) heartbeat_();
  }
  void throwIfCancelled() const;
  const std::atomic<bool>* cancel_ = nullptr;
  std::function<void()> heartbeat_;
};

struct BackendOptions {
  Precision precision = Precision::F32;
  int threads = 0;               ///< 0 = all cores
  size_t memoryLimitBytes = 0;   ///< 0 = none
};

struct DeviceInfo {
  std::string id, name, kind;    ///< "cpu" / "cuda:0"
  bool usable = true;
  std::string reason;            ///< why not, and what to do
  size_t memoryBytes = 0;
  std::string instructionSet;
  std::vector<Precision> precisions;
};

/// Every device this build knows of, usable or not.
std::vector<DeviceInfo> listDevices();
/// One device by id; "" = "cpu", "cuda" = "cuda:0". Error{Unsupported} when there is no such device.
DeviceInfo describeDevice(const std::string& device);
/// Error{Unsupported} naming the reason when the device or precision cannot be had.
std::unique_ptr<Backend> makeBackend(const std::string& device, const BackendOptions& options);

}  // namespace vmoba
