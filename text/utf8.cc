#include "text/utf8.h"

#include <algorithm>

namespace baton::text {
namespace {

struct Lead {
  uint32_t bytes;  // 0: no character starts with this byte
  char32_t bits;
  unsigned char second_min, second_max;  // rules out overlong forms, surrogates and > U+10FFFF
};

Lead LeadOf(unsigned char byte) {
  if (byte < 0x80) return {1, byte, 0, 0};
  if (byte < 0xC2) return {0, 0, 0, 0};
  if (byte < 0xE0) return {2, byte & 0x1Fu, 0x80, 0xBF};
  if (byte == 0xE0) return {3, 0, 0xA0, 0xBF};
  if (byte == 0xED) return {3, 0x0D, 0x80, 0x9F};
  if (byte < 0xF0) return {3, byte & 0x0Fu, 0x80, 0xBF};
  if (byte == 0xF0) return {4, 0, 0x90, 0xBF};
  if (byte < 0xF4) return {4, byte & 0x07u, 0x80, 0xBF};
  if (byte == 0xF4) return {4, 4, 0x80, 0x8F};
  return {0, 0, 0, 0};
}

}  // namespace

Utf8Char DecodeMultibyte(std::string_view text, size_t position) {
  constexpr Utf8Char kInvalid = {kReplacementCharacter, 1, false};
  const Lead lead = LeadOf(static_cast<unsigned char>(text[position]));
  if (lead.bytes == 0 || text.size() - position < lead.bytes) return kInvalid;
  char32_t code = lead.bits;
  for (uint32_t i = 1; i < lead.bytes; ++i) {
    const auto byte = static_cast<unsigned char>(text[position + i]);
    const unsigned char low = i == 1 ? lead.second_min : 0x80;
    const unsigned char high = i == 1 ? lead.second_max : 0xBF;
    if (byte < low || byte > high) return kInvalid;
    code = code << 6 | (byte & 0x3F);
  }
  return {code, lead.bytes, true};
}

size_t PreviousChar(std::string_view text, size_t end) {
  for (size_t bytes = 2; bytes <= 4 && bytes <= end; ++bytes) {
    const Utf8Char c = DecodeUtf8(text.substr(0, end), end - bytes);
    if (c.valid && c.bytes == bytes) return end - bytes;
  }
  return end - 1;
}

bool IsIncompleteUtf8(std::string_view text) {
  const Lead lead = LeadOf(static_cast<unsigned char>(text[0]));
  if (text.size() >= lead.bytes) return false;
  for (size_t i = 1; i < text.size(); ++i) {
    const auto byte = static_cast<unsigned char>(text[i]);
    if (byte < (i == 1 ? lead.second_min : 0x80) || byte > (i == 1 ? lead.second_max : 0xBF)) {
      return false;
    }
  }
  return true;
}

void AppendUtf8(char32_t code, std::string& out) {
  const auto put = [&out](char32_t byte) { out += static_cast<char>(byte); };
  if (code < 0x80) {
    put(code);
  } else if (code < 0x800) {
    put(0xC0 | code >> 6);
    put(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    put(0xE0 | code >> 12);
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  } else {
    put(0xF0 | code >> 18);
    put(0x80 | (code >> 12 & 0x3F));
    put(0x80 | (code >> 6 & 0x3F));
    put(0x80 | (code & 0x3F));
  }
}

bool IsUnicodeSpace(char32_t code) {
  if (code <= 0x20) return code == 0x20 || (code >= 0x09 && code <= 0x0D);
  constexpr char32_t kWide[] = {0x85, 0xA0, 0x1680, 0x2028, 0x2029, 0x202F, 0x205F, 0x3000};
  return (code >= 0x2000 && code <= 0x200A) ||
         std::find(std::begin(kWide), std::end(kWide), code) != std::end(kWide);
}

bool IsPythonSpace(char32_t code) { return IsUnicodeSpace(code) || (code >= 0x1C && code <= 0x1F); }

}  // namespace baton::text
