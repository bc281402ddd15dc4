// The named character references of HTML, sorted by name in byte order.
#pragma once
#include <cstddef>

namespace vmoba {

struct HtmlEntity {
  const char* name;  ///< without '&' and ';'
  const char* text;  ///< UTF-8, one or two characters
  bool bare;         ///< also known without ';'
};

extern const HtmlEntity htmlEntities[];
extern const size_t htmlEntityCount;

}  // namespace vmoba
