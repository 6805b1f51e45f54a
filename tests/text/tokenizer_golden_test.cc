// Token ids against Hugging Face `tokenizers`, on hard texts and on megabytes of random ones.

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <sstream>

#include "tests/text/golden.h"
#include "tests/text/vocabularies.h"
#include "text/detokenizer.h"
#include "text/tokenizer.h"

namespace baton::text {
namespace {

std::vector<TokenId> ParseIds(const std::string& field) {
  std::vector<TokenId> ids;
  std::istringstream in(field);
  for (TokenId id; in >> id;) ids.push_back(id);
  return ids;
}

uint64_t Fnv1a(const std::vector<TokenId>& ids) {
  uint64_t hash = 0xCBF29CE484222325u;
  for (const TokenId id : ids) {
    for (int shift = 0; shift < 32; shift += 8) {
      hash = (hash ^ (static_cast<uint32_t>(id) >> shift & 0xFF)) * 0x100000001B3u;
    }
  }
  return hash;
}

// As random_text in make_text_golden.py.
std::string RandomText(const std::vector<std::string>& fragments, uint64_t seed, int count) {
  std::string text;
  for (int i = 0; i < count; ++i) {
    uint64_t z = seed += 0x9E3779B97F4A7C15u;
    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9u;
    z = (z ^ z >> 27) * 0x94D049BB133111EBu;
    text += fragments[(z ^ z >> 31) % fragments.size()];
  }
  return text;
}

class TokenizerGolden : public ::testing::TestWithParam<std::string> {
 protected:
  const std::unique_ptr<const Tokenizer> tokenizer_ = test::GoldenTokenizer(GetParam());
};

TEST_P(TokenizerGolden, HardTexts) {
  const auto lines = test::ReadGolden("tokens_" + GetParam() + ".txt");
  ASSERT_GT(lines.size(), 200u);
  for (const auto& fields : lines) {
    ASSERT_EQ(fields.size(), 4u);
    const auto special =
        fields[0] == "special" ? SpecialTokens::kParseSpecial : SpecialTokens::kPlainText;
    const std::vector<TokenId> ids = tokenizer_->Encode(fields[1], special);
    EXPECT_EQ(ids, ParseIds(fields[2])) << fields[0] << " '" << fields[1] << "'";
    EXPECT_EQ(tokenizer_->Decode(ids), fields[3]) << fields[0] << " '" << fields[1] << "'";
  }
}

TEST_P(TokenizerGolden, RandomTexts) {
  const auto lines = test::ReadGolden("random.txt");
  const std::vector<std::string> fragments(lines.at(0).begin() + 1, lines.at(0).end());
  int checked = 0;
  for (const auto& fields : lines) {
    if (fields[0] != GetParam()) continue;
    ++checked;
    const std::string text =
        RandomText(fragments, std::stoull(fields.at(1)), std::stoi(fields.at(2)));
    const std::vector<TokenId> ids = tokenizer_->Encode(text, SpecialTokens::kPlainText);
    EXPECT_EQ(std::to_string(ids.size()), fields.at(3)) << "seed " << fields[1];
    EXPECT_EQ(fmt::format("{:016x}", Fnv1a(ids)), fields.at(4)) << "seed " << fields[1];
  }
  EXPECT_EQ(checked, 8);
}

// Streaming gives the same text as decoding at once, for every cut.
TEST_P(TokenizerGolden, StreamingGivesTheSameText) {
  for (const auto& fields : test::ReadGolden("tokens_" + GetParam() + ".txt")) {
    Detokenizer detokenizer(tokenizer_.get());
    std::string streamed;
    for (const TokenId id : ParseIds(fields.at(2))) streamed += detokenizer.Push(id);
    streamed += detokenizer.Flush();
    EXPECT_EQ(streamed, fields.at(3)) << "'" << fields[1] << "'";
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabularies, TokenizerGolden,
                         ::testing::Values("smollm", "llama-bpe", "qwen2", "gpt-2",
                                           "sentence_piece"),
                         [](const auto& parameter) {
                           std::string name = parameter.param;
                           std::erase_if(name, [](char c) { return !std::isalnum(c); });
                           return name;
                         });

}  // namespace
}  // namespace baton::text
