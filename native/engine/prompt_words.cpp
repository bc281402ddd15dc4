#include "native/engine/prompt_words.h"

namespace vmoba {

std::vector<PromptWord> promptWords(const std::string& prompt, std::span<const TokenSpan> tokens) {
  std::vector<PromptWord> words;
  size_t wordEnd = 0;
  for (size_t row = 0; row < tokens.size(); ++row) {
    size_t begin = tokens[row].begin;
    const size_t end = tokens[row].end;
    while (begin < end && prompt[begin] == ' ') ++begin;
    if (begin >= end) continue;  // an inserted space, or the end-of-sentence token
    if (begin >= wordEnd) {
      wordEnd = prompt.find_first_of(" \t\r\n", begin);
      if (wordEnd == std::string::npos) wordEnd = prompt.size();
      const size_t wordBegin = begin;
      words.push_back({prompt.substr(wordBegin, wordEnd - wordBegin), static_cast<int64_t>(row), 0});
    }
    words.back().rows = static_cast<int64_t>(row) - words.back().firstRow + 1;
  }
  return words;
}

}  // namespace vmoba
