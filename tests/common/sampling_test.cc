#include "common/sampling.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

namespace baton {
namespace {

constexpr int32_t kVocab = 100;

TEST(CheckSamplingParams, DefaultsAreSound) {
  EXPECT_TRUE(CheckSamplingParams(SamplingParams{}, kVocab).ok());
}

struct BadCase {
  const char* field;
  void (*change)(SamplingParams*);
};

// Each refusal names its field.
TEST(CheckSamplingParams, RefusesWhatIsOutOfRange) {
  const BadCase cases[] = {
      {"temperature", [](SamplingParams* p) { p->temperature = -0.1f; }},
      {"temperature", [](SamplingParams* p) { p->temperature = NAN; }},
      {"temperature", [](SamplingParams* p) { p->temperature = INFINITY; }},
      {"top_k", [](SamplingParams* p) { p->top_k = -1; }},
      {"top_p", [](SamplingParams* p) { p->top_p = 0; }},
      {"top_p", [](SamplingParams* p) { p->top_p = 1.01f; }},
      {"min_p", [](SamplingParams* p) { p->min_p = 2; }},
      {"repetition_penalty", [](SamplingParams* p) { p->repetition_penalty = 0; }},
      {"presence_penalty", [](SamplingParams* p) { p->presence_penalty = 2.5f; }},
      {"frequency_penalty", [](SamplingParams* p) { p->frequency_penalty = -2.5f; }},
      {"max_tokens", [](SamplingParams* p) { p->max_tokens = 0; }},
      {"min_tokens", [](SamplingParams* p) { p->min_tokens = p->max_tokens + 1; }},
      {"logprobs", [](SamplingParams* p) { p->logprobs = 21; }},
      {"logit_bias",
       [](SamplingParams* p) {
         p->logit_bias = {{kVocab, 1.0f}};
       }},
      {"logit_bias",
       [](SamplingParams* p) {
         p->logit_bias = {{1, 101.0f}};
       }},
      {"logit_bias", [](SamplingParams* p) { p->logit_bias.resize(1025); }},
      {"stop_token_ids", [](SamplingParams* p) { p->stop_token_ids = {-1}; }},
      {"stop_token_ids", [](SamplingParams* p) { p->stop_token_ids.resize(65); }},
      {"allowed_token_ids", [](SamplingParams* p) { p->allowed_token_ids = {kVocab}; }},
      {"allowed_token_ids", [](SamplingParams* p) { p->allowed_token_ids.resize(4097); }},
      {"constraint",
       [](SamplingParams* p) {
         p->allowed_token_ids = {1};
         p->constraint = R"({"regex":"a"})";
       }},
      {"bad_words", [](SamplingParams* p) { p->bad_words.assign(513, {1}); }},
      {"bad_words", [](SamplingParams* p) { p->bad_words = {{}}; }},
      {"bad_words", [](SamplingParams* p) { p->bad_words.resize(1, std::vector<TokenId>(257)); }},
      {"bad_words",
       [](SamplingParams* p) {
         p->bad_words = {{1}, {2, -1}};
       }},
  };
  for (const BadCase& bad : cases) {
    SamplingParams params;
    bad.change(&params);
    const absl::Status status = CheckSamplingParams(params, kVocab);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << bad.field;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr(bad.field));
  }
}

}  // namespace
}  // namespace baton
