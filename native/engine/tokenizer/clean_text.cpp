#include "native/engine/tokenizer/clean_text.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <vector>

#include "native/base/json.h"
#include "native/engine/tokenizer/html_entities.h"

namespace vmoba {

namespace {

using CodePoints = std::u32string;

// What Windows-1252 has at bytes 0x80 to 0x9f; five bytes are unassigned and stand for themselves.
constexpr std::array<char32_t, 32> windows1252 = {0x20ac, 0x81,   0x201a, 0x0192, 0x201e, 0x2026, 0x2020, 0x2021, 0x02c6, 0x2030, 0x0160,
                                                  0x2039, 0x0152, 0x8d,   0x017d, 0x8f,   0x90,   0x2018, 0x2019, 0x201c, 0x201d, 0x2022,
                                                  0x2013, 0x2014, 0x02dc, 0x2122, 0x0161, 0x203a, 0x0153, 0x9d,   0x017e, 0x0178};

char32_t decode(std::string_view sequence) {
  const auto byte = [&](size_t i) { return static_cast<char32_t>(static_cast<unsigned char>(sequence[i])); };
  switch (sequence.size()) {
    case 1: return byte(0);
    case 2: return (byte(0) & 0x1f) << 6 | (byte(1) & 0x3f);
    case 3: return (byte(0) & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f);
    default: return (byte(0) & 0x07) << 18 | (byte(1) & 0x3f) << 12 | (byte(2) & 0x3f) << 6 | (byte(3) & 0x3f);
  }
}

CodePoints fromUtf8(std::string_view text) {
  CodePoints out;
  while (!text.empty()) {
    const auto length = static_cast<size_t>(utf8SequenceLength(text));
    out.push_back(length ? decode(text.substr(0, length)) : U'\ufffd');
    text.remove_prefix(std::max<size_t>(length, 1));
  }
  return out;
}

std::string toUtf8(const CodePoints& text) {
  std::string out;
  const auto put = [&](char32_t byte) { out.push_back(static_cast<char>(byte)); };
  for (const char32_t c : text) {
    if (c < 0x80) {
      put(c);
    } else if (c < 0x800) {
      put(0xc0 | c >> 6), put(0x80 | (c & 0x3f));
    } else if (c < 0x10000) {
      put(0xe0 | c >> 12), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
    } else {
      put(0xf0 | c >> 18), put(0x80 | (c >> 12 & 0x3f)), put(0x80 | (c >> 6 & 0x3f)), put(0x80 | (c & 0x3f));
    }
  }
  return out;
}

// "Ã©" was "é": when every character is a Windows-1252 byte and the bytes are UTF-8, they were meant as UTF-8. Real
// text practically never has that form.
std::optional<CodePoints> misreadUtf8(const CodePoints& text) {
  std::string bytes;
  bool beyondAscii = false;
  for (const char32_t c : text) {
    const auto* special = std::find(windows1252.begin(), windows1252.end(), c);
    if (c >= 0x100 && special == windows1252.end()) return std::nullopt;
    bytes.push_back(static_cast<char>(special != windows1252.end() ? 0x80 + static_cast<char32_t>(special - windows1252.begin()) : c));
    beyondAscii = beyondAscii || c >= 0x80;
  }
  if (!beyondAscii) return std::nullopt;
  for (std::string_view rest = bytes; !rest.empty();) {
    const auto length = static_cast<size_t>(utf8SequenceLength(rest));
    if (length == 0) return std::nullopt;
    rest.remove_prefix(length);
  }
  return fromUtf8(bytes);
}

bool isDroppedControl(char32_t c) {
  return c <= 0x08 || c == 0x0b || (c >= 0x0e && c <= 0x1f) || c == 0x7f || (c >= 0x206a && c <= 0x206f) || c == 0xfeff || (c >= 0xfff9 && c <= 0xfffc);
}

// Length of "ESC [ digits and semicolons, letter" at `at`, 0 when there is none.
size_t terminalEscape(const CodePoints& text, size_t at) {
  if (text[at] != 0x1b || at + 1 >= text.size() || text[at + 1] != U'[') return 0;
  for (size_t end = at + 2; end < text.size(); ++end) {
    const char32_t c = text[end];
    if ((c >= U'a' && c <= U'z') || (c >= U'A' && c <= U'Z')) return end + 1 - at;
    if (c != U';' && (c < U'0' || c > U'9')) return 0;
  }
  return 0;
}

const HtmlEntity* findEntity(std::string_view name, bool bare) {
  const HtmlEntity* end = htmlEntities + htmlEntityCount;
  const HtmlEntity* found = std::lower_bound(htmlEntities, end, name, [](const HtmlEntity& entity, std::string_view wanted) { return entity.name < wanted; });
  return found != end && found->name == name && (!bare || found->bare) ? found : nullptr;
}

// A numeric reference by the rules of HTML5: Windows-1252 for 128 to 159, U+FFFD for what is no character.
void appendNumeric(uint32_t code, CodePoints& out) {
  if (code >= 0x80 && code <= 0x9f) {
    out.push_back(windows1252[code - 0x80]);
  } else if (code == 0 || (code >= 0xd800 && code <= 0xdfff) || code > 0x10ffff) {
    out.push_back(U'\ufffd');
  } else if (code == 0x0d) {
    out.push_back(U'\r');
  } else if ((code >= 0x1 && code <= 0x8) || code == 0xb || (code >= 0xe && code <= 0x1f) || code == 0x7f || (code >= 0xfdd0 && code <= 0xfdef) || (code & 0xfffe) == 0xfffe) {
    return;  // not allowed: nothing
  } else {
    out.push_back(code);
  }
}

// The reference that starts with the '&' at `at`: appends what it means, returns its length; 0 when it is none, or when it
// lacks its semicolon and `onlyClosed` asks for one.
size_t reference(const CodePoints& text, size_t at, bool onlyClosed, CodePoints& out) {
  size_t i = at + 1;
  if (i < text.size() && text[i] == U'#') {
    const bool hexadecimal = ++i < text.size() && (text[i] == U'x' || text[i] == U'X');
    if (hexadecimal) ++i;
    const size_t first = i;
    uint32_t code = 0;
    for (; i < text.size(); ++i) {
      const char32_t c = text[i];
      const int digit = c >= U'0' && c <= U'9' ? static_cast<int>(c - U'0')
                        : hexadecimal && (c | 0x20) >= U'a' && (c | 0x20) <= U'f' ? static_cast<int>((c | 0x20) - U'a') + 10 : -1;
      if (digit < 0) break;
      code = std::min<uint32_t>(code * (hexadecimal ? 16 : 10) + static_cast<uint32_t>(digit), 0x110000);
    }
    const bool closed = i < text.size() && text[i] == U';';
    if (i == first || (onlyClosed && !closed)) return 0;
    appendNumeric(code, out);
    return i + closed - at;
  }
  std::string name;  // at most 32 characters; all names are ASCII
  while (i < text.size() && name.size() < 32 && text[i] < 0x80 && std::strchr("\t\n\f <&#;", static_cast<int>(text[i])) == nullptr) name.push_back(static_cast<char>(text[i++]));
  if (i < text.size() && text[i] == U';') {
    if (const HtmlEntity* entity = findEntity(name, false)) {
      out += fromUtf8(entity->text);
      return i + 1 - at;
    }
  }
  for (size_t length = onlyClosed ? 0 : name.size(); length >= 2; --length)
    if (const HtmlEntity* entity = findEntity(std::string_view(name).substr(0, length), true)) {
      out += fromUtf8(entity->text);
      return 1 + length;
    }
  return 0;
}

CodePoints unescapeHtml(const CodePoints& text, bool onlyClosed) {
  CodePoints out;
  for (size_t i = 0; i < text.size();) {
    const size_t length = text[i] == U'&' ? reference(text, i, onlyClosed, out) : 0;
    if (length == 0) out.push_back(text[i]);
    i += std::max<size_t>(length, 1);
  }
  return out;
}

CodePoints repairOnce(CodePoints text) {
  for (auto better = misreadUtf8(text); better && *better != text; better = misreadUtf8(text)) text = std::move(*better);
  CodePoints out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (const size_t escape = terminalEscape(text, i)) {
      i += escape - 1;
      continue;
    }
    char32_t c = text[i];
    if (c >= 0x80 && c <= 0x9f) c = windows1252[c - 0x80];
    if (c == 0x02bc || (c >= 0x2018 && c <= 0x201b)) c = U'\'';
    if (c >= 0x201c && c <= 0x201f) c = U'"';
    if (c == 0x0149) out.push_back(U'\''), c = U'n';  // the one ligature that compatibility normalisation treats otherwise
    if (!isDroppedControl(c)) out.push_back(c);
  }
  return out;
}

// References are replaced before quotes are straightened, unless a '<' makes the text look like HTML on purpose; then all
// again until nothing changes. Eight rounds bound what a hostile text can ask for.
CodePoints repair(CodePoints text) {
  const bool html = text.find(U'<') != CodePoints::npos;
  for (int round = 0; round < 8; ++round) {
    CodePoints next = repairOnce(html ? text : unescapeHtml(text, true));
    if (next == text) break;
    text = std::move(next);
  }
  return text;
}

bool isSpace(char32_t c) {
  return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200a) || c == 0x2028 ||
         c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

}  // namespace

std::string cleanPrompt(std::string_view utf8) {
  const CodePoints text = unescapeHtml(unescapeHtml(repair(fromUtf8(utf8)), false), false);
  CodePoints out;
  for (const char32_t c : text) {
    if (!isSpace(c)) out.push_back(c);
    else if (!out.empty() && out.back() != U' ') out.push_back(U' ');
  }
  if (!out.empty() && out.back() == U' ') out.pop_back();
  return toUtf8(out);
}

}  // namespace vmoba
