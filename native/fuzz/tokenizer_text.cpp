// Any bytes as the text, through a real model: never refused, ids in the vocabulary, ranges in order and in the text.
// Cleaned, it is UTF-8 without doubled or outer spaces.
#include <cstddef>
#include <cstdint>

#include "native/base/json.h"
#include "native/engine/tokenizer/clean_text.h"
#include "native/engine/tokenizer/tokenizer.h"
#include "native/fuzz/check.h"

using namespace vmoba;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const Tokenizer tokenizer = Tokenizer::open(VMOBA_FIXTURES "/tokenizer/spiece.model");
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  size_t begin = 0;
  for (const TokenSpan& token : tokenizer.encodeWithSpans(text)) {
    fuzz::check(token.id > tokenizer.unknownId() && token.id < tokenizer.vocabularySize(), "with byte fallback no id is unknown or special");
    fuzz::check(token.begin >= begin && token.begin <= token.end && token.end <= text.size(), "ranges are in order and in the text");
    begin = token.begin;
  }
  const auto ids = tokenizer.encodePrompt(text, 16);
  fuzz::check(ids.size() <= 16 && ids.back() == tokenizer.eosId(), "a prompt ends with the end of sentence");

  const std::string clean = cleanPrompt(text);
  for (std::string_view rest = clean; !rest.empty();) {
    const int length = utf8SequenceLength(rest);
    fuzz::check(length > 0, "a cleaned text is UTF-8");
    rest.remove_prefix(static_cast<size_t>(length));
  }
  fuzz::check(clean.find("  ") == std::string::npos && !clean.starts_with(' ') && !clean.ends_with(' '), "a cleaned text has single inner spaces");
  return 0;
}
