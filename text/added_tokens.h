#pragma once

// Finds the tokens that stand for themselves in a text before it is split into words: special
// tokens where the template wrote them, user-defined tokens everywhere.

#include <array>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/ids.h"

namespace baton::text {

// Which bytes of a text may be part of a special token: sorted, disjoint, non-adjacent ranges.
class TemplateRanges {
 public:
  // Bytes [begin, end) were written by the template; calls must come in order.
  void Add(size_t begin, size_t end);
  // Whether all of [begin, end) was.
  bool Covers(size_t begin, size_t end) const;

 private:
  struct Range {
    size_t begin, end;
  };
  std::vector<Range> ranges_;
};

// Add everything, then Finish; then const and thread-safe.
class AddedTokens {
 public:
  struct Match {
    size_t begin, end;
    TokenId token;
  };

  // A token with an empty text is ignored.
  void Add(std::string_view text, TokenId token, bool special);
  void Finish();

  // The leftmost match at or after `from`, the longest of those that begin there. A special token
  // counts only where `template_ranges` covers all of it.
  std::optional<Match> FindNext(std::string_view text, size_t from,
                                const TemplateRanges& template_ranges) const;

 private:
  struct Entry {
    std::string text;
    TokenId token;
    bool special;
  };

  std::optional<Match> MatchAt(std::string_view text, size_t begin,
                               const TemplateRanges& template_ranges) const;

  std::vector<Entry> entries_;  // sorted by text
  std::array<bool, 256> starts_{};
};

}  // namespace baton::text
