#include "native/backends/backend.h"

#include "native/base/error.h"

namespace vmoba {

Tensor Backend::makeVector(std::span<const float> values) {
  Tensor tensor = allocate(DType::F32, {static_cast<int64_t>(values.size())});
  upload(tensor, values.data());
  return tensor;
}

Tensor Backend::makeVector(const WeightView& view) {
  const std::vector<float> values = view.toFloat();
  return makeVector(values);
}

void Backend::throwIfCancelled() const {
  if (cancel_ != nullptr && cancel_->load(std::memory_order_relaxed)) throw Error(ErrorCode::Cancelled, "cancelled");
}

}  // namespace vmoba
