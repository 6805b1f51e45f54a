#include "router/json_text.h"

#include <gtest/gtest.h>

#include <limits>
#include <random>

#include <boost/json.hpp>

namespace baton::router {
namespace {

std::string Quoted(std::string_view text) {
  std::string out;
  AppendJsonString(text, &out);
  return out;
}

TEST(JsonText, EscapesWhatJsonNeeds) {
  EXPECT_EQ(Quoted("a\"b\\c\n\r\t\x01\x1f/"), R"("a\"b\\c\n\r\t\u0001\u001f/")");
  EXPECT_EQ(Quoted(std::string_view("\0", 1)), R"("\u0000")");
  EXPECT_EQ(Quoted("\x7f"), "\"\x7f\"");
  EXPECT_EQ(Quoted(""), "\"\"");
}

TEST(JsonText, LeavesSoundUtf8AsItIs) {
  const std::string text = "é漢\U0001F642\u007f\u0080\u07ff\u0800\uffff\U00010000\U0010ffff";
  EXPECT_EQ(Quoted(text), "\"" + text + "\"");
  EXPECT_TRUE(IsUtf8(text));
}

// As Unicode recommends (chapter 3.9): one U+FFFD for each maximal part that begins a character.
TEST(JsonText, ReplacesBrokenUtf8) {
  const std::string fffd = "\xEF\xBF\xBD";
  EXPECT_EQ(Quoted("a\x80z"), "\"a" + fffd + "z\"");
  EXPECT_EQ(Quoted("\xE2\x82"), "\"" + fffd + "\"");
  EXPECT_EQ(Quoted("\xF0\x9F\x98!"), "\"" + fffd + "!\"");
  EXPECT_EQ(Quoted("\xC0\xAF"), "\"" + fffd + fffd + "\"");             // overlong
  EXPECT_EQ(Quoted("\xED\xA0\x80"), "\"" + fffd + fffd + fffd + "\"");  // surrogate
  EXPECT_EQ(Quoted("\xF4\x90\x80\x80"), "\"" + fffd + fffd + fffd + fffd + "\"");
  EXPECT_EQ(Quoted("\xE1\x80\xE2\xF0\x91\x92\xF1\xBF\x41"),
            "\"" + fffd + fffd + fffd + fffd + "A\"");
  EXPECT_FALSE(IsUtf8("\xED\xA0\x80"));
  EXPECT_FALSE(IsUtf8("ok\xFF"));
}

// Any bytes become a JSON string that a strict parser reads back as the same text (with
// replacements).
TEST(JsonText, RandomBytesAreAlwaysValidJson) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(seed);
  std::mt19937 random(seed);
  for (int round = 0; round < 2000; ++round) {
    std::string text(random() % 40, '\0');
    const bool mostly_ascii = random() % 2 == 0;
    for (char& c : text) c = static_cast<char>(mostly_ascii ? random() % 160 : random() % 256);
    const std::string quoted = Quoted(text);
    boost::json::error_code error;
    const boost::json::value value = boost::json::parse(quoted, error);
    ASSERT_FALSE(error) << quoted;
    if (IsUtf8(text)) {
      EXPECT_EQ(std::string(value.get_string().c_str(), value.get_string().size()), text);
    }
  }
}

TEST(JsonText, NumbersReadBackExactly) {
  std::string out;
  AppendJsonNumber(0.1f, &out);
  out += ' ';
  AppendJsonNumber(-1.5, &out);
  out += ' ';
  AppendJsonNumber(1e-20, &out);
  out += ' ';
  AppendJsonInt(std::numeric_limits<int64_t>::min(), &out);
  EXPECT_EQ(out, "0.1 -1.5 1e-20 -9223372036854775808");
  out.clear();
  AppendJsonNumber(-std::numeric_limits<float>::infinity(), &out);
  out += ' ';
  AppendJsonNumber(std::numeric_limits<double>::quiet_NaN(), &out);
  EXPECT_EQ(out, "-9999 null");
}

}  // namespace
}  // namespace baton::router
