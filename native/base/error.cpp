#include "native/base/error.h"

namespace vmoba {

const char* errorCodeName(ErrorCode code) noexcept {
  switch (code) {
    case ErrorCode::BadModelFile: return "bad-model-file";
    case ErrorCode::BadRequest: return "bad-request";
    case ErrorCode::OutOfMemory: return "out-of-memory";
    case ErrorCode::Cancelled: return "cancelled";
    case ErrorCode::Io: return "io";
    case ErrorCode::Unsupported: return "unsupported";
    case ErrorCode::NumericalFault: return "numerical-fault";
    case ErrorCode::DeviceLost: return "device-lost";
    case ErrorCode::Internal: return "internal";
  }
  return "internal";
}

}  // namespace vmoba
