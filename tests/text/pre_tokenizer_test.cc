// The hand-written scanners against the published patterns, run by PCRE2, on random text.

#include "text/pre_tokenizer.h"

#include <gtest/gtest.h>

#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#include <iterator>
#include <memory>
#include <random>
#include <string>

#include "text/utf8.h"

namespace baton::text {
namespace {

constexpr const char* kGpt2 =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr const char* kLlamaBpe =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";
constexpr const char* kQwen2 =
    R"((?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*)"
    R"(|\s*[\r\n]+|\s+(?!\S)|\s+)";

// The ends of all matches; every byte of these texts belongs to one.
std::vector<size_t> MatchEnds(const char* pattern, std::string_view text) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  const std::unique_ptr<pcre2_code, decltype(&pcre2_code_free)> code(
      pcre2_compile(reinterpret_cast<PCRE2_SPTR>(pattern), PCRE2_ZERO_TERMINATED,
                    PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr),
      &pcre2_code_free);
  const std::unique_ptr<pcre2_match_data, decltype(&pcre2_match_data_free)> match(
      pcre2_match_data_create_from_pattern(code.get(), nullptr), &pcre2_match_data_free);
  std::vector<size_t> ends;
  for (size_t at = 0; at < text.size();) {
    const int found = pcre2_match(code.get(), reinterpret_cast<PCRE2_SPTR>(text.data()),
                                  text.size(), at, 0, match.get(), nullptr);
    if (found < 1) ADD_FAILURE() << "pcre2_match gives " << found;
    if (found < 1) break;
    EXPECT_EQ(pcre2_get_ovector_pointer(match.get())[0], at);
    at = pcre2_get_ovector_pointer(match.get())[1];
    ends.push_back(at);
  }
  return ends;
}

// Each numeral alone, and GPT-2's pattern on the stretches between.
std::vector<size_t> SmolLmEnds(std::string_view text) {
  std::vector<size_t> ends;
  const auto add_stretch = [&](size_t begin, size_t end) {
    for (const size_t at : MatchEnds(kGpt2, text.substr(begin, end - begin))) {
      ends.push_back(begin + at);
    }
  };
  size_t begin = 0;
  for (size_t at = 0; at < text.size();) {
    const CharClasses::Unit unit = CharClasses::Get().At(text, at);
    if (unit.kind == CharClass::kNumber) {
      add_stretch(begin, at);
      begin = at + unit.bytes;
      ends.push_back(begin);
    }
    at += unit.bytes;
  }
  add_stretch(begin, text.size());
  return ends;
}

std::vector<size_t> WordEnds(PreTokenizerKind kind, std::string_view text) {
  const PreTokenizer pre_tokenizer(kind);
  std::vector<size_t> ends;
  for (size_t at = 0; at < text.size();) {
    at = pre_tokenizer.WordEnd(text, at);
    ends.push_back(at);
  }
  return ends;
}

std::string RandomText(std::mt19937_64& random) {
  static const std::string kCommon[] = {
      "a",          "Z",      "1",      " ",      "  ",     "\n",     "\r\n",   "\t",
      "'",          "s",      "S",      "ll",     "LL",     "re",     "vE",     ".",
      "!",          "\u00e9", "\u017f", "\u00a0", "\u3000", "\u4e16", "\u0663", "\u0301",
      "\U0001F600", "\u2028", "_",      "'T",     " '"};
  std::string text;
  for (uint64_t parts = random() % 30; parts > 0; --parts) {
    if (random() % 8 > 0) {
      text += kCommon[random() % std::size(kCommon)];
    } else {
      const auto code = static_cast<char32_t>(random() % (random() % 2 == 0 ? 0x3000 : 0x110000));
      // U+180E was white space in old versions of Unicode, and still is to PCRE2.
      const bool is_usable = (code < 0xD800 || code > 0xDFFF) && code != 0x180E;
      if (is_usable) AppendUtf8(code, text);
    }
  }
  return text;
}

TEST(PreTokenizer, AgreesWithThePublishedPatterns) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE("seed " + std::to_string(seed));
  std::mt19937_64 random(seed);
  for (int round = 0; round < 3000; ++round) {
    const std::string text = RandomText(random);
    SCOPED_TRACE("'" + text + "'");
    ASSERT_EQ(WordEnds(PreTokenizerKind::kGpt2, text), MatchEnds(kGpt2, text));
    ASSERT_EQ(WordEnds(PreTokenizerKind::kSmolLm, text), SmolLmEnds(text));
    ASSERT_EQ(WordEnds(PreTokenizerKind::kLlamaBpe, text), MatchEnds(kLlamaBpe, text));
    ASSERT_EQ(WordEnds(PreTokenizerKind::kQwen2, text), MatchEnds(kQwen2, text));
  }
}

TEST(PreTokenizer, InvalidBytesAreSymbols) {
  using Ends = std::vector<size_t>;
  const std::string text =
      "ab\xFF\xC3 \x80"
      "c";
  EXPECT_EQ(WordEnds(PreTokenizerKind::kGpt2, text), (Ends{2, 4, 6, 7}));
  EXPECT_EQ(WordEnds(PreTokenizerKind::kSmolLm, text), (Ends{2, 4, 6, 7}));
  EXPECT_EQ(WordEnds(PreTokenizerKind::kLlamaBpe, text), (Ends{2, 4, 6, 7}));
}

TEST(PreTokenizer, KnowsItsNames) {
  EXPECT_EQ(PreTokenizerFromName("smollm"), PreTokenizerKind::kSmolLm);
  EXPECT_EQ(PreTokenizerFromName("gpt-2"), PreTokenizerKind::kGpt2);
  EXPECT_EQ(PreTokenizerFromName("llama-bpe"), PreTokenizerKind::kLlamaBpe);
  EXPECT_EQ(PreTokenizerFromName("qwen2"), PreTokenizerKind::kQwen2);
  EXPECT_EQ(PreTokenizerFromName("default"), std::nullopt);
}

}  // namespace
}  // namespace baton::text
