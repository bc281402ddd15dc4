#include "native/base/json.h"

#include <charconv>
#include <cmath>
#include <limits>
#include <unordered_set>

#include "native/base/error.h"

namespace vmoba {

int utf8SequenceLength(std::string_view text) {
  if (text.empty()) return 0;
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const int length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : lead >= 0xc2 ? 2 : 0;
  if (length == 0 || lead > 0xf4 || text.size() < static_cast<size_t>(length)) return 0;
  for (int i = 1; i < length; ++i)
    if ((byte(static_cast<size_t>(i)) & 0xc0u) != 0x80u) return 0;
  const unsigned second = byte(1);
  if ((lead == 0xe0 && second < 0xa0) || (lead == 0xed && second > 0x9f)) return 0;
  if ((lead == 0xf0 && second < 0x90) || (lead == 0xf4 && second > 0x8f)) return 0;
  return length;
}

namespace {

class Parser {
 public:
  Parser(std::string_view text, int maximumDepth) : text_(text), depthLeft_(maximumDepth) {}

  Json document() {
    Json value = parseValue();
    skipSpace();
    if (at_ != text_.size()) fail("end of text");
    return value;
  }

 private:
  [[noreturn]] void fail(const char* expected) const {
    throw Error(ErrorCode::BadRequest, "invalid JSON at byte " + std::to_string(at_) + ": expected " + expected);
  }

  void skipSpace() {
    while (at_ < text_.size() && (text_[at_] == ' ' || text_[at_] == '\n' || text_[at_] == '\r' || text_[at_] == '\t')) ++at_;
  }

  bool take(char c) {
    skipSpace();
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }

  bool takeWord(std::string_view word) {
    if (text_.substr(at_, word.size()) != word) return false;
    at_ += word.size();
    return true;
  }

  Json parseValue() {
    skipSpace();
    if (at_ >= text_.size()) fail("a value");
    switch (text_[at_]) {
      case '{': return parseObject();
      case '[': return parseArray();
      case '"': return Json(parseString());
      case 't': if (takeWord("true")) return Json(true); break;
      case 'f': if (takeWord("false")) return Json(false); break;
      case 'n': if (takeWord("null")) return Json(nullptr); break;
      default: return parseNumber();
    }
    fail("a value");
  }

  Json parseObject() {
    if (--depthLeft_ < 0) fail("less nesting");
    ++at_;
    Json::Object object;
    std::unordered_set<std::string> keys;
    if (!take('}')) {
      do {
        skipSpace();
        if (at_ >= text_.size() || text_[at_] != '"') fail("a quoted key");
        std::string key = parseString();
        if (!keys.insert(key).second) fail("no duplicate keys");
        if (!take(':')) fail("':'");
        object.emplace_back(std::move(key), parseValue());
      } while (take(','));
      if (!take('}')) fail("',' or '}'");
    }
    ++depthLeft_;
    return Json(std::move(object));
  }

  Json parseArray() {
    if (--depthLeft_ < 0) fail("less nesting");
    ++at_;
    Json::Array array;
    if (!take(']')) {
      do array.push_back(parseValue());
      while (take(','));
      if (!take(']')) fail("',' or ']'");
    }
    ++depthLeft_;
    return Json(std::move(array));
  }

  unsigned parseHex4() {
    unsigned code = 0;
    for (int i = 0; i < 4; ++i, ++at_) {
      if (at_ >= text_.size()) fail("four hex digits");
      const char c = text_[at_];
      const int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
      if (digit < 0) fail("four hex digits");
      code = code * 16 + static_cast<unsigned>(digit);
    }
    return code;
  }

  static void appendUtf8(std::string& out, unsigned code) {
    const auto put = [&](unsigned byte) { out.push_back(static_cast<char>(byte)); };
    if (code < 0x80) {
      put(code);
    } else if (code < 0x800) {
      put(0xc0 | (code >> 6)), put(0x80 | (code & 0x3f));
    } else if (code < 0x10000) {
      put(0xe0 | (code >> 12)), put(0x80 | ((code >> 6) & 0x3f)), put(0x80 | (code & 0x3f));
    } else {
      put(0xf0 | (code >> 18)), put(0x80 | ((code >> 12) & 0x3f)), put(0x80 | ((code >> 6) & 0x3f)), put(0x80 | (code & 0x3f));
    }
  }

  std::string parseString() {
    ++at_;
    std::string out;
    while (true) {
      if (at_ >= text_.size()) fail("a closing quote");
      const auto c = static_cast<unsigned char>(text_[at_]);
      if (c == '"') {
        ++at_;
        return out;
      }
      if (c < 0x20) fail("no control characters in a string");
      if (c != '\\') {
        const int length = utf8SequenceLength(text_.substr(at_));
        if (length == 0) fail("valid UTF-8");
        out.append(text_.substr(at_, static_cast<size_t>(length)));
        at_ += static_cast<size_t>(length);
        continue;
      }
      if (++at_ >= text_.size()) fail("an escape");
      const char escape = text_[at_++];
      switch (escape) {
        case '"': out.push_back('"'); break;
        case '\\': out.push_back('\\'); break;
        case '/': out.push_back('/'); break;
        case 'b': out.push_back('\b'); break;
        case 'f': out.push_back('\f'); break;
        case 'n': out.push_back('\n'); break;
        case 'r': out.push_back('\r'); break;
        case 't': out.push_back('\t'); break;
        case 'u': {
          unsigned code = parseHex4();
          if (code >= 0xdc00 && code <= 0xdfff) fail("a paired surrogate");
          if (code >= 0xd800 && code <= 0xdbff) {
            if (!takeWord("\\u")) fail("a paired surrogate");
            const unsigned low = parseHex4();
            if (low < 0xdc00 || low > 0xdfff) fail("a paired surrogate");
            code = 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00);
          }
          appendUtf8(out, code);
          break;
        }
        default: --at_; fail("a known escape");
      }
    }
  }

  Json parseNumber() {
    const size_t start = at_;
    const auto digits = [&] {
      const size_t from = at_;
      while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') ++at_;
      return at_ - from;
    };
    if (at_ < text_.size() && text_[at_] == '-') ++at_;
    const size_t first = at_;
    const size_t whole = digits();
    if (whole == 0) fail("a value");
    if (whole > 1 && text_[first] == '0') fail("no leading zero");
    bool integer = true;
    if (at_ < text_.size() && text_[at_] == '.') {
      integer = false;
      ++at_;
      if (digits() == 0) fail("a digit");
    }
    if (at_ < text_.size() && (text_[at_] == 'e' || text_[at_] == 'E')) {
      integer = false;
      ++at_;
      if (at_ < text_.size() && (text_[at_] == '+' || text_[at_] == '-')) ++at_;
      if (digits() == 0) fail("a digit");
    }
    const char* from = text_.data() + start;
    const char* to = text_.data() + at_;
    if (integer) {
      int64_t value;
      if (std::from_chars(from, to, value).ec == std::errc()) return Json(value);
      fail("an integer within 64 bits");
    }
    double value;
    if (std::from_chars(from, to, value).ec != std::errc()) fail("a finite number");
    return Json(value);
  }

  std::string_view text_;
  size_t at_ = 0;
  int depthLeft_;
};

void dumpString(const std::string& text, std::string& out) {
  out.push_back('"');
  for (const char c : text) {
    switch (c) {
      case '"': out += "\\\""; break;
      case '\\': out += "\\\\"; break;
      case '\n': out += "\\n"; break;
      case '\r': out += "\\r"; break;
      case '\t': out += "\\t"; break;
      default:
        if (static_cast<unsigned char>(c) < 0x20) {
          constexpr char hex[] = "0123456789abcdef";
          out += "\\u00";
          out.push_back(hex[(c >> 4) & 0xf]);
          out.push_back(hex[c & 0xf]);
        } else {
          out.push_back(c);
        }
    }
  }
  out.push_back('"');
}

[[noreturn]] void wrongKind(std::string_view what, const char* kind) {
  throw Error(ErrorCode::BadRequest, std::string(what) + " must be " + kind, std::string(what));
}

}  // namespace

Json Json::parse(std::string_view text, int maximumDepth) { return Parser(text, maximumDepth).document(); }

bool Json::asBool(std::string_view what) const {
  if (const auto* v = std::get_if<bool>(&value_)) return *v;
  wrongKind(what, "true or false");
}

int64_t Json::asInteger(std::string_view what) const {
  if (const auto* v = std::get_if<int64_t>(&value_)) return *v;
  if (const auto* v = std::get_if<double>(&value_))
    if (*v == std::trunc(*v) && std::abs(*v) < 9.0e15) return static_cast<int64_t>(*v);
  wrongKind(what, "a whole number");
}

double Json::asNumber(std::string_view what) const {
  if (const auto* v = std::get_if<int64_t>(&value_)) return static_cast<double>(*v);
  if (const auto* v = std::get_if<double>(&value_)) return *v;
  wrongKind(what, "a number");
}

const std::string& Json::asString(std::string_view what) const {
  if (const auto* v = std::get_if<std::string>(&value_)) return *v;
  wrongKind(what, "a text");
}

const Json::Array& Json::asArray(std::string_view what) const {
  if (const auto* v = std::get_if<Array>(&value_)) return *v;
  wrongKind(what, "a list");
}

const Json::Object& Json::asObject(std::string_view what) const {
  if (const auto* v = std::get_if<Object>(&value_)) return *v;
  wrongKind(what, "an object");
}

const Json* Json::find(std::string_view key) const {
  if (const auto* object = std::get_if<Object>(&value_))
    for (const auto& [name, value] : *object)
      if (name == key) return &value;
  return nullptr;
}

const Json& Json::at(std::string_view key) const {
  if (const Json* found = find(key)) return *found;
  throw Error(ErrorCode::BadRequest, "'" + std::string(key) + "' is missing", std::string(key));
}

Json& Json::set(std::string_view key, Json value) {
  if (isNull()) value_ = Object{};
  auto& object = std::get<Object>(value_);
  for (auto& [name, existing] : object)
    if (name == key) return existing = std::move(value), *this;
  object.emplace_back(std::string(key), std::move(value));
  return *this;
}

void Json::push(Json value) {
  if (isNull()) value_ = Array{};
  std::get<Array>(value_).push_back(std::move(value));
}

std::string Json::stringOr(std::string_view key, std::string_view fallback) const {
  const Json* found = find(key);
  return found && !found->isNull() ? found->asString(key) : std::string(fallback);
}
double Json::numberOr(std::string_view key, double fallback) const {
  const Json* found = find(key);
  return found && !found->isNull() ? found->asNumber(key) : fallback;
}
int64_t Json::integerOr(std::string_view key, int64_t fallback) const {
  const Json* found = find(key);
  return found && !found->isNull() ? found->asInteger(key) : fallback;
}
bool Json::boolOr(std::string_view key, bool fallback) const {
  const Json* found = find(key);
  return found && !found->isNull() ? found->asBool(key) : fallback;
}

std::string Json::dump() const {
  std::string out;
  struct Writer {
    std::string& out;
    void operator()(std::nullptr_t) const { out += "null"; }
    void operator()(bool v) const { out += v ? "true" : "false"; }
    void operator()(int64_t v) const { out += std::to_string(v); }
    void operator()(double v) const {
      if (!std::isfinite(v)) {
        out += "null";
        return;
      }
      char text[32];
      const auto end = std::to_chars(text, text + sizeof text, v).ptr;
      out.append(text, end);
    }
    void operator()(const std::string& v) const { dumpString(v, out); }
    void operator()(const Array& v) const {
      out.push_back('[');
      for (size_t i = 0; i < v.size(); ++i) {
        if (i) out.push_back(',');
        std::visit(*this, v[i].value_);
      }
      out.push_back(']');
    }
    void operator()(const Object& v) const {
      out.push_back('{');
      for (size_t i = 0; i < v.size(); ++i) {
        if (i) out.push_back(',');
        dumpString(v[i].first, out);
        out.push_back(':');
        std::visit(*this, v[i].second.value_);
      }
      out.push_back('}');
    }
  };
  std::visit(Writer{out}, value_);
  return out;
}

}  // namespace vmoba
