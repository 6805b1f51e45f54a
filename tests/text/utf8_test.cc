// UTF-8 decoding of valid characters, and of everything that is none.

#include "text/utf8.h"

#include <gtest/gtest.h>

namespace baton::text {
namespace {

TEST(Utf8, EveryCharacterRoundTrips) {
  for (char32_t code = 0; code < 0x110000; ++code) {
    if (code >= 0xD800 && code <= 0xDFFF) continue;
    std::string bytes = "x";
    AppendUtf8(code, bytes);
    const Utf8Char c = DecodeUtf8(bytes, 1);
    ASSERT_TRUE(c.valid) << static_cast<uint32_t>(code);
    ASSERT_EQ(c.code, code);
    ASSERT_EQ(c.bytes, bytes.size() - 1);
    ASSERT_EQ(PreviousChar(bytes, bytes.size()), 1u);
    for (size_t cut = 2; cut < bytes.size(); ++cut) {
      ASSERT_FALSE(DecodeUtf8(std::string_view(bytes).substr(0, cut), 1).valid);
      ASSERT_TRUE(IsIncompleteUtf8(std::string_view(bytes).substr(1, cut - 1)));
    }
  }
}

TEST(Utf8, InvalidBytesAreOneUnitEach) {
  const std::string_view invalid[] = {"\x80",
                                      "\xBF",
                                      "\xC0\x80",
                                      "\xC1\xBF",
                                      "\xE0\x9F\xBF",  // overlong
                                      "\xED\xA0\x80",
                                      "\xED\xBF\xBF",  // surrogates
                                      "\xF0\x8F\xBF\xBF",
                                      "\xF4\x90\x80\x80",
                                      "\xF5\x80\x80\x80",
                                      "\xFF",  // out of range
                                      "\xC3(",
                                      "\xE2\x82(",
                                      "\xF0\x9F\x98("};
  for (const std::string_view bytes : invalid) {
    const Utf8Char c = DecodeUtf8(bytes, 0);
    EXPECT_FALSE(c.valid);
    EXPECT_EQ(c.bytes, 1u);
    EXPECT_EQ(c.code, kReplacementCharacter);
    EXPECT_FALSE(IsIncompleteUtf8(bytes)) << bytes.size();
  }
  EXPECT_EQ(PreviousChar("a\x80", 2), 1u);
  EXPECT_EQ(PreviousChar("\xE2\x82", 2), 1u);
}

TEST(Utf8, WhiteSpace) {
  for (const char32_t code : {0x09, 0x0A, 0x0D, 0x20, 0x85, 0xA0, 0x2003, 0x2028, 0x3000}) {
    EXPECT_TRUE(IsUnicodeSpace(code));
    EXPECT_TRUE(IsPythonSpace(code));
  }
  for (const char32_t code : {0x08, 0x21, 0x200B, 0x180E, 0xFEFF})
    EXPECT_FALSE(IsPythonSpace(code));
  EXPECT_FALSE(IsUnicodeSpace(0x1C));
  EXPECT_TRUE(IsPythonSpace(0x1C));
}

}  // namespace
}  // namespace baton::text
