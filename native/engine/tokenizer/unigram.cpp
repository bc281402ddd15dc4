#include "native/engine/tokenizer/unigram.h"

#include <algorithm>
#include <cfloat>
#include <cmath>
#include <utility>

#include "native/base/error.h"

namespace vmoba {

namespace {

constexpr float unknownPenalty = 10;

[[noreturn]] void fail(const std::string& reason) { throw Error(ErrorCode::BadModelFile, reason); }

size_t characterBytes(char lead) {
  const auto high = static_cast<unsigned char>(lead) >> 4;
  return high < 0xc ? 1 : high < 0xe ? 2 : high == 0xe ? 3 : 4;
}

}  // namespace

Unigram::Unigram(std::vector<Piece> pieces) : pieces_(std::move(pieces)) {
  float smallest = FLT_MAX;
  largestScore_ = FLT_MIN;  // as the original: the smallest positive number, so in effect never below zero
  for (size_t i = 0; i < pieces_.size(); ++i) {
    const Piece& piece = pieces_[i];
    const std::string where = "piece " + std::to_string(i);
    if (piece.text.empty()) fail(where + " is empty");
    if (!std::isfinite(piece.score)) fail(where + " has a score that is not a number");
    if (piece.type == PieceType::Unknown) {
      if (unknownId_ != -1) fail("it has two unknown pieces");
      unknownId_ = static_cast<int32_t>(i);
    }
    if (piece.type == PieceType::Normal) {
      smallest = std::min(smallest, piece.score);
      largestScore_ = std::max(largestScore_, piece.score);
    }
    const bool matched = piece.type == PieceType::Normal || piece.type == PieceType::UserDefined || piece.type == PieceType::Unused;
    if (matched && !trie_.insert(piece.text, static_cast<int32_t>(i))) fail(where + " repeats an earlier piece");
  }
  if (unknownId_ == -1) fail("it has no unknown piece");
  unknownScore_ = smallest - unknownPenalty;
}

std::vector<Segment> Unigram::segment(std::string_view text) const {
  struct Best {
    float score = 0;
    int32_t id = -1;
    size_t begin = SIZE_MAX;  // not reached yet
  };
  std::vector<Best> best(text.size() + 1);
  const auto offer = [&](size_t end, double score, size_t begin, int32_t id) {
    Best& target = best[end];
    // Sums are compared in double but kept as float: ties that this makes decide like the original's.
    if (target.begin == SIZE_MAX || score > static_cast<double>(target.score)) target = {static_cast<float>(score), id, begin};
  };

  for (size_t begin = 0; begin < text.size();) {
    const size_t character = std::min(characterBytes(text[begin]), text.size() - begin);
    const float before = best[begin].score;
    bool single = false;
    uint32_t node = PieceTrie::root;
    for (size_t end = begin; end < text.size();) {
      node = trie_.step(node, text[end++]);
      if (node == PieceTrie::none) break;
      const int32_t id = trie_.id(node);
      if (id < 0) continue;
      const Piece& piece = pieces_[static_cast<size_t>(id)];
      if (piece.type == PieceType::Unused) continue;
      const double score = piece.type == PieceType::UserDefined ? static_cast<double>(static_cast<float>(end - begin) * largestScore_) - 0.1
                                                                : static_cast<double>(piece.score);
      offer(end, score + static_cast<double>(before), begin, id);
      single = single || end - begin == character;
    }
    if (!single) offer(begin + character, static_cast<double>(unknownScore_ + before), begin, unknownId_);
    begin += character;
  }

  std::vector<Segment> out;
  for (size_t end = text.size(); end > 0; end = best[end].begin) out.push_back({best[end].id, best[end].begin, end});
  std::reverse(out.begin(), out.end());
  return out;
}

}  // namespace vmoba
