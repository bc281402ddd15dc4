#include "native/engine/tokenizer/normalizer.h"

#include <algorithm>
#include <cstring>

#include "native/base/error.h"
#include "native/base/json.h"

namespace vmoba {

namespace {

constexpr std::string_view spaceSymbol = "\xe2\x96\x81";  // U+2581
constexpr std::string_view replacementCharacter = "\xef\xbf\xbd";
constexpr size_t maximumReplacement = 128;  // the longest one of nmt_nfkc has 33 bytes
constexpr size_t maximumRule = 128;         // bytes that one rule may match

[[noreturn]] void fail(const char* reason) { throw Error(ErrorCode::BadModelFile, reason); }

// One unit of a Darts-clone double array: label in bits 0-7, bit 8 tells that a value hangs below, bit 9 widens the
// offset in bits 10-30; bit 31 marks a unit that is itself a value.
uint32_t labelOf(uint32_t unit) { return unit & 0x800000ffu; }
bool hasLeaf(uint32_t unit) { return (unit & 0x100u) != 0; }
uint32_t offsetOf(uint32_t unit) { return (unit >> 10) << ((unit & 0x200u) >> 6); }
uint32_t valueOf(uint32_t unit) { return unit & 0x7fffffffu; }

}  // namespace

void Normalizer::setRules(std::span<const std::byte> compiled) {
  units_.clear();
  replacements_.clear();
  if (compiled.empty()) return;
  uint32_t bytes = 0;
  if (compiled.size() < sizeof bytes) fail("its normalisation rules are cut short");
  std::memcpy(&bytes, compiled.data(), sizeof bytes);
  const auto rest = compiled.subspan(sizeof bytes);
  if (bytes > rest.size() || bytes % 4 != 0 || bytes == 0) fail("the size of its normalisation rules is wrong");
  units_.resize(bytes / 4);
  std::memcpy(units_.data(), rest.data(), bytes);
  replacements_.assign(reinterpret_cast<const char*>(rest.data()) + bytes, rest.size() - bytes);
  if (!replacements_.empty() && replacements_.back() != '\0') fail("its normalisation rules do not end with a zero byte");
  size_t run = 0;
  for (const char c : replacements_) {
    run = c == '\0' ? 0 : run + 1;
    if (run > maximumReplacement) fail("a normalisation rule makes an absurdly long text");
  }
}

Normalizer::Rewritten Normalizer::prefix(std::string_view input) const {
  if (const size_t length = userDefined.longest(input)) return {input.substr(0, length), length};
  if (!units_.empty()) {
    size_t longest = 0;
    uint32_t value = 0;
    size_t at = offsetOf(units_[0]);
    for (size_t i = 0; i < std::min(input.size(), maximumRule); ++i) {
      const auto byte = static_cast<unsigned char>(input[i]);
      at ^= byte;
      if (at >= units_.size()) fail("a normalisation rule points outside its table");
      const uint32_t unit = units_[at];
      if (labelOf(unit) != byte) break;
      at ^= offsetOf(unit);
      if (!hasLeaf(unit)) continue;
      if (at >= units_.size()) fail("a normalisation rule points outside its table");
      longest = i + 1;
      value = valueOf(units_[at]);
    }
    if (longest) {
      if (value >= replacements_.size()) fail("a normalisation rule points outside its texts");
      return {std::string_view(replacements_.c_str() + value), longest};
    }
  }
  const int length = utf8SequenceLength(input);
  if (length == 0) return {replacementCharacter, 1};
  return {input.substr(0, static_cast<size_t>(length)), static_cast<size_t>(length)};
}

NormalizedText Normalizer::normalize(std::string_view input) const {
  NormalizedText out;
  size_t consumed = 0;
  const auto put = [&](std::string_view text) {
    out.text += text;
    out.origin.insert(out.origin.end(), text.size(), consumed);
  };
  const std::string_view space = escapeWhitespaces ? spaceSymbol : std::string_view(" ");

  while (removeExtraWhitespaces && !input.empty()) {
    const Rewritten first = prefix(input);
    if (first.text != " ") break;
    input.remove_prefix(first.consumed);
    consumed += first.consumed;
  }
  if (input.empty()) {
    out.origin.push_back(consumed);
    return out;
  }
  if (addDummyPrefix && !whitespaceAsSuffix) put(space);

  bool afterSpace = removeExtraWhitespaces;
  while (!input.empty()) {
    const Rewritten next = prefix(input);
    std::string_view text = next.text;
    while (afterSpace && text.starts_with(' ')) text.remove_prefix(1);
    if (!text.empty()) {
      for (const char& c : text) put(c == ' ' ? space : std::string_view(&c, 1));
      afterSpace = removeExtraWhitespaces && text.ends_with(' ');
    }
    consumed += next.consumed;
    input.remove_prefix(next.consumed);
  }
  // The prefix goes too when nothing but removed characters followed it.
  while (removeExtraWhitespaces && out.text.ends_with(space)) {
    const size_t length = out.text.size() - space.size();
    consumed = out.origin[length];
    out.text.resize(length);
    out.origin.resize(length);
  }
  if (addDummyPrefix && whitespaceAsSuffix) put(space);
  out.origin.push_back(consumed);
  return out;
}

}  // namespace vmoba
