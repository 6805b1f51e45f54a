#include "router/admission.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "router/error_code.h"
#include "tests/router/demo_tokenizer.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

constexpr int32_t kContext = 8192;
constexpr int32_t kVocab = 1000;

absl::Status AdmitPrompt(GenerateInput& input, size_t prompt_tokens) {
  return Admit(input, prompt_tokens, kContext, kVocab, RequestLimits{});
}

void ExpectRefused(GenerateInput input, size_t prompt_tokens, const char* text) {
  const absl::Status status = AdmitPrompt(input, prompt_tokens);
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status.ToString();
  EXPECT_THAT(std::string(status.message()), HasSubstr(text));
}

TEST(AdmissionTest, PromptLengthIsCheckedAgainstTheContextWithBothNumbers) {
  ExpectRefused({}, 0, "empty");
  ExpectRefused({}, 9120, "prompt has 9120 tokens, but the context is 8192 tokens");
  ExpectRefused({}, 8192, "prompt has 8192 tokens, but the context is 8192 tokens");
  GenerateInput input;
  EXPECT_EQ(ErrorCode(AdmitPrompt(input, 9120)), kContextLengthExceeded);
  EXPECT_EQ(ErrorCode(AdmitPrompt(input, 0)), "");
  GenerateInput longest;
  EXPECT_TRUE(AdmitPrompt(longest, 8191).ok());
  EXPECT_EQ(longest.sampling.max_tokens, 1);
}

TEST(AdmissionTest, MaxTokensIsWhatTheContextLeavesUnlessGiven) {
  GenerateInput input;
  EXPECT_TRUE(AdmitPrompt(input, 100).ok());
  EXPECT_EQ(input.sampling.max_tokens, 8092);
  input.has_max_tokens = true;
  input.sampling.max_tokens = 5;
  EXPECT_TRUE(AdmitPrompt(input, 100).ok());
  EXPECT_EQ(input.sampling.max_tokens, 5);
  input.sampling.max_tokens = 8092;
  EXPECT_TRUE(AdmitPrompt(input, 100).ok());
}

TEST(AdmissionTest, BadWordsAreBounded) {
  GenerateInput input;
  const auto refused = [&](std::vector<std::string> words) {
    input.bad_words = std::move(words);
    return std::string(TokenizeBadWords(input, DemoTokenizer(), RequestLimits{}).message());
  };
  EXPECT_EQ(refused(std::vector<std::string>(256, std::string(128, 'x'))), "");
  EXPECT_EQ(input.sampling.bad_words.size(), 512u);
  EXPECT_EQ(refused(std::vector<std::string>(257, "x")),
            "bad_words has 257 texts, but the limit is 256");
  EXPECT_EQ(refused({"x", ""}), "bad_words has a text of 0 bytes, but each must have 1 to 128");
  EXPECT_THAT(refused({std::string(129, 'x')}), HasSubstr("129 bytes"));
}

TEST(AdmissionTest, MaxTokensThatDoesNotFitIsRefused) {
  GenerateInput input;
  input.has_max_tokens = true;
  input.sampling.max_tokens = 8093;
  ExpectRefused(input, 100, "prompt has 100 tokens and max_tokens is 8093, together 8193");
  input.sampling.max_tokens = INT32_MAX;
  ExpectRefused(input, 100, "together 2147483747");
  input.sampling.max_tokens = 0;
  ExpectRefused(input, 100, "max_tokens is 0");
}

TEST(AdmissionTest, SamplingIsChecked) {
  GenerateInput input;
  input.sampling.temperature = -1;
  ExpectRefused(input, 10, "temperature");
  input.sampling = {};
  input.sampling.stop_token_ids = {kVocab};
  ExpectRefused(input, 10, "stop_token_ids");
}

TEST(AdmissionTest, StopStringsAreBounded) {
  GenerateInput input;
  input.stop.assign(17, "x");
  ExpectRefused(input, 10, "17 stop strings, but the limit is 16");
  input.stop = {std::string(257, 'x')};
  ExpectRefused(input, 10, "257 bytes, but the limit is 256");
  input.stop = {""};
  ExpectRefused(input, 10, "empty");
  input.stop = {"\x80"};
  ExpectRefused(input, 10, "middle of a UTF-8 character");
  input.stop.assign(16, std::string(256, 'x'));
  EXPECT_TRUE(AdmitPrompt(input, 10).ok());
}

TEST(Admission, LogProbabilitiesOfPromptsAreBounded) {
  GenerateInput input;
  input.sampling.prompt_logprobs = 20;
  EXPECT_TRUE(Admit(input, 12'000, 200'000, 1000, {}).ok());
  const absl::Status refused = Admit(input, 13'000, 200'000, 1000, {});
  EXPECT_EQ(refused.message(),
            "log probabilities of a prompt of 13000 tokens, with the 20 best of each, are 273000 "
            "values, but the limit is 262144");
  input.resume_tokens = {1};
  input.has_seed = true;
  EXPECT_FALSE(Admit(input, 10, 200'000, 1000, {}).ok());
}

}  // namespace
}  // namespace baton::router
