// Which text rows belong to which word of the prompt: the keys of the word map.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "native/engine/tokenizer/tokenizer.h"

namespace vmoba {

struct PromptWord {
  std::string text;
  int64_t firstRow = 0, rows = 0;
};

/// Words are runs of non-space bytes of the prompt; tokens are assigned to the word their bytes begin in.
std::vector<PromptWord> promptWords(const std::string& prompt, std::span<const TokenSpan> tokens);

}  // namespace vmoba
