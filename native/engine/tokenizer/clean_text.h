// The cleaning that the authors of Wan do to a prompt before the tokeniser sees it: Unicode repair, HTML references
// replaced twice, white space collapsed and trimmed.
#pragma once
#include <string>
#include <string_view>

namespace vmoba {

/// The cleaned text, as the authors' pipeline (ftfy.fix_text, html.unescape twice, white space) would give it for
/// the faults people really paste: UTF-8 once read as Windows-1252, curly quotes, terminal escapes, control characters,
/// HTML references. Not repaired, unlike there: text broken through other encodings or only in part of it. Ligatures and
/// full-width characters are left to the tokeniser's own normalisation, which treats them alike. Bytes that are not
/// UTF-8 become U+FFFD.
std::string cleanPrompt(std::string_view utf8);

}  // namespace vmoba
