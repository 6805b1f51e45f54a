#include "text/jinja/text_ops.h"

#include <fmt/format.h>
#include <string.h>

#include <algorithm>

#include "common/status_macros.h"
#include "text/utf8.h"

namespace baton::text::jinja {
namespace {

bool IsLetter(char c) { return (c | 32) >= 'a' && (c | 32) <= 'z'; }
char ToUpper(char c) { return c >= 'a' && c <= 'z' ? static_cast<char>(c - 'a' + 'A') : c; }
char ToLower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

template <typename Change>
Text Map(const Text& text, Change change) {
  Text out;
  for (size_t at = 0; at < text.size(); ++at) {
    const char c = change(text.bytes()[at], at);
    out.AppendAs(std::string_view(&c, 1), text, at);
  }
  return out;
}

// Whether the character at text[at, end) is one of `chars`, or white space by default.
bool IsStripped(std::string_view c, std::optional<std::string_view> chars) {
  if (!chars) return IsPythonSpace(DecodeUtf8(c, 0).code);
  for (size_t at = 0; at < chars->size(); at += DecodeUtf8(*chars, at).bytes) {
    if (chars->substr(at, DecodeUtf8(*chars, at).bytes) == c) return true;
  }
  return false;
}

std::vector<Text> SplitOnSpace(const Text& text, int64_t limit, bool from_right) {
  const std::string_view bytes = text.bytes();
  const std::vector<size_t> starts = CharStarts(bytes);
  const auto is_space = [&](size_t i) { return IsPythonSpace(DecodeUtf8(bytes, starts[i]).code); };
  std::vector<Text> parts;
  size_t begin = 0;
  size_t end = starts.size() - 1;
  while (begin < end && is_space(begin)) ++begin;
  while (end > begin && is_space(end - 1)) --end;
  while (begin < end && limit != 0) {
    if (from_right) {
      size_t word = end;
      while (word > begin && !is_space(word - 1)) --word;
      parts.push_back(text.Slice(starts[word], starts[end]));
      for (end = word; end > begin && is_space(end - 1); --end) {
      }
    } else {
      size_t word = begin;
      while (word < end && !is_space(word)) ++word;
      parts.push_back(text.Slice(starts[begin], starts[word]));
      for (begin = word; begin < end && is_space(begin); ++begin) {
      }
    }
    --limit;
  }
  if (begin < end) parts.push_back(text.Slice(starts[begin], starts[end]));
  if (from_right) std::reverse(parts.begin(), parts.end());
  return parts;
}

}  // namespace

std::vector<size_t> CharStarts(std::string_view text) {
  std::vector<size_t> starts;
  size_t at = 0;
  for (; at < text.size(); at += DecodeUtf8(text, at).bytes) starts.push_back(at);
  starts.push_back(at);
  return starts;
}

int64_t CharCount(std::string_view text) {
  int64_t count = 0;
  for (size_t at = 0; at < text.size(); at += DecodeUtf8(text, at).bytes) ++count;
  return count;
}

size_t FindBytes(std::string_view text, std::string_view what, size_t from) {
  if (from > text.size()) return std::string_view::npos;
  constexpr size_t kShort = 32;  // up to here the simple search has no bad case worth the setup
  if (what.size() <= kShort) return text.find(what, from);
  const void* found = memmem(text.data() + from, text.size() - from, what.data(), what.size());
  if (found == nullptr) return std::string_view::npos;
  return static_cast<size_t>(static_cast<const char*>(found) - text.data());
}

Text Strip(const Text& text, std::optional<std::string_view> chars, bool left, bool right) {
  const std::string_view bytes = text.bytes();
  size_t begin = 0;
  size_t end = bytes.size();
  while (left && begin < end) {
    const size_t next = begin + DecodeUtf8(bytes, begin).bytes;
    if (!IsStripped(bytes.substr(begin, next - begin), chars)) break;
    begin = next;
  }
  while (right && end > begin) {
    const size_t last = PreviousChar(bytes, end);
    if (!IsStripped(bytes.substr(last, end - last), chars)) break;
    end = last;
  }
  return text.Slice(begin, end);
}

absl::StatusOr<Text> Replace(const Text& text, std::string_view old, const Text& replacement,
                             int64_t limit, Budget& budget) {
  const std::string_view bytes = text.bytes();
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(bytes.size()));
  std::vector<size_t> found;
  if (old.empty()) {
    BATON_RETURN_IF_ERROR(budget.Spend(bytes.size()));
    found = CharStarts(bytes);
  } else {
    for (size_t at = FindBytes(bytes, old); at != std::string_view::npos;
         at = FindBytes(bytes, old, at + old.size())) {
      BATON_RETURN_IF_ERROR(budget.Spend(1));
      found.push_back(at);
    }
  }
  if (limit >= 0 && found.size() > static_cast<size_t>(limit)) found.resize(limit);
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(bytes.size() + found.size() * replacement.size()));
  Text out;
  size_t copied = 0;
  for (const size_t at : found) {
    out.Append(text, copied, at - copied);
    out.Append(replacement);
    copied = at + old.size();
  }
  out.Append(text, copied, bytes.size() - copied);
  return out;
}

absl::StatusOr<std::vector<Text>> Split(const Text& text, std::optional<std::string_view> separator,
                                        int64_t limit, bool from_right, Budget& budget) {
  BATON_RETURN_IF_ERROR(budget.Spend(1 + text.size() / 2));
  if (!separator) return SplitOnSpace(text, limit, from_right);
  if (separator->empty()) return absl::InvalidArgumentError("split by an empty separator");
  const std::string_view bytes = text.bytes();
  std::vector<size_t> found;
  if (from_right) {
    BATON_RETURN_IF_ERROR(budget.Spend(bytes.size() / Budget::kBytesPerStep * separator->size()));
    // Matches are counted from the right, where overlapping ones may differ.
    for (size_t end = bytes.size(); limit < 0 || found.size() < static_cast<size_t>(limit);) {
      BATON_RETURN_IF_ERROR(budget.Spend(1));
      const size_t at = bytes.substr(0, end).rfind(*separator);
      if (at == std::string_view::npos) break;
      found.push_back(at);
      end = at;
    }
    std::reverse(found.begin(), found.end());
  } else {
    for (size_t at = FindBytes(bytes, *separator);
         at != std::string_view::npos && (limit < 0 || found.size() < static_cast<size_t>(limit));
         at = FindBytes(bytes, *separator, at + separator->size())) {
      BATON_RETURN_IF_ERROR(budget.Spend(1));
      found.push_back(at);
    }
  }
  std::vector<Text> parts;
  size_t begin = 0;
  for (const size_t at : found) {
    parts.push_back(text.Slice(begin, at));
    begin = at + separator->size();
  }
  parts.push_back(text.Slice(begin, bytes.size()));
  return parts;
}

std::vector<Text> SplitLines(const Text& text, bool keep_ends) {
  const std::string_view bytes = text.bytes();
  std::vector<Text> lines;
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const Utf8Char c = DecodeUtf8(bytes, at);
    const bool is_break = (c.code >= '\n' && c.code <= '\r') ||
                          (c.code >= 0x1C && c.code <= 0x1E) || c.code == 0x85 ||
                          c.code == 0x2028 || c.code == 0x2029;
    size_t next = at + c.bytes;
    if (is_break) {
      if (bytes.substr(at, 2) == "\r\n") ++next;
      lines.push_back(text.Slice(begin, keep_ends ? next : at));
      begin = next;
    }
    at = next;
  }
  if (begin < bytes.size()) lines.push_back(text.Slice(begin, bytes.size()));
  return lines;
}

absl::Status SpendOnPrinting(const Value& value, Budget& budget) {
  constexpr uint64_t kBytesPerWeight = 6;  // an escape like \u0001, or ", " and brackets
  return budget.SpendOnBytes(value.Weight() * (value.text() != nullptr ? 1 : kBytesPerWeight));
}

absl::StatusOr<Text> Join(const std::vector<Value>& items, const Text& separator, Budget& budget) {
  Text out;
  for (size_t i = 0; i < items.size(); ++i) {
    BATON_RETURN_IF_ERROR(SpendOnPrinting(items[i], budget));
    if (i > 0) out.Append(separator);
    out.Append(ToText(items[i]));
    if (out.size() > Budget::kMaxTextBytes) break;
  }
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(out.size()));
  return out;
}

Text Upper(const Text& text) {
  return Map(text, [](char c, size_t) { return ToUpper(c); });
}

Text Lower(const Text& text) {
  return Map(text, [](char c, size_t) { return ToLower(c); });
}

Text Capitalize(const Text& text) {
  return Map(text, [](char c, size_t at) { return at == 0 ? ToUpper(c) : ToLower(c); });
}

Text Title(const Text& text) {
  return Map(text, [&text](char c, size_t at) {
    return at > 0 && IsLetter(text.bytes()[at - 1]) ? ToLower(c) : ToUpper(c);
  });
}

absl::StatusOr<Text> Indent(const Text& text, int64_t indent, bool first, bool blank,
                            Budget& budget) {
  constexpr int64_t kMaxIndent = 256;
  if (indent < 0 || indent > kMaxIndent) {
    return absl::InvalidArgumentError(
        fmt::format("indent by {}, not by 0 to {}", indent, kMaxIndent));
  }
  const std::string spaces(static_cast<size_t>(indent), ' ');
  const std::string_view bytes = text.bytes();
  const auto lines = static_cast<uint64_t>(std::count(bytes.begin(), bytes.end(), '\n')) + 1;
  BATON_RETURN_IF_ERROR(budget.SpendOnBytes(bytes.size() + lines * spaces.size()));
  Text out;
  for (size_t begin = 0; begin <= bytes.size();) {
    const size_t end = std::min(bytes.find('\n', begin), bytes.size());
    if ((begin == 0 && first) || (begin > 0 && (blank || end > begin))) out.AppendTemplate(spaces);
    out.Append(text, begin, std::min(end + 1, bytes.size()) - begin);
    begin = end + 1;
  }
  return out;
}

}  // namespace baton::text::jinja
