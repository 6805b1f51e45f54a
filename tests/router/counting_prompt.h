#pragma once

// A prompt whose tokens are all unlike.

#include <numeric>
#include <vector>

#include "common/ids.h"

namespace baton::router {

inline std::vector<TokenId> CountingPrompt(size_t tokens, TokenId first = 0) {
  std::vector<TokenId> prompt(tokens);
  std::iota(prompt.begin(), prompt.end(), first);
  return prompt;
}

}  // namespace baton::router
