// Any bytes as spiece.model: refused, or every text gives ids of the vocabulary and ranges inside the text.
#include <cstddef>
#include <cstdint>

#include "native/engine/tokenizer/tokenizer.h"
#include "native/fuzz/check.h"

using namespace vmoba;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  try {
    const Tokenizer tokenizer = Tokenizer::parse(std::as_bytes(std::span<const uint8_t>(data, size)));
    // The input itself is one of the texts: it holds the model's own pieces.
    const std::string_view itself(reinterpret_cast<const char*>(data), std::min<size_t>(size, 512));
    for (const std::string_view text : {std::string_view("  a red ball \xef\xbd\x82 \xf0\x9f\x8e\x88 \xe4\xb8\xad\xe6\x96\x87  \xff"), itself}) {
      for (const TokenSpan& token : tokenizer.encodeWithSpans(text)) {
        fuzz::check(token.id >= 0 && token.id < tokenizer.vocabularySize(), "an id is in the vocabulary");
        fuzz::check(token.begin <= token.end && token.end <= text.size(), "a range lies in the text");
      }
      fuzz::check(tokenizer.encodePrompt(text, 5).size() <= 5, "a prompt is cut");
    }
  } catch (const Error& error) {
    fuzz::checkRefusal(error, ErrorCode::BadModelFile);
  }
  return 0;
}
