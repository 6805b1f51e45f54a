#include "text/pre_tokenizer.h"

#include <utility>

namespace baton::text {
namespace {

constexpr bool IsNewline(char c) { return c == '\r' || c == '\n'; }

// Lower-case ASCII letter of text[at] as a case-blind pattern sees it, and its bytes. U+017F (the
// long s) is the only other character that folds to a letter of these contractions.
std::pair<char, size_t> FoldedLetter(std::string_view text, size_t at, bool ignore_case) {
  if (at >= text.size()) return {'\0', 0};
  const char c = text[at];
  if (ignore_case && c >= 'A' && c <= 'Z') return {static_cast<char>(c - 'A' + 'a'), 1};
  if (ignore_case && text.substr(at, 2) == "\xC5\xBF") return {'s', 2};
  return {c, 1};
}

// Bytes of 's|'t|'re|'ve|'m|'ll|'d at text[at], 0 when there is none.
size_t ContractionBytes(std::string_view text, size_t at, bool ignore_case) {
  if (text[at] != '\'') return 0;
  const auto [first, first_bytes] = FoldedLetter(text, at + 1, ignore_case);
  if (first == 's' || first == 't' || first == 'm' || first == 'd') return 1 + first_bytes;
  const auto [second, second_bytes] = FoldedLetter(text, at + 1 + first_bytes, ignore_case);
  const bool pair = (first == 'r' && second == 'e') || (first == 'v' && second == 'e') ||
                    (first == 'l' && second == 'l');
  return pair ? 1 + first_bytes + second_bytes : 0;
}

}  // namespace

std::optional<PreTokenizerKind> PreTokenizerFromName(std::string_view name) {
  if (name == "gpt-2") return PreTokenizerKind::kGpt2;
  if (name == "smollm") return PreTokenizerKind::kSmolLm;
  if (name == "llama-bpe") return PreTokenizerKind::kLlamaBpe;
  if (name == "qwen2") return PreTokenizerKind::kQwen2;
  return std::nullopt;
}

size_t PreTokenizer::RunEnd(std::string_view text, size_t begin, CharClass kind) const {
  size_t end = begin;
  while (end < text.size()) {
    const CharClasses::Unit unit = classes_.At(text, end);
    if (unit.kind != kind) break;
    end += unit.bytes;
  }
  return end;
}

size_t PreTokenizer::Gpt2WordEnd(std::string_view text, size_t begin, bool split_numbers) const {
  const CharClasses::Unit first = classes_.At(text, begin);
  if (split_numbers && first.kind == CharClass::kNumber) return begin + first.bytes;
  if (const size_t bytes = ContractionBytes(text, begin, false); bytes > 0) return begin + bytes;
  if (first.kind != CharClass::kSpace) return RunEnd(text, begin + first.bytes, first.kind);

  const size_t end = RunEnd(text, begin + first.bytes, CharClass::kSpace);
  if (end == text.size()) return end;
  const CharClass next = classes_.At(text, end).kind;
  if (split_numbers && next == CharClass::kNumber) return end;
  const size_t last = PreviousChar(text, end);
  if (last > begin) return last;  // \s+(?!\S): the last space goes with what follows
  return text[begin] == ' ' ? RunEnd(text, end, next) : end;
}

size_t PreTokenizer::Llama3WordEnd(std::string_view text, size_t begin, int max_digits) const {
  if (const size_t bytes = ContractionBytes(text, begin, true); bytes > 0) return begin + bytes;
  const CharClasses::Unit first = classes_.At(text, begin);
  const size_t second = begin + first.bytes;
  if (first.kind == CharClass::kLetter) return RunEnd(text, second, CharClass::kLetter);
  if (first.kind == CharClass::kNumber) {
    size_t end = second;
    for (int digits = 1; digits < max_digits && end < text.size(); ++digits) {
      const CharClasses::Unit unit = classes_.At(text, end);
      if (unit.kind != CharClass::kNumber) break;
      end += unit.bytes;
    }
    return end;
  }
  const bool at_end = second == text.size();
  const CharClass next = at_end ? CharClass::kSpace : classes_.At(text, second).kind;
  if (next == CharClass::kLetter && !IsNewline(text[begin])) {
    return RunEnd(text, second, CharClass::kLetter);
  }
  if (first.kind == CharClass::kOther || (text[begin] == ' ' && next == CharClass::kOther)) {
    size_t end = RunEnd(text, second, CharClass::kOther);
    while (end < text.size() && IsNewline(text[end])) ++end;
    return end;
  }

  const size_t end = RunEnd(text, begin, CharClass::kSpace);
  for (size_t at = end; at > begin; --at) {
    if (IsNewline(text[at - 1])) return at;
  }
  if (end == text.size()) return end;
  const size_t last = PreviousChar(text, end);
  return last > begin ? last : end;
}

size_t PreTokenizer::WordEnd(std::string_view text, size_t begin) const {
  switch (kind_) {
    case PreTokenizerKind::kGpt2:
      return Gpt2WordEnd(text, begin, false);
    case PreTokenizerKind::kSmolLm:
      return Gpt2WordEnd(text, begin, true);
    case PreTokenizerKind::kLlamaBpe:
      return Llama3WordEnd(text, begin, 3);
    case PreTokenizerKind::kQwen2:
      return Llama3WordEnd(text, begin, 1);
  }
  return text.size();
}

}  // namespace baton::text
