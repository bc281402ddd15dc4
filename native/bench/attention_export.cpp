#include "native/bench/attention_export.h"

#include <filesystem>
#include <numeric>

#include "native/base/error.h"
#include "native/base/parallel.h"
#include "native/weights/checkpoint.h"

namespace vmoba {
namespace {

/// [S, H, D] by permuted position to [H, S, D] in raster order.
std::vector<Bf16> byHead(const std::vector<float>& values, const std::vector<int32_t>& permutation, int64_t heads, int64_t headDim) {
  const auto tokens = static_cast<int64_t>(permutation.size());
  std::vector<Bf16> rows(values.size());
  parallelForDynamic(tokens, [&](int64_t s) {
    for (int64_t h = 0; h < heads; ++h) {
      const float* from = values.data() + (s * heads + h) * headDim;
      Bf16* to = rows.data() + (h * tokens + permutation[static_cast<size_t>(s)]) * headDim;
      for (int64_t i = 0; i < headDim; ++i) to[i] = toBf16(from[i]);
    }
  });
  return rows;
}

template <class T>
TensorToWrite tensor(const char* name, DType dtype, std::vector<int64_t> shape, const std::vector<T>& values) {
  return {name, dtype, std::move(shape), values.data(), values.size() * sizeof(T)};
}

}  // namespace

void exportAttention(const std::string& path, AttentionRunner& runner, AttentionRunner::Call call, const Json& facts) {
  const std::filesystem::path folder = std::filesystem::path(path).parent_path();
  std::error_code failure;
  if (!folder.empty()) std::filesystem::create_directories(folder, failure);
  if (failure) throw Error(ErrorCode::Io, folder.string() + ": " + failure.message(), "export");
  AttentionProbe probe;
  call.probe = &probe;
  runner.run(call);
  const int64_t tokens = runner.inputs().grid.tokens(), heads = runner.inputs().heads, headDim = runner.inputs().headDim;
  std::vector<int32_t> permutation = call.plan ? call.plan->permutation : std::vector<int32_t>{};
  if (permutation.empty()) {
    permutation.resize(static_cast<size_t>(tokens));
    std::iota(permutation.begin(), permutation.end(), 0);
  }
  const std::vector<Bf16> q = byHead(probe.q, permutation, heads, headDim), k = byHead(probe.k, permutation, heads, headDim), v = byHead(probe.v, permutation, heads, headDim);
  std::vector<Bf16> out;
  for (const float value : runner.output()) out.push_back(toBf16(value));
  const std::vector<int64_t> operand{heads, tokens, headDim};
  std::vector<TensorToWrite> tensors{tensor("q", DType::BF16, operand, q), tensor("k", DType::BF16, operand, k), tensor("v", DType::BF16, operand, v), tensor("out", DType::BF16, {tokens, heads * headDim}, out)};
  if (call.plan) {
    const int64_t blocks = call.plan->blocks();
    tensors.push_back(tensor("permutation", DType::I32, {tokens}, permutation));
    tensors.push_back(tensor("start", DType::I32, {blocks + 1}, call.plan->start));
    tensors.push_back(tensor("selection", DType::U8, {blocks, heads, tokens}, probe.selection));
  }
  writeSafetensors(path, tensors, {{"attention", facts.dump()}});
}

}  // namespace vmoba
