#include "cli/request_json.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::cli {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

TEST(ParseTokenIds, NumbersWithCommas) {
  EXPECT_THAT(*ParseTokenIds("1, 2,30"), ElementsAre(1, 2, 30));
  for (const char* bad : {"", "1,", ",1", "a", "1;2", "99999999999", "1 2"}) {
    EXPECT_EQ(ParseTokenIds(bad).status().code(), absl::StatusCode::kInvalidArgument) << bad;
  }
}

TEST(ParseRunRequest, ReadsEveryField) {
  const auto request = ParseRunRequest(
      R"({"tokens":[1,2],"sampling":{"temperature":0.5,"top_k":3,"top_p":0.9,"min_p":0.1,
          "repetition_penalty":1.1,"presence_penalty":0.2,"frequency_penalty":0.3,
          "logit_bias":{"7":-1.5},"seed":18446744073709551615,"max_tokens":5,"min_tokens":2,
          "stop_token_ids":[4],"allowed_token_ids":[4,9],"bad_words":["no"],
          "ignore_eos":true,"logprobs":2}})",
      SamplingParams{});
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_THAT(request->prompt.tokens, ElementsAre(1, 2));
  const SamplingParams& s = request->sampling;
  EXPECT_FLOAT_EQ(s.temperature, 0.5f);
  EXPECT_EQ(s.top_k, 3);
  EXPECT_FLOAT_EQ(s.top_p, 0.9f);
  EXPECT_FLOAT_EQ(s.min_p, 0.1f);
  EXPECT_FLOAT_EQ(s.repetition_penalty, 1.1f);
  EXPECT_FLOAT_EQ(s.presence_penalty, 0.2f);
  EXPECT_FLOAT_EQ(s.frequency_penalty, 0.3f);
  EXPECT_THAT(s.logit_bias, ElementsAre(std::pair<TokenId, float>(7, -1.5f)));
  EXPECT_EQ(s.seed, UINT64_MAX);
  EXPECT_EQ(s.max_tokens, 5);
  EXPECT_TRUE(request->has_max_tokens);
  EXPECT_EQ(s.min_tokens, 2);
  EXPECT_THAT(s.stop_token_ids, ElementsAre(4));
  EXPECT_THAT(s.allowed_token_ids, ElementsAre(4, 9));
  EXPECT_THAT(request->bad_words, ElementsAre("no"));
  EXPECT_TRUE(s.ignore_eos);
  EXPECT_EQ(s.logprobs, 2);
}

TEST(ParseRunRequest, MessagesAndDefaults) {
  SamplingParams defaults;
  defaults.temperature = 0;
  const auto request =
      ParseRunRequest(R"({"messages":[{"role":"user","content":"hi"}]})", defaults);
  ASSERT_TRUE(request.ok()) << request.status();
  EXPECT_EQ(request->prompt.messages[0].content, "hi");
  EXPECT_EQ(request->sampling.temperature, 0);
  EXPECT_FALSE(request->has_max_tokens);
}

TEST(ParseRunRequest, RefusesWhatItDoesNotKnow) {
  const std::pair<const char*, const char*> cases[] = {
      {"{", "not JSON"},
      {"[]", "must be an object"},
      {R"({"token":[1]})", "unknown field 'token'; did you mean 'tokens'?"},
      {R"({"tokens":"1"})", "'tokens' has the wrong type"},
      {R"({"tokens":[1.5]})", "'tokens' has the wrong type"},
      {R"({"sampling":{"max_token":1}})", "did you mean 'max_tokens'?"},
      {R"({"sampling":{"seed":-1}})", "'seed' has the wrong type or range"},
      {R"({"sampling":{"logit_bias":{"x":1}}})", "token ids must be numbers"},
      {R"({"messages":{}})", "'messages' must be a list"},
  };
  for (const auto& [line, text] : cases) {
    const auto request = ParseRunRequest(line, SamplingParams{});
    ASSERT_FALSE(request.ok()) << line;
    EXPECT_THAT(std::string(request.status().message()), HasSubstr(text));
  }
}

}  // namespace
}  // namespace baton::cli
