// The unigram language model of SentencePiece (Kudo 2018, "Subword Regularization"): the segmentation of a text into
// pieces with the highest sum of log probabilities.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "native/engine/tokenizer/piece_trie.h"

namespace vmoba {

enum class PieceType : uint8_t { Normal = 1, Unknown = 2, Control = 3, UserDefined = 4, Unused = 5, Byte = 6 };

struct Piece {
  std::string text;
  float score = 0;  ///< log probability
  PieceType type = PieceType::Normal;
};

/// A piece laid over bytes [begin, end) of the normalised text.
struct Segment {
  int32_t id = 0;
  size_t begin = 0;
  size_t end = 0;
};

class Unigram {
 public:
  /// Error{BadModelFile} with only the reason: empty or repeated pieces, scores that are not finite, no unknown piece.
  explicit Unigram(std::vector<Piece> pieces);

  /// The best segmentation; characters without a piece of their own come out as the unknown id, one each.
  std::vector<Segment> segment(std::string_view normalized) const;

  const std::vector<Piece>& pieces() const { return pieces_; }
  int32_t unknownId() const { return unknownId_; }

 private:
  std::vector<Piece> pieces_;
  PieceTrie trie_;
  int32_t unknownId_ = -1;
  float unknownScore_ = 0;
  float largestScore_ = 0;
};

}  // namespace vmoba
