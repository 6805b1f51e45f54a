#pragma once

// Finds a token id by its text: a flat hash table of 8-byte slots over strings that others own.

#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "common/ids.h"

namespace baton::text {

// Add everything first; then const and thread-safe. The strings must outlive the index.
class TextIndex {
 public:
  // `texts[id]` is the text of token id; which of them are found is decided by Add.
  explicit TextIndex(const std::vector<std::string_view>* texts);

  // The first token added with a text is the one that is found.
  void Add(TokenId token);
  TokenId Find(std::string_view text) const;  // -1 when there is none

 private:
  struct Slot {
    uint32_t hash;
    TokenId token;  // -1: empty
  };

  size_t SlotOf(std::string_view text, uint64_t hash) const;

  const std::vector<std::string_view>* texts_;
  std::vector<Slot> slots_;  // open addressing, at most half full
  size_t mask_;
};

}  // namespace baton::text
