// Matrix products and convolutions by oneDNN. Weights are packed once into the layout the library prefers; primitives are
// made once per shape and kept. oneDNN runs on the same OpenMP team as our kernels.
#include <dnnl.hpp>

#include <cstring>

#include <map>
#include <tuple>

#include "native/backends/cpu/cpu_backend.h"
#include "native/base/error.h"
#include "native/base/parallel.h"

namespace vmoba::cpu {
namespace {

using dnnl::memory;
using Md = memory::desc;

memory::data_type typeOf(DType type) { return type == DType::BF16 ? memory::data_type::bf16 : memory::data_type::f32; }

// Row counts used to choose a packed layout: large enough that oneDNN picks its throughput kernel.
constexpr int64_t kTypicalRows = 2048;

struct OneDnnLinear final : LinearWeight {
  memory packed, bias;
  std::map<std::tuple<int64_t, DType, Activation>, dnnl::matmul> primitives;
};

struct OneDnnConv final : ConvWeight {
  memory plain, packed, bias;
  bool isPacked = false;
  std::map<std::array<int64_t, 10>, dnnl::convolution_forward> primitives;
};

void setActivation(dnnl::primitive_attr& attributes, Activation activation) {
  if (activation == Activation::None) return;
  dnnl::post_ops post;
  const auto algorithm = activation == Activation::GeluTanh  ? dnnl::algorithm::eltwise_gelu_tanh
                         : activation == Activation::GeluErf ? dnnl::algorithm::eltwise_gelu_erf
                                                             : dnnl::algorithm::eltwise_swish;
  post.append_eltwise(1.0f, algorithm, 1.0f, 0.0f);
  attributes.set_post_ops(post);
}

/// What the processor has and ONEDNN_MAX_CPU_ISA allows. Sets of bits, not steps of a ladder.
bool mayUse(dnnl::cpu_isa isa) {
  const auto wanted = static_cast<unsigned>(isa), effective = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  return (effective & wanted) == wanted;
}

class OneDnnProducts final : public ProductLibrary {
 public:
  explicit OneDnnProducts(DType type) : type_(type), engine_(dnnl::engine::kind::cpu, 0), stream_(engine_) {}

  std::shared_ptr<LinearWeight> packLinear(const std::byte* rows, DType type, int64_t outputs, int64_t inputs, std::span<const float> bias) override {
    auto weight = std::make_shared<OneDnnLinear>();
    weight->inputs = inputs;
    weight->outputs = outputs;
    const Md any({inputs, outputs}, typeOf(type_), memory::format_tag::any);
    const Md source({kTypicalRows, inputs}, typeOf(type_), memory::format_tag::ab);
    const Md destination({kTypicalRows, outputs}, typeOf(type_), memory::format_tag::ab);
    const dnnl::matmul::primitive_desc chosen({source, any, destination}, engine_);
    memory plain({{inputs, outputs}, typeOf(type), memory::format_tag::ba}, engine_, const_cast<std::byte*>(rows));
    weight->packed = memory(chosen.weights_desc(), engine_);
    dnnl::reorder(plain, weight->packed).execute(stream_, plain, weight->packed);
    stream_.wait();
    weight->bytes = weight->packed.get_desc().get_size() + bias.size_bytes();
    if (!bias.empty()) weight->bias = makeBias({1, outputs}, memory::format_tag::ab, bias);
    return weight;
  }

  void linear(const std::byte* x, int64_t rows, const LinearWeight& generic, std::byte* out, DType outType, Activation activation,
              std::span<std::byte>) override {
    auto& weight = const_cast<OneDnnLinear&>(static_cast<const OneDnnLinear&>(generic));
    const Md source({rows, weight.inputs}, typeOf(type_), memory::format_tag::ab);
    const Md destination({rows, weight.outputs}, typeOf(outType), memory::format_tag::ab);
    const auto key = std::tuple(rows, outType, activation);
    auto found = weight.primitives.find(key);
    if (found == weight.primitives.end()) {
      dnnl::primitive_attr attributes;
      setActivation(attributes, activation);
      const Md weights = weight.packed.get_desc();
      const dnnl::matmul::desc description = weight.bias ? dnnl::matmul::desc(source, weights, weight.bias.get_desc(), destination)
                                                         : dnnl::matmul::desc(source, weights, destination);
      found = weight.primitives.emplace(key, dnnl::matmul({description, attributes, engine_})).first;
    }
    std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, memory(source, engine_, const_cast<std::byte*>(x))},
                                              {DNNL_ARG_WEIGHTS, weight.packed},
                                              {DNNL_ARG_DST, memory(destination, engine_, out)}};
    if (weight.bias) arguments.emplace(DNNL_ARG_BIAS, weight.bias);
    found->second.execute(stream_, arguments);
    stream_.wait();
  }

  std::shared_ptr<ConvWeight> packConv(const std::byte* values, DType type, int64_t outputs, int64_t inputs, std::array<int64_t, 3> kernel,
                                       std::span<const float> bias) override {
    auto weight = std::make_shared<OneDnnConv>();
    weight->inputs = inputs;
    weight->outputs = outputs;
    weight->kernel = kernel;
    weight->plain = memory({{outputs, inputs, kernel[0], kernel[1], kernel[2]}, typeOf(type), memory::format_tag::oidhw}, engine_);
    std::memcpy(weight->plain.get_data_handle(), values, weight->plain.get_desc().get_size());
    weight->bytes = weight->plain.get_desc().get_size() + bias.size_bytes();
    if (!bias.empty()) weight->bias = makeBias({outputs}, memory::format_tag::a, bias);
    return weight;
  }

  void conv(const std::byte* x, const Shape& in, const ConvWeight& generic, const Backend::Conv& conv, std::byte* out, const Shape& o) override {
    auto& weight = const_cast<OneDnnConv&>(static_cast<const OneDnnConv&>(generic));
    const auto& k = weight.kernel;
    const Md source({1, in[3], in[0], in[1], in[2]}, typeOf(type_), memory::format_tag::ndhwc);
    const Md destination({1, o[3], o[0], o[1], o[2]}, typeOf(type_), memory::format_tag::ndhwc);
    const std::array<int64_t, 10> key{in[0], in[1], in[2], conv.stride[0], conv.stride[1], conv.stride[2], conv.padTop[0], conv.padTop[1],
                                      conv.padBottom[0], conv.padBottom[1]};
    auto found = weight.primitives.find(key);
    if (found == weight.primitives.end()) {
      const Md any({weight.outputs, weight.inputs, k[0], k[1], k[2]}, typeOf(type_), memory::format_tag::any);
      const Md weights = weight.isPacked ? weight.packed.get_desc() : any;
      const Md bias = weight.bias ? weight.bias.get_desc() : Md();
      const dnnl::convolution_forward::primitive_desc chosen({dnnl::prop_kind::forward_inference, dnnl::algorithm::convolution_direct, source, weights,
                                                              bias, destination, {conv.stride[0], conv.stride[1], conv.stride[2]},
                                                              {0, conv.padTop[0], conv.padTop[1]}, {0, conv.padBottom[0], conv.padBottom[1]}},
                                                             engine_);
      if (!weight.isPacked) {
        weight.packed = memory(chosen.weights_desc(), engine_);
        dnnl::reorder(weight.plain, weight.packed).execute(stream_, weight.plain, weight.packed);
        stream_.wait();
        weight.plain = memory();
        weight.isPacked = true;
      }
      found = weight.primitives.emplace(key, dnnl::convolution_forward(chosen)).first;
    }
    std::unordered_map<int, memory> arguments{{DNNL_ARG_SRC, memory(source, engine_, const_cast<std::byte*>(x))},
                                              {DNNL_ARG_WEIGHTS, weight.packed},
                                              {DNNL_ARG_DST, memory(destination, engine_, out)}};
    if (weight.bias) arguments.emplace(DNNL_ARG_BIAS, weight.bias);
    found->second.execute(stream_, arguments);
    stream_.wait();
  }

  bool mayUseMatrixUnit() const override { return type_ == DType::BF16 && mayUse(dnnl::cpu_isa::avx512_core_amx); }

 private:
  memory makeBias(const memory::dims& dims, memory::format_tag tag, std::span<const float> values) {
    memory bias({dims, memory::data_type::f32, tag}, engine_);
    std::memcpy(bias.get_data_handle(), values.data(), values.size_bytes());
    return bias;
  }

  DType type_;
  dnnl::engine engine_;
  dnnl::stream stream_;
};

}  // namespace

std::unique_ptr<ProductLibrary> ProductLibrary::make(DType activationType) { return std::make_unique<OneDnnProducts>(activationType); }

bool ProductLibrary::hasFastBf16() { return mayUse(dnnl::cpu_isa::avx512_core_bf16); }

const char* ProductLibrary::name() {
  static const std::string text = [] {
    const dnnl_version_t* version = dnnl_version();
    return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." + std::to_string(version->patch);
  }();
  return text.c_str();
}

}  // namespace vmoba::cpu
