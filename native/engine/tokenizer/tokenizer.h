// The text tokeniser of T5-family encoders: reads a SentencePiece *unigram* model (spiece.model) and gives the same
// ids as the original library. Own code, because the model file comes from anywhere and the one format is small.
#pragma once
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace vmoba {

/// A token and the bytes [begin, end) of the input text it came from. The byte pieces of one unknown character share
/// that character's range; a piece made only of an inserted space has an empty range.
struct TokenSpan {
  int32_t id = 0;
  size_t begin = 0;
  size_t end = 0;
};

class Tokenizer {
 public:
  /// Reads a spiece.model file. Error{Io} when it cannot be read, Error{BadModelFile} "<file>: tokenizer: <reason>".
  static Tokenizer open(const std::string& path);
  /// Reads a model from memory (ComfyUI text encoders carry it as the tensor `spiece_model`). `name` is for messages.
  static Tokenizer parse(std::span<const std::byte> bytes, const std::string& name = "spiece.model");

  /// Token ids of a text, without end-of-sentence. Bytes that are not UTF-8 count as U+FFFD.
  std::vector<int32_t> encode(std::string_view utf8) const;
  std::vector<TokenSpan> encodeWithSpans(std::string_view utf8) const;
  /// What the text encoder is given: ids, then the end-of-sentence id, at most `maximumTokens` (>= 1) in all. A longer
  /// text loses its end, never the end-of-sentence id; `truncated` then becomes true. Error{BadRequest} for 0 tokens.
  std::vector<int32_t> encodePrompt(std::string_view utf8, size_t maximumTokens, bool* truncated = nullptr) const;

  /// The piece of an id ("\u2581" stands for a space); Error{BadRequest} outside [0, vocabularySize()).
  const std::string& piece(int32_t id) const;
  int32_t eosId() const;
  int32_t padId() const;
  int32_t unknownId() const;
  int32_t vocabularySize() const;

 private:
  struct Model;
  explicit Tokenizer(std::shared_ptr<const Model> model);
  std::shared_ptr<const Model> model_;  // immutable: copies share it
};

}  // namespace vmoba
