#include "text/added_tokens.h"

#include <algorithm>

namespace baton::text {

void TemplateRanges::Add(size_t begin, size_t end) {
  if (begin == end) return;
  if (!ranges_.empty() && ranges_.back().end == begin) {
    ranges_.back().end = end;
  } else {
    ranges_.push_back({begin, end});
  }
}

bool TemplateRanges::Covers(size_t begin, size_t end) const {
  const auto after =
      std::upper_bound(ranges_.begin(), ranges_.end(), begin,
                       [](size_t at, const Range& range) { return at < range.begin; });
  return after != ranges_.begin() && end <= std::prev(after)->end;
}

void AddedTokens::Add(std::string_view text, TokenId token, bool special) {
  if (text.empty()) return;
  entries_.push_back({std::string(text), token, special});
  starts_[static_cast<unsigned char>(text[0])] = true;
}

void AddedTokens::Finish() {
  std::stable_sort(entries_.begin(), entries_.end(),
                   [](const Entry& a, const Entry& b) { return a.text < b.text; });
}

// Narrows the sorted entries byte by byte to those that share the text's prefix.
std::optional<AddedTokens::Match> AddedTokens::MatchAt(
    std::string_view text, size_t begin, const TemplateRanges& template_ranges) const {
  std::optional<Match> longest;
  auto low = entries_.begin();
  auto high = entries_.end();
  for (size_t length = 0; low != high; ++length) {
    for (; low != high && low->text.size() == length; ++low) {
      if (longest && longest->end == begin + length) continue;  // a duplicate: the first counts
      if (!low->special || template_ranges.Covers(begin, begin + length)) {
        longest = Match{begin, begin + length, low->token};
      }
    }
    if (begin + length >= text.size()) break;
    const auto byte = static_cast<unsigned char>(text[begin + length]);
    low = std::lower_bound(low, high, byte, [length](const Entry& entry, unsigned char value) {
      return static_cast<unsigned char>(entry.text[length]) < value;
    });
    high = std::upper_bound(low, high, byte, [length](unsigned char value, const Entry& entry) {
      return value < static_cast<unsigned char>(entry.text[length]);
    });
  }
  return longest;
}

std::optional<AddedTokens::Match> AddedTokens::FindNext(
    std::string_view text, size_t from, const TemplateRanges& template_ranges) const {
  if (entries_.empty()) return std::nullopt;
  for (size_t begin = from; begin < text.size(); ++begin) {
    if (!starts_[static_cast<unsigned char>(text[begin])]) continue;
    if (auto match = MatchAt(text, begin, template_ranges)) return match;
  }
  return std::nullopt;
}

}  // namespace baton::text
