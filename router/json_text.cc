#include "router/json_text.h"

#include <array>
#include <charconv>
#include <cmath>

namespace baton::router {
namespace {

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

// Printable ASCII that JSON takes as it is.
constexpr std::array<bool, 256> kPlain = [] {
  std::array<bool, 256> plain{};
  for (int c = 0x20; c < 0x7F; ++c) plain[static_cast<size_t>(c)] = c != '"' && c != '\\';
  plain[0x7F] = true;
  return plain;
}();

void AppendEscape(unsigned char c, std::string* out) {
  switch (c) {
    case '"':
      out->append("\\\"");
      return;
    case '\\':
      out->append("\\\\");
      return;
    case '\n':
      out->append("\\n");
      return;
    case '\r':
      out->append("\\r");
      return;
    case '\t':
      out->append("\\t");
      return;
    default:
      break;
  }
  constexpr char kHex[] = "0123456789abcdef";
  const char escape[] = {'\\', 'u', '0', '0', kHex[c >> 4], kHex[c & 15]};
  out->append(escape, sizeof(escape));
}

bool IsContinuation(std::string_view text, size_t at) {
  return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
}

// Bytes to replace by one U+FFFD: the broken character's well-formed beginning, at least one byte.
size_t BrokenBytes(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  const size_t wanted = lead >= 0xF0 && lead <= 0xF4 ? 4 : lead >= 0xE0 && lead < 0xF0 ? 3 : 1;
  if (wanted == 1 || !IsContinuation(text, 1)) return 1;
  const auto second = static_cast<unsigned char>(text[1]);
  const bool bad_second = (lead == 0xE0 && second < 0xA0) || (lead == 0xED && second > 0x9F) ||
                          (lead == 0xF0 && second < 0x90) || (lead == 0xF4 && second > 0x8F);
  if (bad_second) return 1;
  return wanted == 4 && IsContinuation(text, 2) ? 3 : 2;
}

template <typename Float>
void AppendFloat(Float value, std::string* out) {
  if (!std::isfinite(value)) {
    out->append(std::isnan(value) ? "null" : value < 0 ? "-9999" : "9999");
    return;
  }
  char digits[32];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
  out->append(digits, static_cast<size_t>(end - digits));
}

}  // namespace

size_t Utf8CharBytes(std::string_view text) {
  if (text.empty()) return 0;
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return 1;
  if (lead < 0xC2 || lead > 0xF4 || !IsContinuation(text, 1)) return 0;
  if (lead < 0xE0) return 2;
  const auto second = static_cast<unsigned char>(text[1]);
  if (!IsContinuation(text, 2)) return 0;
  if (lead < 0xF0) {
    const bool sound = lead == 0xE0 ? second >= 0xA0 : lead == 0xED ? second <= 0x9F : true;
    return sound ? 3 : 0;
  }
  const bool sound = lead == 0xF0 ? second >= 0x90 : lead == 0xF4 ? second <= 0x8F : true;
  return sound && IsContinuation(text, 3) ? 4 : 0;
}

bool IsUtf8(std::string_view text) {
  while (!text.empty()) {
    const size_t bytes = Utf8CharBytes(text);
    if (bytes == 0) return false;
    text.remove_prefix(bytes);
  }
  return true;
}

void AppendJsonEscaped(std::string_view text, std::string* out) {
  size_t plain_begin = 0;
  size_t i = 0;
  while (i < text.size()) {
    const auto c = static_cast<unsigned char>(text[i]);
    if (kPlain[c]) {
      ++i;
      continue;
    }
    const size_t bytes = c < 0x80 ? 0 : Utf8CharBytes(text.substr(i));
    if (bytes > 0) {
      i += bytes;
      continue;
    }
    out->append(text, plain_begin, i - plain_begin);
    if (c < 0x80) {
      AppendEscape(c, out);
      ++i;
    } else {
      out->append(kReplacement);
      i += BrokenBytes(text.substr(i));
    }
    plain_begin = i;
  }
  out->append(text, plain_begin, text.size() - plain_begin);
}

void AppendJsonString(std::string_view text, std::string* out) {
  out->push_back('"');
  AppendJsonEscaped(text, out);
  out->push_back('"');
}

void AppendJsonNumber(double value, std::string* out) { AppendFloat(value, out); }
void AppendJsonNumber(float value, std::string* out) { AppendFloat(value, out); }

void AppendJsonInt(int64_t value, std::string* out) {
  char digits[24];
  const auto end = std::to_chars(digits, digits + sizeof(digits), value).ptr;
  out->append(digits, static_cast<size_t>(end - digits));
}

}  // namespace baton::router
