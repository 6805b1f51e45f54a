#include "planner/explain.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

namespace baton::planner {
namespace {

using testing::HasSubstr;
using testing::Not;

std::string Explained(RatioQuestion question) {
  return ExplainRatio(question, *AnswerRatio(question));
}

RatioQuestion BookCase() {
  return {.deployment = {.model = *KnownModelFacts("llama-3-70b"),
                         .hardware = *KnownHardwareFacts("tpu-v5e"),
                         .worker = {.tensor_parallel = 16},
                         .assumptions = Assumptions::Book()},
          .input_tokens = 8192,
          .output_tokens = 512,
          .batch = 32};
}

TEST(Explain, TheBooksCaseStepByStep) {
  RatioQuestion question = BookCase();
  question.prefill = 3;
  const std::string text = Explained(question);
  for (const char* part :
       {"2 x 80 x 8 x 128 x 2 bytes = 327,680 bytes.", "7e+10 parameters x 2 bytes = 140.0 GB",
        "16 x tpu-v5e with 16.0 GB: 256.0 GB, which leaves 116.0 GB for KV", "43 fit",
        "2 x 7e+10 x 8,192 = 1.147e+15 FLOPs", "0.91 s", "140.0 GB + 85.9 GB",
        "So a step takes 17.2 ms", "3.302 prefill workers", "in whole numbers P = 3G",
        "3 for 1 do not keep up", "never"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(Explain, NearlyAlwaysBusyIsShownWithItsPercentile) {
  RatioQuestion question = BookCase();
  question.decode_step_s = 0.019;
  question.prefill = 3;
  const std::string text = Explained(question);
  EXPECT_THAT(text, HasSubstr("3 for 1: prefill is 99.7% busy"));
  EXPECT_THAT(text, HasSubstr("Given: 19 ms at a batch of 32"));
  EXPECT_THAT(text, Not(HasSubstr("do not keep up")));
}

TEST(Explain, WithoutTheBookSaysWhatIsReached) {
  RatioQuestion question = BookCase();
  question.deployment = {.model = *KnownModelFacts("deepseek-v3"),
                         .precision = {.weight_bytes_each = 1},
                         .hardware = *KnownHardwareFacts("h200"),
                         .worker = {.tensor_parallel = 8}};
  const std::string text = Explained(question);
  for (const char* part :
       {"61 layers x (512 + 64 rotary) x 2 bytes = 70,272 bytes", "90% of it usable",
        "and causal attention", "of experts those chosen", "x 70% =", "All-reduces take"}) {
    EXPECT_THAT(text, HasSubstr(part));
  }
}

TEST(Explain, UnitsAsPeopleReadThem) {
  EXPECT_EQ(SecondsText(0.0000123), "12.3 us");
  EXPECT_EQ(SecondsText(0.0172), "17.2 ms");
  EXPECT_EQ(SecondsText(9.99), "9.99 s");
  EXPECT_EQ(SecondsText(3600), "60 min");
  EXPECT_EQ(SecondsText(std::numeric_limits<double>::infinity()), "never");
  EXPECT_EQ(BytesText(327680), "327,680 bytes");
  EXPECT_EQ(BytesText(1.3e12), "1.30 TB");
}

}  // namespace
}  // namespace baton::planner
