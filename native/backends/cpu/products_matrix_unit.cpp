// Matrix products on the processor's matrix unit (AMX) by our own kernel, everything else by the library underneath.
#include "kernels/cpu/product.h"
#include "native/backends/cpu/cpu_backend.h"
#include "native/base/large_memory.h"

namespace vmoba::cpu {
namespace {

struct PackedLinear final : LinearWeight {
  LargeBuffer packed;
  std::vector<float> bias;
};

class MatrixUnitProducts final : public ProductLibrary {
 public:
  explicit MatrixUnitProducts(std::unique_ptr<ProductLibrary> library) : library_(std::move(library)) {}

  std::shared_ptr<LinearWeight> packLinear(const std::byte* rows, DType type, int64_t outputs, int64_t inputs, std::span<const float> bias) override {
    if (type != DType::BF16 || !hasProduct(inputs)) return library_->packLinear(rows, type, outputs, inputs, bias);
    auto weight = std::make_shared<PackedLinear>();
    weight->inputs = inputs;
    weight->outputs = outputs;
    weight->packed = LargeBuffer(packedProductBytes(outputs, inputs));
    weight->bias.assign(bias.begin(), bias.end());
    weight->bytes = weight->packed.bytes().size() + bias.size_bytes();
    packProductWeights(reinterpret_cast<const Bf16*>(rows), outputs, inputs, weight->packed.bytes().data());
    return weight;
  }

  void linear(const std::byte* x, int64_t rows, const LinearWeight& weight, std::byte* out, DType outType, Activation activation,
              std::span<std::byte> scratch) override {
    const PackedLinear* own = ours(weight);
    if (own == nullptr) return library_->linear(x, rows, weight, out, outType, activation, scratch);
    multiplyMatrices({reinterpret_cast<const Bf16*>(x), rows, own->inputs, own->outputs, own->packed.bytes().data(), own->bias.empty() ? nullptr : own->bias.data(),
                      out, outType, activation},
                     scratch);
  }

  size_t scratchBytes(const LinearWeight& weight, int threads) const override {
    return ours(weight) != nullptr ? productScratchBytes(weight.outputs, weight.inputs, threads) : library_->scratchBytes(weight, threads);
  }

  std::shared_ptr<ConvWeight> packConv(const std::byte* values, DType type, int64_t outputs, int64_t inputs, std::array<int64_t, 3> kernel,
                                       std::span<const float> bias) override {
    return library_->packConv(values, type, outputs, inputs, kernel, bias);
  }
  void conv(const std::byte* x, const Shape& in, const ConvWeight& weight, const Backend::Conv& conv, std::byte* out, const Shape& outShape) override {
    library_->conv(x, in, weight, conv, out, outShape);
  }

  double flopsPerPiece(const LinearWeight& weight) const override { return ours(weight) != nullptr ? 4e11 : library_->flopsPerPiece(weight); }

 private:
  /// Null where the library packed it.
  static const PackedLinear* ours(const LinearWeight& weight) { return dynamic_cast<const PackedLinear*>(&weight); }

  std::unique_ptr<ProductLibrary> library_;
};

}  // namespace

std::unique_ptr<ProductLibrary> withMatrixUnit(std::unique_ptr<ProductLibrary> library) {
  if (!library->mayUseMatrixUnit()) return library;
  return std::make_unique<MatrixUnitProducts>(std::move(library));
}

}  // namespace vmoba::cpu
