#include "bench/load_prompt.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace baton::bench {
namespace {

TEST(LoadPromptTest, TextsHaveTheirWordsAndAreTheirSeedsAlone) {
  const std::string text = WordText(3, 200);
  EXPECT_EQ(std::ranges::count(text, ' '), 199);
  EXPECT_EQ(text, WordText(3, 200));
  EXPECT_NE(WordText(3, 8), WordText(4, 8));
  EXPECT_TRUE(text.starts_with(WordText(3, 57) + " "));
  EXPECT_EQ(WordText(3, 0), "");
}

TEST(LoadPromptTest, BodiesSayWhatIsAskedFor) {
  EXPECT_EQ(ChatBody("a \"b\"", {.output_tokens = 5, .stream = false}),
            R"({"messages":[{"role":"user","content":"a \"b\""}],"max_tokens":5,"temperature":0})");
  EXPECT_EQ(
      CompletionBody(
          "a",
          {.model = "m", .output_tokens = 2, .stream = true, .usage = true, .ignore_eos = true}),
      R"({"prompt":"a","model":"m","max_tokens":2,"temperature":0,"ignore_eos":true,)"
      R"("stream":true,"stream_options":{"include_usage":true}})");
  const TokenId ids[] = {1, 22};
  EXPECT_TRUE(CompletionBody(ids, {}).starts_with(R"({"prompt":[1,22],)"));
}

}  // namespace
}  // namespace baton::bench
