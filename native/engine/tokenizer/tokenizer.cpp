#include "native/engine/tokenizer/tokenizer.h"

#include <array>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <optional>
#include <utility>

#include "native/base/error.h"
#include "native/base/json.h"
#include "native/engine/tokenizer/normalizer.h"
#include "native/engine/tokenizer/protobuf.h"
#include "native/engine/tokenizer/unigram.h"

namespace vmoba {

struct Tokenizer::Model {
  Normalizer normalizer;
  Unigram unigram;
  std::optional<std::array<int32_t, 256>> bytes;  ///< ids of the byte pieces, when the model falls back to bytes
  int32_t eos = -1;
  int32_t pad = -1;
};

namespace {

// umT5's model has 4.5 MB and 256,300 pieces.
constexpr size_t maximumFileBytes = 64u << 20;
constexpr size_t maximumPieces = 1u << 20;
constexpr size_t maximumPieceBytes = 512;

[[noreturn]] void fail(const std::string& reason) { throw Error(ErrorCode::BadModelFile, reason); }

struct TrainerSpec {
  int32_t modelType = 1;  // unigram
  bool whitespaceAsSuffix = false;
  bool byteFallback = false;
  int32_t eos = 2;
  int32_t pad = -1;
};

Piece parsePiece(std::span<const std::byte> bytes) {
  Piece piece;
  WireReader reader(bytes);
  while (reader.next()) {
    if (reader.field() == 1) piece.text = reader.asText();
    if (reader.field() == 2) piece.score = reader.asFloat();
    if (reader.field() == 3) {
      const uint64_t type = reader.asVarint();
      if (type < 1 || type > 6) fail("a piece has an unknown type");
      piece.type = static_cast<PieceType>(type);
    }
  }
  if (piece.text.size() > maximumPieceBytes) fail("a piece is longer than " + std::to_string(maximumPieceBytes) + " bytes");
  for (std::string_view rest = piece.text; !rest.empty();) {
    const int length = utf8SequenceLength(rest);
    if (length == 0) fail("a piece is not UTF-8");
    rest.remove_prefix(static_cast<size_t>(length));
  }
  return piece;
}

TrainerSpec parseTrainerSpec(std::span<const std::byte> bytes) {
  TrainerSpec spec;
  WireReader reader(bytes);
  while (reader.next()) switch (reader.field()) {
      case 3: spec.modelType = reader.asInt32(); break;
      case 24: spec.whitespaceAsSuffix = reader.asBool(); break;
      case 35: spec.byteFallback = reader.asBool(); break;
      case 42: spec.eos = reader.asInt32(); break;
      case 43: spec.pad = reader.asInt32(); break;
      default: break;
    }
  return spec;
}

void parseNormalizerSpec(std::span<const std::byte> bytes, Normalizer& normalizer) {
  WireReader reader(bytes);
  while (reader.next()) switch (reader.field()) {
      case 2: normalizer.setRules(reader.asBytes()); break;
      case 3: normalizer.addDummyPrefix = reader.asBool(); break;
      case 4: normalizer.removeExtraWhitespaces = reader.asBool(); break;
      case 5: normalizer.escapeWhitespaces = reader.asBool(); break;
      default: break;
    }
}

// Byte pieces are spelled "<0x00>" to "<0xFF>".
std::array<int32_t, 256> bytePieces(const Unigram& unigram) {
  std::array<int32_t, 256> ids;
  ids.fill(unigram.unknownId());
  for (size_t i = 0; i < unigram.pieces().size(); ++i) {
    const Piece& piece = unigram.pieces()[i];
    unsigned value = 0;
    char spelling[8];
    if (piece.type != PieceType::Byte) continue;
    if (piece.text.size() != 6 || std::sscanf(piece.text.c_str(), "<0x%2X>", &value) != 1) fail("a byte piece is not spelled <0xNN>");
    std::snprintf(spelling, sizeof spelling, "<0x%02X>", value & 0xffu);
    if (piece.text != spelling) fail("a byte piece is not spelled <0xNN>");
    ids[value & 0xffu] = static_cast<int32_t>(i);
  }
  return ids;
}

int32_t controlId(const Unigram& unigram, int32_t declared, std::string_view spelling) {
  const auto& pieces = unigram.pieces();
  if (declared >= 0 && static_cast<size_t>(declared) < pieces.size()) return declared;
  for (size_t i = 0; i < pieces.size(); ++i)
    if (pieces[i].type == PieceType::Control && pieces[i].text == spelling) return static_cast<int32_t>(i);
  return -1;
}

}  // namespace

Tokenizer::Tokenizer(std::shared_ptr<const Model> model) : model_(std::move(model)) {}

Tokenizer Tokenizer::open(const std::string& path) {
  const std::filesystem::path place(reinterpret_cast<const char8_t*>(path.c_str()));
  std::error_code failed;
  const auto size = std::filesystem::file_size(place, failed);
  if (failed) throw Error(ErrorCode::Io, path + ": cannot be read: " + failed.message());
  if (size > maximumFileBytes) throw Error(ErrorCode::BadModelFile, path + ": tokenizer: is larger than " + std::to_string(maximumFileBytes) + " bytes");
  std::vector<char> bytes(static_cast<size_t>(size));
  std::ifstream file(place, std::ios::binary);
  if (!file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()))) throw Error(ErrorCode::Io, path + ": cannot be read");
  return parse(std::as_bytes(std::span<const char>(bytes)), path);
}

Tokenizer Tokenizer::parse(std::span<const std::byte> bytes, const std::string& name) {
  try {
    if (bytes.size() > maximumFileBytes) fail("is larger than " + std::to_string(maximumFileBytes) + " bytes");
    std::vector<Piece> pieces;
    TrainerSpec trainer;
    Normalizer normalizer;
    WireReader reader(bytes);
    while (reader.next()) switch (reader.field()) {
        case 1:
          if (pieces.size() == maximumPieces) fail("it has more than " + std::to_string(maximumPieces) + " pieces");
          pieces.push_back(parsePiece(reader.asBytes()));
          break;
        case 2: trainer = parseTrainerSpec(reader.asBytes()); break;
        case 3: parseNormalizerSpec(reader.asBytes(), normalizer); break;
        default: break;
      }
    if (trainer.modelType != 1) fail("it is not a unigram model");
    if (pieces.empty()) fail("it has no pieces; is this a SentencePiece model?");
    normalizer.whitespaceAsSuffix = trainer.whitespaceAsSuffix;
    for (size_t i = 0; i < pieces.size(); ++i)
      if (pieces[i].type == PieceType::UserDefined) normalizer.userDefined.insert(pieces[i].text, static_cast<int32_t>(i));
    auto model = std::make_shared<Model>(Model{std::move(normalizer), Unigram(std::move(pieces)), {}, -1, -1});
    if (trainer.byteFallback) model->bytes = bytePieces(model->unigram);
    model->eos = controlId(model->unigram, trainer.eos, "</s>");
    model->pad = controlId(model->unigram, trainer.pad, "<pad>");
    if (model->eos < 0) fail("it has no end-of-sentence piece");
    return Tokenizer(std::move(model));
  } catch (const Error& error) {
    throw Error(error.code(), name + ": tokenizer: " + error.what(), "tokenizer");
  }
}

std::vector<TokenSpan> Tokenizer::encodeWithSpans(std::string_view utf8) const {
  const NormalizedText normalized = model_->normalizer.normalize(utf8);
  std::vector<TokenSpan> out;
  size_t unknownEnd = SIZE_MAX;  // where the unknown piece before ended
  for (const Segment& segment : model_->unigram.segment(normalized.text)) {
    const size_t begin = normalized.origin[segment.begin];
    const size_t end = normalized.origin[segment.end];
    if (segment.id != model_->unigram.unknownId()) {
      out.push_back({segment.id, begin, end});
    } else if (model_->bytes) {
      for (size_t i = segment.begin; i < segment.end; ++i) out.push_back({(*model_->bytes)[static_cast<unsigned char>(normalized.text[i])], begin, end});
    } else if (unknownEnd == segment.begin) {
      out.back().end = end;  // a run of unknown characters is one token
      unknownEnd = segment.end;
    } else {
      out.push_back({segment.id, begin, end});
      unknownEnd = segment.end;
    }
  }
  return out;
}

std::vector<int32_t> Tokenizer::encode(std::string_view utf8) const {
  std::vector<int32_t> ids;
  for (const TokenSpan& token : encodeWithSpans(utf8)) ids.push_back(token.id);
  return ids;
}

std::vector<int32_t> Tokenizer::encodePrompt(std::string_view utf8, size_t maximumTokens, bool* truncated) const {
  if (maximumTokens == 0) throw Error(ErrorCode::BadRequest, "a prompt needs room for at least one token", "maximumTokens");
  std::vector<int32_t> ids = encode(utf8);
  const bool cut = ids.size() >= maximumTokens;
  if (cut) ids.resize(maximumTokens - 1);
  ids.push_back(eosId());
  if (truncated) *truncated = cut;
  return ids;
}

const std::string& Tokenizer::piece(int32_t id) const {
  if (id < 0 || id >= vocabularySize()) throw Error(ErrorCode::BadRequest, "token id " + std::to_string(id) + " is outside the vocabulary", "id");
  return model_->unigram.pieces()[static_cast<size_t>(id)].text;
}

int32_t Tokenizer::eosId() const { return model_->eos; }
int32_t Tokenizer::padId() const { return model_->pad; }
int32_t Tokenizer::unknownId() const { return model_->unigram.unknownId(); }
int32_t Tokenizer::vocabularySize() const { return static_cast<int32_t>(model_->unigram.pieces().size()); }

}  // namespace vmoba
