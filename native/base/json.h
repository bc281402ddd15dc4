// A small strict JSON reader and writer (RFC 8259) for headers, policies and requests. Own code because the plain
// C++ program must build where nothing but a compiler is installed. Hostile input is the normal case: depth is
// bounded, duplicate keys are refused, numbers are range-checked, strings must be valid UTF-8.
#pragma once
#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

namespace vmoba {

class Json {
 public:
  using Array = std::vector<Json>;
  using Member = std::pair<std::string, Json>;
  using Object = std::vector<Member>;  ///< keeps the order of the text

  Json() : value_(nullptr) {}
  Json(std::nullptr_t) : value_(nullptr) {}
  Json(bool value) : value_(value) {}
  Json(int value) : value_(static_cast<int64_t>(value)) {}
  Json(int64_t value) : value_(value) {}
  Json(uint64_t value) : value_(static_cast<int64_t>(value)) {}
  Json(double value) : value_(value) {}
  Json(const char* value) : value_(std::string(value)) {}
  Json(std::string_view value) : value_(std::string(value)) {}
  Json(std::string value) : value_(std::move(value)) {}
  Json(Array value) : value_(std::move(value)) {}
  Json(Object value) : value_(std::move(value)) {}
  template <class T>
  static Json list(const std::vector<T>& values) {
    Array array;
    array.reserve(values.size());
    for (const auto& v : values) array.emplace_back(static_cast<std::conditional_t<std::is_floating_point_v<T>, double,
                                                    std::conditional_t<std::is_integral_v<T>, int64_t, const T&>>>(v));
    return Json(std::move(array));
  }

  /// Parses one complete document. Throws Error{BadRequest} naming the byte offset and what was expected.
  static Json parse(std::string_view text, int maximumDepth = 64);

  bool isNull() const { return std::holds_alternative<std::nullptr_t>(value_); }
  bool isBool() const { return std::holds_alternative<bool>(value_); }
  bool isInteger() const { return std::holds_alternative<int64_t>(value_); }
  bool isNumber() const { return isInteger() || std::holds_alternative<double>(value_); }
  bool isString() const { return std::holds_alternative<std::string>(value_); }
  bool isArray() const { return std::holds_alternative<Array>(value_); }
  bool isObject() const { return std::holds_alternative<Object>(value_); }

  // Each throws Error{BadRequest} when the value is of another kind; `what` names it in the message.
  bool asBool(std::string_view what = "value") const;
  int64_t asInteger(std::string_view what = "value") const;  ///< also accepts a double without fraction
  double asNumber(std::string_view what = "value") const;
  const std::string& asString(std::string_view what = "value") const;
  const Array& asArray(std::string_view what = "value") const;
  const Object& asObject(std::string_view what = "value") const;

  /// Member of an object, or null pointer if absent (or if this is not an object).
  const Json* find(std::string_view key) const;
  /// Member of an object; Error{BadRequest} if absent.
  const Json& at(std::string_view key) const;
  /// Adds or replaces a member (turns null into an object).
  Json& set(std::string_view key, Json value);
  void push(Json value);

  // Convenience with defaults for optional members.
  std::string stringOr(std::string_view key, std::string_view fallback) const;
  double numberOr(std::string_view key, double fallback) const;
  int64_t integerOr(std::string_view key, int64_t fallback) const;
  bool boolOr(std::string_view key, bool fallback) const;

  /// Compact text; doubles round-trip, NaN and infinities become null.
  std::string dump() const;

 private:
  std::variant<std::nullptr_t, bool, int64_t, double, std::string, Array, Object> value_;
};

/// Length in bytes of the valid UTF-8 sequence at `text[0]`, 0 if invalid (overlong, surrogate, beyond U+10FFFF).
int utf8SequenceLength(std::string_view text);

}  // namespace vmoba
