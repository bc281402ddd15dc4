// SentencePiece's text normalisation: longest-match rewriting by a compiled rule table (nmt_nfkc for T5), then the
// treatment of spaces. Each output byte remembers the input byte that it came from.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "native/engine/tokenizer/piece_trie.h"

namespace vmoba {

struct NormalizedText {
  std::string text;
  std::vector<size_t> origin;  ///< origin[i]: offset in the input of what became text[i]; one more entry for the end
};

class Normalizer {
 public:
  bool addDummyPrefix = true;
  bool removeExtraWhitespaces = true;
  bool escapeWhitespaces = true;
  bool whitespaceAsSuffix = false;
  PieceTrie userDefined;  ///< pieces that pass unchanged

  /// Takes the compiled rules: 4-byte little-endian size of a Darts double array, the array, and the replacement texts,
  /// each ended by a zero byte. May be empty (no rewriting). Error{BadModelFile} with only the reason.
  void setRules(std::span<const std::byte> compiled);

  /// Any bytes; what is not UTF-8 becomes U+FFFD byte by byte. Error{BadModelFile} when a rule points outside its table.
  NormalizedText normalize(std::string_view input) const;

 private:
  struct Rewritten {
    std::string_view text;
    size_t consumed = 0;
  };
  Rewritten prefix(std::string_view input) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace vmoba
