#include "native/engine/tokenizer/tokenizer.h"

#include <gtest/gtest.h>

#include <cstring>
#include <fstream>
#include <sstream>

#include "native/base/error.h"

namespace vmoba {
namespace {

std::string fixture(const std::string& name) { return std::string(VMOBA_FIXTURES) + "/tokenizer/" + name; }

std::string fileText(const std::string& path) {
  std::stringstream text;
  text << std::ifstream(path, std::ios::binary).rdbuf();
  return text.str();
}

std::span<const std::byte> bytesOf(const std::string& text) { return std::as_bytes(std::span<const char>(text)); }

// Protobuf fields, to build models by hand.
std::string varint(uint64_t value) {
  std::string out;
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
  return out;
}
std::string number(uint32_t field, uint64_t value) { return varint(field << 3) + varint(value); }
std::string message(uint32_t field, const std::string& bytes) { return varint(field << 3 | 2) + varint(bytes.size()) + bytes; }
std::string piece(const std::string& text, float score, int type = 1) {
  std::string bits(4, '\0');
  std::memcpy(bits.data(), &score, 4);
  return message(1, message(1, text) + varint(2 << 3 | 5) + bits + number(3, static_cast<uint64_t>(type)));
}
const std::string specials = piece("<pad>", 0, 3) + piece("</s>", 0, 3) + piece("<unk>", 0, 2);
const std::string trainer = message(2, number(3, 1) + number(42, 1) + number(43, 0));

std::string refusal(const std::string& model) {
  try {
    (void)Tokenizer::parse(bytesOf(model), "m");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadModelFile);
    return error.what();
  }
  return "accepted";
}

TEST(Tokenizer, GivesTheIdsOfTheOriginalLibrary) {
  const Tokenizer tokenizer = Tokenizer::open(fixture("spiece.model"));
  std::istringstream lines(fileText(fixture("lines.txt")));
  std::istringstream expected(fileText(fixture("ids.txt")));
  std::string line;
  std::string ids;
  int count = 0;
  while (std::getline(lines, line)) {
    ASSERT_TRUE(std::getline(expected, ids));
    std::string got;
    for (const int32_t id : tokenizer.encode(line)) got += (got.empty() ? "" : " ") + std::to_string(id);
    EXPECT_EQ(got, ids) << "line " << count + 1 << ": " << line;
    ++count;
  }
  EXPECT_GE(count, 800);
}

TEST(Tokenizer, KnowsItsSpecialIds) {
  const Tokenizer tokenizer = Tokenizer::open(fixture("spiece.model"));
  EXPECT_EQ(tokenizer.padId(), 0);
  EXPECT_EQ(tokenizer.eosId(), 1);
  EXPECT_EQ(tokenizer.unknownId(), 2);
  EXPECT_EQ(tokenizer.piece(tokenizer.eosId()), "</s>");
  EXPECT_THROW((void)tokenizer.piece(tokenizer.vocabularySize()), Error);
  EXPECT_THROW((void)tokenizer.piece(-1), Error);
}

TEST(Tokenizer, EndsAPromptWithTheEndOfSentenceEvenWhenItIsCut) {
  const Tokenizer tokenizer = Tokenizer::open(fixture("spiece.model"));
  const std::string text = "a red ball bounces on a blue floor";
  auto whole = tokenizer.encode(text);
  whole.push_back(tokenizer.eosId());
  bool truncated = true;
  EXPECT_EQ(tokenizer.encodePrompt(text, whole.size(), &truncated), whole);
  EXPECT_FALSE(truncated);
  auto cut = whole;
  cut.resize(whole.size() - 2);
  cut.push_back(tokenizer.eosId());
  EXPECT_EQ(tokenizer.encodePrompt(text, whole.size() - 1, &truncated), cut);
  EXPECT_TRUE(truncated);
  EXPECT_EQ(tokenizer.encodePrompt("", 4, &truncated), std::vector<int32_t>{tokenizer.eosId()});
  EXPECT_FALSE(truncated);
  EXPECT_EQ(tokenizer.encodePrompt(text, 1), std::vector<int32_t>{tokenizer.eosId()});
  EXPECT_THROW((void)tokenizer.encodePrompt(text, 0), Error);
}

TEST(Tokenizer, TellsWhichBytesATokenCameFrom) {
  const Tokenizer tokenizer = Tokenizer::open(fixture("spiece.model"));
  const std::string text = "  a red \xef\xbd\x82\xef\xbd\x81ll \xf0\x9f\x8e\x88!";  // a full-width "ba", a balloon
  std::string covered;
  size_t reached = 0;
  for (const TokenSpan& token : tokenizer.encodeWithSpans(text)) {
    EXPECT_LE(token.begin, token.end);
    EXPECT_LE(token.end, text.size());
    if (token.begin < reached) {  // byte pieces of the balloon
      EXPECT_EQ(text.substr(token.begin, token.end - token.begin), "\xf0\x9f\x8e\x88");
      continue;
    }
    covered += text.substr(token.begin, token.end - token.begin);
    reached = token.end;
  }
  EXPECT_EQ(covered, text.substr(2));
}

TEST(Tokenizer, TakesLongAndEmptyTexts) {
  const Tokenizer tokenizer = Tokenizer::open(fixture("spiece.model"));
  EXPECT_TRUE(tokenizer.encode("").empty());
  EXPECT_TRUE(tokenizer.encode(" \t\xe3\x80\x80 ").empty());
  EXPECT_GE(tokenizer.encode(std::string(100'000, 'a')).size(), 1000u);
}

TEST(Tokenizer, WithoutByteFallbackARunOfUnknownCharactersIsOneToken) {
  const Tokenizer tokenizer = Tokenizer::parse(bytesOf(specials + piece("\xe2\x96\x81", -1) + piece("a", -1) + trainer));
  EXPECT_EQ(tokenizer.encode("xyz a"), (std::vector<int32_t>{3, 2, 3, 4}));
}

TEST(Tokenizer, RefusesBadModels) {
  const std::string good = specials + piece("a", -1) + trainer;
  EXPECT_EQ(refusal(good), "accepted");
  EXPECT_EQ(refusal(""), "m: tokenizer: it has no pieces; is this a SentencePiece model?");
  EXPECT_EQ(refusal(good + "\x0a"), "m: tokenizer: a field is longer than the file");
  EXPECT_EQ(refusal(good + "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"), "m: tokenizer: a field is longer than the file");
  EXPECT_EQ(refusal(good + "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), "m: tokenizer: a field has another wire type than its number asks for");
  EXPECT_EQ(refusal(good + "\x38\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f"), "m: tokenizer: an integer has more than 64 bits");
  EXPECT_EQ(refusal(good + "\x0b"), "m: tokenizer: a field has an unknown wire type");
  EXPECT_EQ(refusal(good + std::string("\x00\x00", 2)), "m: tokenizer: a field has an impossible number");
  EXPECT_EQ(refusal(specials + message(2, number(3, 2))), "m: tokenizer: it is not a unigram model");
  EXPECT_EQ(refusal(piece("</s>", 0, 3) + piece("a", -1)), "m: tokenizer: it has no unknown piece");
  EXPECT_EQ(refusal(good + piece("a", -2)), "m: tokenizer: piece 4 repeats an earlier piece");
  EXPECT_EQ(refusal(good + piece("", -2)), "m: tokenizer: piece 4 is empty");
  EXPECT_EQ(refusal(good + piece("b", std::numeric_limits<float>::quiet_NaN())), "m: tokenizer: piece 4 has a score that is not a number");
  EXPECT_EQ(refusal(good + piece("b", -1, 9)), "m: tokenizer: a piece has an unknown type");
  EXPECT_EQ(refusal(good + piece("\xff", -1)), "m: tokenizer: a piece is not UTF-8");
  EXPECT_EQ(refusal(good + piece(std::string(513, 'b'), -1)), "m: tokenizer: a piece is longer than 512 bytes");
  EXPECT_EQ(refusal(piece("<unk>", 0, 2) + piece("a", -1) + message(2, number(42, 99))), "m: tokenizer: it has no end-of-sentence piece");
  EXPECT_EQ(refusal(good + message(3, message(2, "abc"))), "m: tokenizer: its normalisation rules are cut short");
  EXPECT_EQ(refusal(good + message(3, message(2, std::string("\x08\0\0\0abcd", 8)))), "m: tokenizer: the size of its normalisation rules is wrong");
  EXPECT_THROW((void)Tokenizer::open(fixture("none.model")), Error);
}

TEST(Tokenizer, RefusesRulesThatPointOutsideTheirTable) {
  // One unit whose offset leads far away.
  const std::string rules = std::string("\x04\0\0\0", 4) + std::string("\0\xfc\xff\x7f", 4);
  const Tokenizer tokenizer = Tokenizer::parse(bytesOf(specials + piece("a", -1) + trainer + message(3, message(2, rules))));
  EXPECT_THROW((void)tokenizer.encode("a"), Error);
}

TEST(Tokenizer, SurvivesEveryTruncationOfARealModel) {
  const std::string whole = fileText(fixture("spiece.model"));
  for (size_t size = 0; size < whole.size(); size += 1 + whole.size() / 500) {
    try {
      (void)Tokenizer::parse(bytesOf(whole.substr(0, size))).encode("a red ball \xf0\x9f\x8e\x88");
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::BadModelFile);
    }
  }
}

}  // namespace
}  // namespace vmoba
