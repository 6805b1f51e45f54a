#include "text/jinja/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "common/status_macros.h"
#include "text/utf8.h"

namespace baton::text::jinja {
namespace {

bool IsNameStart(char c) { return absl::ascii_isalpha(c) || c == '_'; }
bool IsBlank(char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

// \r\n and \r become \n; one newline at the very end is dropped.
std::string NormalizeNewlines(std::string_view source) {
  std::string out;
  for (size_t at = 0; at < source.size(); ++at) {
    if (source[at] != '\r') {
      out += source[at];
    } else if (at + 1 == source.size() || source[at + 1] != '\n') {
      out += '\n';
    }
  }
  if (out.ends_with('\n')) out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string_view source) : source_(NormalizeNewlines(source)) {}

  absl::StatusOr<std::vector<Token>> Run() {
    while (at_ < source_.size()) BATON_RETURN_IF_ERROR(TextThenTag());
    Add(TokenKind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  Position Here() {
    for (; counted_ < at_; ++counted_) {
      position_.column = source_[counted_] == '\n' ? 1 : position_.column + 1;
      position_.line += source_[counted_] == '\n';
    }
    return position_;
  }
  bool Looking(std::string_view what) const {
    return std::string_view(source_).substr(at_, what.size()) == what;
  }
  void Add(TokenKind kind, std::string value) {
    tokens_.push_back({kind, Here(), std::move(value)});
  }
  absl::Status Error(std::string_view what) { return ErrorAt(Here(), what); }
  void SkipBlanks() {
    while (at_ < source_.size() && IsBlank(source_[at_])) ++at_;
  }

  absl::Status TextThenTag();
  void AddText(size_t begin, size_t end, bool strip_line, bool strip_all);
  absl::Status Comment();
  absl::StatusOr<bool> RawBlock();
  absl::Status Tag(bool is_output);
  bool EndTag(bool is_output, bool trims_newline = true);
  absl::Status TagToken(std::string& open_brackets);
  absl::Status String();
  absl::Status Escape(std::string& out, char quote);
  absl::Status Number();
  absl::Status Operator(std::string& open_brackets);

  const std::string source_;
  size_t at_ = 0;
  size_t counted_ = 0;  // position_ belongs to this offset
  Position position_;
  std::vector<Token> tokens_;
};

// Adds source_[begin, end) without the white space that a tag behind it takes away.
void Lexer::AddText(size_t begin, size_t end, bool strip_line, bool strip_all) {
  if (strip_all) {
    while (end > begin) {
      const size_t last = PreviousChar(source_, end);
      if (last < begin || !IsPythonSpace(DecodeUtf8(source_, last).code)) break;
      end = last;
    }
  } else if (strip_line) {
    size_t line = end;
    while (line > begin && source_[line - 1] != '\n' && IsBlank(source_[line - 1])) --line;
    const bool at_line_start = line == 0 || source_[line - 1] == '\n';
    if (at_line_start) end = line;
  }
  if (end > begin) Add(TokenKind::kText, source_.substr(begin, end - begin));
}

absl::Status Lexer::TextThenTag() {
  const size_t begin = at_;
  size_t open = source_.find('{', begin);
  while (open != std::string::npos &&
         (open + 1 == source_.size() ||
          std::string_view("{%#").find(source_[open + 1]) == std::string_view::npos)) {
    open = source_.find('{', open + 1);
  }
  if (open == std::string::npos) {
    AddText(begin, source_.size(), false, false);
    at_ = source_.size();
    return absl::OkStatus();
  }
  const char kind = source_[open + 1];
  const char sign = open + 2 < source_.size() ? source_[open + 2] : '\0';
  AddText(begin, open, kind != '{' && sign != '+', sign == '-');
  at_ = open;
  if (kind == '#') return Comment();
  if (kind == '%') {
    BATON_ASSIGN_OR_RETURN(const bool was_raw, RawBlock());
    if (was_raw) return absl::OkStatus();
  }
  Add(kind == '{' ? TokenKind::kOutputBegin : TokenKind::kTagBegin, "");
  at_ = open + 2 + ((sign == '-' || (sign == '+' && kind == '%')) ? 1 : 0);
  return Tag(kind == '{');
}

absl::Status Lexer::Comment() {
  const size_t end = source_.find("#}", at_ + 2);
  if (end == std::string::npos) return Error("a comment has no '#}'");
  const char sign = end > at_ + 2 ? source_[end - 1] : '\0';
  at_ = end + 2;
  if (sign == '-') {
    SkipBlanks();
  } else if (sign != '+' && Looking("\n")) {
    ++at_;
  }
  return absl::OkStatus();
}

// {% raw %}...{% endraw %}: false (and nothing consumed) when the tag is another one.
absl::StatusOr<bool> Lexer::RawBlock() {
  const size_t open = at_;
  const auto accept = [this](std::string_view name, bool trims_newline) {
    at_ += 2;
    if (Looking("-") || Looking("+")) ++at_;
    SkipBlanks();
    if (!Looking(name)) return false;
    at_ += name.size();
    SkipBlanks();
    return EndTag(false, trims_newline);
  };
  if (!accept("raw", false)) {
    at_ = open;
    return false;
  }
  const size_t begin = at_;
  for (size_t end = source_.find("{%", at_); end != std::string::npos;
       end = source_.find("{%", end + 2)) {
    at_ = end;
    const char sign = end + 2 < source_.size() ? source_[end + 2] : '\0';
    if (!accept("endraw", true)) continue;
    const size_t after = at_;
    at_ = begin;
    AddText(begin, end, sign != '+', sign == '-');
    at_ = after;
    return true;
  }
  at_ = open;
  return Error("a raw block has no {% endraw %}");
}

// The end of a tag, and the white space that it takes away.
bool Lexer::EndTag(bool is_output, bool trims_newline) {
  const std::string_view end = is_output ? "}}" : "%}";
  const std::string_view rest = std::string_view(source_).substr(at_);
  if (rest.starts_with('-') && rest.substr(1).starts_with(end)) {
    at_ += 3;
    SkipBlanks();
    return true;
  }
  if (!is_output && rest.starts_with("+%}")) {
    at_ += 3;
    return true;
  }
  if (!rest.starts_with(end)) return false;
  at_ += 2;
  if (!is_output && trims_newline && Looking("\n")) ++at_;
  return true;
}

absl::Status Lexer::Tag(bool is_output) {
  std::string open_brackets;
  while (true) {
    SkipBlanks();
    if (at_ >= source_.size()) return Error("the template ends inside a tag");
    if (open_brackets.empty()) {
      const Position position = Here();
      if (EndTag(is_output)) {
        tokens_.push_back({is_output ? TokenKind::kOutputEnd : TokenKind::kTagEnd, position, ""});
        return absl::OkStatus();
      }
    }
    BATON_RETURN_IF_ERROR(TagToken(open_brackets));
  }
}

absl::Status Lexer::TagToken(std::string& open_brackets) {
  const char c = source_[at_];
  if (IsNameStart(c)) {
    size_t end = at_;
    while (end < source_.size() && (IsNameStart(source_[end]) || absl::ascii_isdigit(source_[end])))
      ++end;
    Add(TokenKind::kName, source_.substr(at_, end - at_));
    at_ = end;
    return absl::OkStatus();
  }
  if (absl::ascii_isdigit(c)) return Number();
  if (c == '"' || c == '\'') return String();
  return Operator(open_brackets);
}

absl::Status Lexer::Number() {
  std::string digits;
  size_t end = at_;
  const auto take_digits = [&] {
    for (; end < source_.size() && (absl::ascii_isdigit(source_[end]) || source_[end] == '_');
         ++end) {
      if (source_[end] != '_') digits += source_[end];
    }
  };
  const auto is_digit_at = [&](size_t at) {
    return at < source_.size() && absl::ascii_isdigit(source_[at]);
  };
  take_digits();
  TokenKind kind = TokenKind::kInteger;
  if (end < source_.size() && source_[end] == '.' && is_digit_at(end + 1)) {
    kind = TokenKind::kFloat;
    digits += source_[end++];
    take_digits();
  }
  if (end < source_.size() && (source_[end] == 'e' || source_[end] == 'E')) {
    const char next = end + 1 < source_.size() ? source_[end + 1] : '\0';
    const size_t sign = next == '-' || next == '+' ? 1 : 0;
    if (is_digit_at(end + 1 + sign)) {
      kind = TokenKind::kFloat;
      digits += source_.substr(end, 1 + sign);
      end += 1 + sign;
      take_digits();
    }
  }
  Add(kind, digits);
  at_ = end;
  return absl::OkStatus();
}

absl::Status Lexer::String() {
  const char quote = source_[at_];
  const Position position = Here();
  std::string value;
  for (++at_; at_ < source_.size() && source_[at_] != quote;) {
    if (source_[at_] == '\\') {
      BATON_RETURN_IF_ERROR(Escape(value, quote));
    } else {
      value += source_[at_++];
    }
  }
  if (at_ >= source_.size()) return ErrorAt(position, "a string has no end");
  ++at_;
  tokens_.push_back({TokenKind::kString, position, std::move(value)});
  return absl::OkStatus();
}

// One escape of a Python string literal.
absl::Status Lexer::Escape(std::string& out, char quote) {
  if (at_ + 1 >= source_.size()) return Error("a string has no end");
  const char c = source_[at_ + 1];
  constexpr std::string_view kNames = "abfnrtv";
  constexpr std::string_view kValues = "\a\b\f\n\r\t\v";
  const auto number = [&](size_t begin, size_t max_digits, int base, char32_t& code) {
    size_t end = begin;
    code = 0;
    for (; end < source_.size() && end < begin + max_digits; ++end) {
      const char d = source_[end];
      const bool is_letter = (d | 32) >= 'a' && (d | 32) <= 'f';
      const int digit = absl::ascii_isdigit(d) ? d - '0' : is_letter ? (d | 32) - 'a' + 10 : base;
      if (digit >= base) break;
      code = code * base + static_cast<char32_t>(digit);
    }
    return end - begin;
  };
  char32_t code = 0;
  if (const size_t name = kNames.find(c); name != std::string_view::npos) {
    out += kValues[name];
    at_ += 2;
  } else if (c == '\\' || c == quote || c == '\'' || c == '"') {
    out += c;
    at_ += 2;
  } else if (c == '\n') {
    at_ += 2;
  } else if (c == 'x' || c == 'u' || c == 'U') {
    const size_t digits = c == 'x' ? 2 : c == 'u' ? 4 : 8;
    const bool whole = number(at_ + 2, digits, 16, code) == digits;
    if (!whole || code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
      return Error("a string has a bad escape");
    }
    AppendUtf8(code, out);
    at_ += 2 + digits;
  } else if (c >= '0' && c <= '7') {
    at_ += 1 + number(at_ + 1, 3, 8, code);
    AppendUtf8(code, out);
  } else {
    out += '\\';  // Python keeps unknown escapes as they are
    ++at_;
  }
  return absl::OkStatus();
}

absl::Status Lexer::Operator(std::string& open_brackets) {
  constexpr std::string_view kOperators[] = {"//", "**", "==", "!=", "<=", ">=", "+", "-", "*",
                                             "/",  "%",  "~",  "<",  ">",  "=",  ".", ",", ":",
                                             "|",  "(",  ")",  "[",  "]",  "{",  "}"};
  const auto found = std::find_if(std::begin(kOperators), std::end(kOperators),
                                  [this](std::string_view op) { return Looking(op); });
  if (found == std::end(kOperators)) {
    return Error(fmt::format("unexpected character '{}'", source_[at_]));
  }
  const char c = found->front();
  if (c == '(' || c == '[' || c == '{') {
    open_brackets += c == '(' ? ')' : c == '[' ? ']' : '}';
  } else if (c == ')' || c == ']' || c == '}') {
    if (open_brackets.empty() || open_brackets.back() != c) {
      return Error(fmt::format("unexpected '{}'", c));
    }
    open_brackets.pop_back();
  }
  Add(TokenKind::kOperator, std::string(*found));
  at_ += found->size();
  return absl::OkStatus();
}

}  // namespace

absl::Status ErrorAt(Position position, std::string_view what) {
  return absl::InvalidArgumentError(
      fmt::format("chat template, line {}, column {}: {}", position.line, position.column, what));
}

absl::StatusOr<std::vector<Token>> Lex(std::string_view source) { return Lexer(source).Run(); }

}  // namespace baton::text::jinja
