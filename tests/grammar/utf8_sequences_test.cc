#include "grammar/utf8_sequences.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace baton::grammar {
namespace {

std::string Encode(uint32_t c) {
  std::string out;
  if (c < 0x80) {
    out += static_cast<char>(c);
  } else if (c < 0x800) {
    out += static_cast<char>(0xC0 | c >> 6);
  } else if (c < 0x10000) {
    out += static_cast<char>(0xE0 | c >> 12);
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
  } else {
    out += static_cast<char>(0xF0 | c >> 18);
    out += static_cast<char>(0x80 | (c >> 12 & 0x3F));
    out += static_cast<char>(0x80 | (c >> 6 & 0x3F));
  }
  if (c >= 0x80) out += static_cast<char>(0x80 | (c & 0x3F));
  return out;
}

int Matches(const std::vector<ByteRanges>& sequences, const std::string& text) {
  int matches = 0;
  for (const ByteRanges& ranges : sequences) {
    bool all = static_cast<size_t>(ranges.count) == text.size();
    for (size_t i = 0; all && i < text.size(); ++i) {
      const auto byte = static_cast<uint8_t>(text[i]);
      all = ranges.at[i].first <= byte && byte <= ranges.at[i].last;
    }
    matches += all;
  }
  return matches;
}

TEST(Utf8SequencesTest, EachCharacterOfTheRangeOnceAndNoOther) {
  std::mt19937 random(7);
  for (int round = 0; round < 60; ++round) {
    const uint32_t scale = round % 3 == 0 ? 0x300 : round % 3 == 1 ? 0xD7FF : kLastCodePoint;
    uint32_t first = random() % scale;
    uint32_t last = random() % scale;
    if (first > last) std::swap(first, last);
    const auto sequences = Utf8Sequences({first, last});
    for (int i = 0; i < 2000; ++i) {
      const uint32_t c = random() % kLastCodePoint;
      EXPECT_EQ(Matches(sequences, Encode(c)), first <= c && c <= last) << first << " " << last;
    }
    for (const uint32_t c : {first, last}) EXPECT_EQ(Matches(sequences, Encode(c)), 1);
    if (first > 0) {
      EXPECT_EQ(Matches(sequences, Encode(first - 1)), 0);
    }
    EXPECT_EQ(Matches(sequences, Encode(last + 1)), 0);
  }
}

TEST(Utf8SequencesTest, AllCharactersNeedFewSequences) {
  EXPECT_LE(Utf8Sequences({0, kLastCodePoint}).size(), 12u);
}

}  // namespace
}  // namespace baton::grammar
