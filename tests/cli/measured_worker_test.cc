#include "cli/measured_worker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::cli {
namespace {

using testing::HasSubstr;

constexpr char kPlan[] = R"({"mode":"advise","model":{"reports":99,"kv_tokens":4808,
  "chunk_tokens":128,"batch_max":64,"coefficients_s":{"step":0.01,"prompt_step":0.002,
  "prompt_token":0.001,"prompt_pair":1e-7,"sequence":0.0005,"context_token":-1e-12}}})";

std::string ErrorOf(std::string_view text) {
  return std::string(MeasuredWorkerFromJson(text, "plan.json").status().message());
}

std::string With(std::string_view from, std::string_view to) {
  std::string text = kPlan;
  return text.replace(text.find(from), from.size(), to);
}

TEST(MeasuredWorker, IsWhatTheRouterSays) {
  const auto worker = MeasuredWorkerFromJson(kPlan, "plan.json");
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ(worker->kv_blocks, 300);
  EXPECT_EQ(worker->chunk_tokens, 128);
  EXPECT_EQ(worker->max_batch, 64);
  EXPECT_NEAR(worker->step_s({.batch = 4, .context_tokens = 400}), 0.012, 1e-6);
  const planner::PromptRange prompt{.tokens = 100, .before_tokens = 200};
  EXPECT_NEAR(worker->step_s({.prompts = {&prompt, 1}}), 0.002 + 0.1 + 100 * 250.5 * 1e-7, 1e-9);
}

TEST(MeasuredWorker, SaysWhatIsWrong) {
  EXPECT_THAT(ErrorOf("{}"), HasSubstr("plan.json is not what a router with --control says"));
  EXPECT_THAT(ErrorOf("nonsense"), HasSubstr("/admin/plan"));
  EXPECT_THAT(ErrorOf(With("\"batch_max\":64", "\"batch_max\":0")),
              HasSubstr("'batch_max' must be a number from 1 to 8192"));
  EXPECT_THAT(ErrorOf(With("4808", "null")), HasSubstr("'model' of plan.json has no 'kv_tokens'"));
  EXPECT_THAT(ErrorOf(With("\"step\":0.01", "\"stop\":0.01")), HasSubstr("has no 'step'"));
  EXPECT_THAT(ErrorOf(With("99", "0")), HasSubstr("measured nothing yet"));
}

}  // namespace
}  // namespace baton::cli
