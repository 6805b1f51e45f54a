#pragma once

// The texts of a vocabulary as a trie, so that finding the tokens that may follow reads each common
// beginning once.

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"

namespace baton::grammar {

// Immutable, so safe to share.
class TokenTrie {
 public:
  // One text a token; tokens with empty texts are in no place of it.
  explicit TokenTrie(const std::vector<std::string_view>& texts);

  size_t vocab_size() const { return text_ends_.size(); }
  size_t node_count() const { return nodes_.size(); }
  // "" for tokens that it does not know: a model may have more logits than tokens.
  std::string_view text(TokenId token) const {
    const auto index = static_cast<size_t>(token);
    if (index >= text_ends_.size()) return {};
    const size_t begin = index == 0 ? 0 : text_ends_[index - 1];
    return std::string_view(texts_).substr(begin, text_ends_[index] - begin);
  }

  // next(state, byte) gives the state after a byte, negative: none. allow(token, state) is called
  // for each token that can be read from `begin`, with the state after it. With `drop_first_space`
  // a first space is not read, and a token that is nothing else not allowed.
  template <typename NextState, typename Allow>
  void Walk(int32_t begin, bool drop_first_space, NextState next, Allow allow) const {
    std::vector<int32_t> states(longest_ + 1);
    states[0] = begin;
    for (size_t i = 0; i < nodes_.size();) {
      const Node& node = nodes_[i];
      const bool dropped = drop_first_space && node.depth == 1 && node.byte == ' ';
      const int32_t state = dropped ? begin : next(states[node.depth - 1], node.byte);
      if (state < 0) {
        i = node.after;
        continue;
      }
      states[node.depth] = state;
      ++i;
      if (dropped) continue;
      const uint32_t last = i < nodes_.size() ? nodes_[i].first_token : token_count();
      for (uint32_t t = node.first_token; t < last; ++t) allow(tokens_[t], state);
    }
  }

 private:
  struct Node {
    uint32_t after;        // the node after all that begin with this one
    uint32_t first_token;  // into tokens_; the next node's is the end
    uint16_t depth;        // from 1
    uint8_t byte;
  };
  uint32_t token_count() const { return static_cast<uint32_t>(tokens_.size()); }

  std::string texts_;
  std::vector<size_t> text_ends_;
  std::vector<Node> nodes_;  // each before those that begin with it
  std::vector<TokenId> tokens_;
  size_t longest_ = 0;
};

}  // namespace baton::grammar
