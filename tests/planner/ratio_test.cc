#include "planner/ratio.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::planner {
namespace {

RatioQuestion BookQuestion(double batch) {
  return {.deployment = {.model = *KnownModelFacts("llama-3-70b"),
                         .hardware = *KnownHardwareFacts("tpu-v5e"),
                         .worker = {.tensor_parallel = 16},
                         .assumptions = Assumptions::Book()},
          .input_tokens = 8192,
          .output_tokens = 512,
          .batch = batch};
}

std::string Error(const RatioQuestion& question) {
  const auto answer = AnswerRatio(question);
  return answer.ok() ? "no error" : std::string(answer.status().message());
}

TEST(Ratio, TheBooksCase) {
  const auto answer = AnswerRatio(BookQuestion(32));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->kv_bytes_per_token, 327680);
  EXPECT_EQ(answer->weights_bytes, 140e9);
  EXPECT_EQ(answer->batch_max, 43);
  EXPECT_NEAR(answer->prefill_s, 0.90964, 0.0001);
  EXPECT_NEAR(answer->decode_step_s, 0.017218, 0.00001);
  EXPECT_NEAR(answer->ratio, 3.302, 0.001);
  EXPECT_NEAR(answer->ratio_full_hbm, 2.914, 0.001);
  EXPECT_EQ(answer->prefill, 4);
  EXPECT_NEAR(answer->prefill_utilisation, 3.302 / 4, 0.001);
  EXPECT_EQ(answer->batch_kept, 32);
}

TEST(Ratio, ThreeToOneWithTheBooksStep) {
  RatioQuestion question = BookQuestion(32);
  question.decode_step_s = 0.019;
  question.prefill = 3;
  EXPECT_NEAR(AnswerRatio(question)->prefill_utilisation, 0.9974, 0.0001);
  question.prefill_s = 0.91;
  EXPECT_NEAR(AnswerRatio(question)->ratio, 2.9934, 0.0001);
}

TEST(Ratio, TooFewPrefillWorkersKeepASmallerBatch) {
  RatioQuestion question = BookQuestion(32);
  question.prefill = 3;
  const auto answer = AnswerRatio(question);
  EXPECT_NEAR(answer->prefill_utilisation, 1.1007, 0.001);
  // At the batch kept, the prefill workers are busy all the time.
  EXPECT_NEAR(AnswerRatio(BookQuestion(answer->batch_kept))->ratio, 3, 1e-6);
}

TEST(Ratio, WithoutABatchTheLargest) {
  const auto answer = AnswerRatio(BookQuestion(0));
  EXPECT_EQ(answer->batch, 43);
  EXPECT_EQ(answer->prefill, 4);
}

TEST(Ratio, RefusesWithTheNumbers) {
  using testing::HasSubstr;
  RatioQuestion question = BookQuestion(44);
  EXPECT_THAT(Error(question), HasSubstr("a batch of 44 does not fit: beside 140.0 GB of weights, "
                                         "16 chips of tpu-v5e hold the KV of 43 sequences"));
  question = BookQuestion(1);
  question.deployment.worker.tensor_parallel = 8;
  EXPECT_THAT(Error(question), HasSubstr("llama-3-70b does not fit: 140.0 GB of weights"));
  EXPECT_THAT(Error(question), HasSubstr("at least 9 chips would hold them"));
  question = BookQuestion(1);
  question.output_tokens = 0;
  EXPECT_THAT(Error(question), HasSubstr("the output is 0, but must be 1"));
  question.output_tokens = std::nan("");
  EXPECT_THAT(Error(question), HasSubstr("the output is nan"));
  question = BookQuestion(1);
  question.decode_step_s = HUGE_VAL;
  EXPECT_THAT(Error(question), HasSubstr("a measured time of inf s"));
}

}  // namespace
}  // namespace baton::planner
