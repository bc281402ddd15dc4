#include "native/base/json.h"

#include <gtest/gtest.h>

#include "native/base/error.h"

namespace vmoba {
namespace {

TEST(Json, RoundTripsEveryKindOfValue) {
  const std::string text = R"({"a":[1,-2.5,1e+300,true,false,null],"b":{"c":"quote \" slash \\ tab \t é 🎈"}})";
  const Json value = Json::parse(text);
  EXPECT_EQ(Json::parse(value.dump()).dump(), value.dump());
  EXPECT_EQ(value.at("a").asArray()[1].asNumber(), -2.5);
  EXPECT_EQ(Json::parse(R"("\ud83c\udf88")").asString(), "🎈");
}

TEST(Json, RefusesWhatIsNotJson) {
  const std::string nul("\"\0\"", 3);
  for (const std::string& bad : {std::string(""), std::string("{"), std::string("[1,]"), std::string("{\"a\":1,\"a\":2}"), std::string("01"),
                                 std::string("1."), std::string("nul"), std::string("\"\\ud800\""), std::string("\"\xff\""), std::string("\"\xc0\x80\""),
                                 std::string("99999999999999999999"), std::string("1e999"), std::string("[1] x"), std::string("'a'"), nul})
    EXPECT_THROW(Json::parse(bad), Error) << bad;
}

TEST(Json, BoundsItsDepth) {
  EXPECT_NO_THROW(Json::parse(std::string(64, '[') + std::string(64, ']')));
  EXPECT_THROW(Json::parse(std::string(65, '[') + std::string(65, ']')), Error);
  EXPECT_THROW(Json::parse(std::string(1'000'000, '[')), Error);
}

TEST(Json, NamesTheFieldOfAWrongKind) {
  try {
    Json::parse(R"({"steps":"many"})").integerOr("steps", 1);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::BadRequest);
    EXPECT_EQ(error.field(), "steps");
  }
}

}  // namespace
}  // namespace vmoba
