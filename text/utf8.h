#pragma once

// UTF-8 decoding that accepts any bytes: what belongs to no valid character is one invalid unit per
// byte. Strict (no overlong forms, no surrogates, nothing above U+10FFFF). Stateless.

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace baton::text {

struct Utf8Char {
  char32_t code;   // U+FFFD when invalid
  uint32_t bytes;  // 1 when invalid
  bool valid;
};

inline constexpr char32_t kReplacementCharacter = 0xFFFD;

// The character that starts with the non-ASCII byte at text[position].
Utf8Char DecodeMultibyte(std::string_view text, size_t position);

// The character at text[position]; position < text.size().
inline Utf8Char DecodeUtf8(std::string_view text, size_t position) {
  const auto lead = static_cast<unsigned char>(text[position]);
  if (lead < 0x80) [[likely]]
    return {lead, 1, true};
  return DecodeMultibyte(text, position);
}

// The start of the last character (or invalid unit) of text[0, end); end > 0.
size_t PreviousChar(std::string_view text, size_t end);

// Whether `text` (1 to 3 bytes) is the beginning of a valid character that more bytes could finish.
bool IsIncompleteUtf8(std::string_view text);

void AppendUtf8(char32_t code, std::string& out);

// White_Space of the Unicode standard, without and with the separators U+001C..U+001F that Python
// counts in too.
bool IsUnicodeSpace(char32_t code);
bool IsPythonSpace(char32_t code);

}  // namespace baton::text
