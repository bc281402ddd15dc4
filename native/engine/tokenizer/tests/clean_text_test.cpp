#include "native/engine/tokenizer/clean_text.h"

#include <gtest/gtest.h>

#include <map>

namespace vmoba {
namespace {

// The expected texts are what ftfy.fix_text, html.unescape twice and white-space collapsing give (ftfy 6.3).
TEST(CleanPrompt, GivesWhatTheAuthorsPipelineGives) {
  const std::map<std::string, std::string> cases = {
      {"a red ball", "a red ball"},
      {"  a\t red \n\n ball\u3000\u00a0", "a red ball"},
      {"&lt;b&gt; fish &amp;amp; chips", "<b> fish & chips"},
      {"caf&eacute; &#233; &#xe9; &#x80; &hearts;", "café é é € ♥"},
      {"&notit; &notin; &amplitude &nosuch; & &; &#; &#x;", "¬it; ∉ &litude &nosuch; & &; &#; &#x;"},
      {"&#0;&#xd800;&#1114112;x", "\ufffd\ufffd\ufffdx"},
      {"l’été “x” ‘y’", "l'été \"x\" 'y'"},
      {"Ã©t Ã©", "ét é"},
      {"schÃ¶n â€œhiâ€\u009d", "schön \"hi\""},
      {"мир 中文 🎈", "мир 中文 🎈"},
      {"a\x1b[31mred\x1b[0m \x01\x07\ufeff ball", "ared ball"},
      {"&ldquo;hi&rdquo; &amp;ldquo;", "\"hi\" \""},
      {"\xff", "\ufffd"},
      {"", ""},
      {" \n ", ""},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(cleanPrompt(text), expected) << text;
}

TEST(CleanPrompt, LeavesTextAloneThatIsBrokenOnlyInPart) { EXPECT_EQ(cleanPrompt("naïve Â£"), "naïve Â£"); }

TEST(CleanPrompt, IsFastOnHostileTexts) {
  EXPECT_EQ(cleanPrompt(std::string(100'000, '&')).size(), 100'000u);
  EXPECT_FALSE(cleanPrompt("&#" + std::string(100'000, '9') + ";").empty());
  std::string nested = "é";
  for (int i = 0; i < 1000; ++i) nested += "&amp;amp;";
  EXPECT_EQ(cleanPrompt(nested).size(), 2u + 1000u);
  EXPECT_FALSE(cleanPrompt(std::string(50'000, '\x1b') + "[").empty());
}

}  // namespace
}  // namespace vmoba
