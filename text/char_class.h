#pragma once

// The classes of characters that pre-tokenizer patterns speak of.

#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>
#include <vector>

#include "text/utf8.h"

namespace baton::text {

enum class CharClass : uint8_t {
  kOther,
  kLetter,  // \p{L}
  kNumber,  // \p{N}
  kSpace,   // \s, the Unicode White_Space characters
};

// Unicode's general categories as PCRE2 knows them, flattened for look-up. Immutable.
class CharClasses {
 public:
  // Built at the first call (about 20 ms); lives for the whole process. Thread-safe.
  static const CharClasses& Get();

  CharClass Of(char32_t code) const {
    if (code < 128) [[likely]]
      return ascii_[code];
    return pages_[page_of_[code >> kPageBits]][code & (kPageSize - 1)];
  }

  struct Unit {
    CharClass kind;
    uint32_t bytes;
  };
  // The character at text[position]; an invalid byte is one kOther unit.
  Unit At(std::string_view text, size_t position) const {
    const Utf8Char c = DecodeUtf8(text, position);
    return {Of(c.code), c.bytes};
  }

 private:
  static constexpr int kPageBits = 8;
  static constexpr size_t kPageSize = size_t{1} << kPageBits;
  using Page = std::array<CharClass, kPageSize>;

  CharClasses();

  std::array<CharClass, 128> ascii_;
  std::vector<uint16_t> page_of_;
  std::vector<Page> pages_;
};

}  // namespace baton::text
