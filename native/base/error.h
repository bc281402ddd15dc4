// The one error family of the native side. A code is stable and shared with the TypeScript `StudioError`;
// the message is one line a person can act on; `field` names the offending input where there is one.
#pragma once
#include <stdexcept>
#include <string>
#include <utility>

namespace vmoba {

enum class ErrorCode {
  BadModelFile,   ///< a weight or tokenizer file that cannot be trusted or understood
  BadRequest,     ///< a render request or policy that breaks a rule of the model
  OutOfMemory,    ///< the memory plan does not fit, or an allocation failed
  Cancelled,      ///< the caller raised the cancel flag
  Io,             ///< reading or writing failed (disk full, permission, missing file)
  Unsupported,    ///< valid, but not something this build or device can do
  NumericalFault, ///< NaN or infinity where numbers were expected
  DeviceLost,     ///< the accelerator failed; the render can resume elsewhere
  Internal,       ///< a broken invariant: always a bug
};

/// Stable kebab-case name, the same as in the contract ("bad-model-file", "bad-request", ...).
const char* errorCodeName(ErrorCode code) noexcept;

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, std::string message, std::string field = {})
      : std::runtime_error(std::move(message)), code_(code), field_(std::move(field)) {}
  ErrorCode code() const noexcept { return code_; }
  const std::string& field() const noexcept { return field_; }

 private:
  ErrorCode code_;
  std::string field_;
};

}  // namespace vmoba
