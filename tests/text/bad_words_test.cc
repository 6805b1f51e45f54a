#include "text/bad_words.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/text/vocabularies.h"

namespace baton::text {
namespace {

using ::testing::IsEmpty;

TEST(BadWords, AreTokensWithAndWithoutASpaceInFront) {
  const auto tokenizer = Tokenizer::Create(*test::DemoModel()).value();
  const auto encode = [&](const char* text) {
    return tokenizer->Encode(text, SpecialTokens::kPlainText);
  };
  const std::vector<std::string> words = {"Paris", "  antidisestablishment", " "};
  const auto tokens = BadWordTokens(*tokenizer, words);
  ASSERT_NE(encode("Paris"), encode(" Paris"));
  ASSERT_GT(encode(" antidisestablishment").size(), 1u);
  EXPECT_EQ(tokens, (std::vector<std::vector<TokenId>>{
                        encode(" Paris"), encode("Paris"), encode(" antidisestablishment"),
                        encode("antidisestablishment"), encode(" ")}));
  EXPECT_THAT(BadWordTokens(*tokenizer, {}), IsEmpty());
}

TEST(BadWords, ControlTokensAreText) {
  const auto tokenizer = Tokenizer::Create(*test::DemoModel()).value();
  const std::vector<std::string> words = {"<|im_end|>"};
  for (const std::vector<TokenId>& word : BadWordTokens(*tokenizer, words)) {
    EXPECT_THAT(word, testing::Not(testing::Contains(2))) << "the model can end its answer";
  }
}

}  // namespace
}  // namespace baton::text
