#include "grammar/token_trie.h"

#include <algorithm>

#include "common/status_macros.h"

namespace baton::grammar {

TokenTrie::TokenTrie(const std::vector<std::string_view>& texts) {
  for (const std::string_view text : texts) {
    BATON_CHECK(text.size() <= UINT16_MAX, "a token's text is short");
    texts_ += text;
    text_ends_.push_back(texts_.size());
    longest_ = std::max(longest_, text.size());
  }
  for (size_t i = 0; i < texts.size(); ++i) {
    if (!texts[i].empty()) tokens_.push_back(static_cast<TokenId>(i));
  }
  std::ranges::stable_sort(tokens_, {}, [this](TokenId token) { return text(token); });

  std::string_view path;
  std::vector<uint32_t> open;  // nodes of `path`
  const auto close_to = [&](size_t depth) {
    for (; open.size() > depth; open.pop_back()) {
      nodes_[open.back()].after = static_cast<uint32_t>(nodes_.size());
    }
  };
  for (size_t i = 0; i < tokens_.size(); ++i) {
    const std::string_view next = text(tokens_[i]);
    const auto differs = std::ranges::mismatch(path, next);
    close_to(static_cast<size_t>(differs.in1 - path.begin()));
    while (open.size() < next.size()) {
      const auto byte = static_cast<uint8_t>(next[open.size()]);
      open.push_back(static_cast<uint32_t>(nodes_.size()));
      nodes_.push_back({.after = 0,
                        .first_token = static_cast<uint32_t>(i),
                        .depth = static_cast<uint16_t>(open.size()),
                        .byte = byte});
    }
    path = next;
  }
  close_to(0);
}

}  // namespace baton::grammar
