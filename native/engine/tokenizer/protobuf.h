// Reads the protobuf wire format (protobuf.dev/programming-guides/encoding) of files nobody vouches for: every length is
// checked against what is left, unknown fields are skipped, groups (deprecated) are refused.
#pragma once
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "native/base/error.h"

namespace vmoba {

class WireReader {
 public:
  enum class Type : uint8_t { Varint = 0, Fixed64 = 1, Bytes = 2, Fixed32 = 5 };

  explicit WireReader(std::span<const std::byte> bytes) : left_(bytes) {}

  /// Moves to the next field; false at the end. Whatever the previous field held and was not read is skipped.
  /// Error{BadModelFile} on malformed input; the message is only the reason.
  bool next() {
    if (pending_) skip();
    if (left_.empty()) return false;
    const uint64_t key = varint();
    const auto type = static_cast<unsigned>(key & 7u);
    if (type != 0 && type != 1 && type != 2 && type != 5) fail("a field has an unknown wire type");
    if ((key >> 3) == 0 || (key >> 3) > 0x1fffffffu) fail("a field has an impossible number");
    type_ = static_cast<Type>(type);
    field_ = static_cast<uint32_t>(key >> 3);
    pending_ = true;
    return true;
  }

  uint32_t field() const { return field_; }

  /// Value of a varint field (integers, enumerations, booleans).
  uint64_t asVarint() {
    take(Type::Varint);
    return varint();
  }
  /// A varint field that means a signed 32-bit integer (negative ones are stored as ten bytes).
  int32_t asInt32() { return static_cast<int32_t>(static_cast<uint32_t>(asVarint())); }
  bool asBool() { return asVarint() != 0; }
  float asFloat() {
    take(Type::Fixed32);
    uint32_t bits;
    std::memcpy(&bits, advance(4).data(), 4);
    return std::bit_cast<float>(bits);
  }
  /// A length-delimited field: string, bytes or a nested message.
  std::span<const std::byte> asBytes() {
    take(Type::Bytes);
    return advance(varint());
  }
  std::string_view asText() {
    const auto bytes = asBytes();
    return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
  }

 private:
  [[noreturn]] static void fail(const char* reason) { throw Error(ErrorCode::BadModelFile, reason); }

  void take(Type type) {
    if (!pending_ || type_ != type) fail("a field has another wire type than its number asks for");
    pending_ = false;
  }

  std::span<const std::byte> advance(uint64_t bytes) {
    if (bytes > left_.size()) fail("a field is longer than the file");
    const auto piece = left_.first(static_cast<size_t>(bytes));
    left_ = left_.subspan(static_cast<size_t>(bytes));
    return piece;
  }

  uint64_t varint() {
    uint64_t value = 0;
    for (unsigned shift = 0; shift < 64; shift += 7) {
      const auto byte = std::to_integer<uint64_t>(advance(1)[0]);
      if (shift == 63 && byte > 1) break;
      value |= (byte & 0x7fu) << shift;
      if (byte < 0x80) return value;
    }
    fail("an integer has more than 64 bits");
  }

  void skip() {
    pending_ = false;
    switch (type_) {
      case Type::Varint: varint(); break;
      case Type::Fixed64: advance(8); break;
      case Type::Fixed32: advance(4); break;
      case Type::Bytes: advance(varint()); break;
    }
  }

  std::span<const std::byte> left_;
  uint32_t field_ = 0;
  Type type_ = Type::Varint;
  bool pending_ = false;
};

}  // namespace vmoba
