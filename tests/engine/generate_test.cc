#include "engine/generate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/engine/engine_testing.h"
#include "tests/engine/tiny_model.h"

namespace baton::engine {
namespace {

TEST(Generate, CallsBackPerTokenAndStopsWhenTold) {
  const auto engine = LoadEngine(*OpenTiny({}), {.threads = 1});
  std::vector<TokenId> seen;
  GenerateOptions options;
  options.on_token = [&](const OutputToken& token) {
    EXPECT_EQ(token.position, static_cast<int32_t>(seen.size()));
    seen.push_back(token.token);
    return seen.size() < 4;
  };
  const auto result = Generate(&engine->executor(), {5, 6, 7}, GreedyTokens(10), options);
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->finish, FinishReason::kStop);
  ASSERT_EQ(result->output.size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(result->output[i].token, seen[i]);
  EXPECT_GT(result->prefill_s, 0);
  EXPECT_GT(result->decode_s, 0);
  EXPECT_EQ(engine->executor().pool().counts().held, 0);
}

TEST(Generate, EndsByLengthAndByStopToken) {
  const auto engine = LoadEngine(*OpenTiny({}), {.threads = 1});
  SamplingParams sampling = GreedyTokens(10);
  const auto full = Generate(&engine->executor(), {5, 6, 7}, sampling, {});
  EXPECT_EQ(full->finish, FinishReason::kLength);
  ASSERT_EQ(full->output.size(), 10u);
  sampling.stop_token_ids = {full->output[3].token};
  const auto stopped = Generate(&engine->executor(), {5, 6, 7}, sampling, {});
  EXPECT_EQ(stopped->finish, FinishReason::kStop);
  EXPECT_LE(stopped->output.size(), 4u);
  EXPECT_EQ(stopped->output.back().token, full->output[3].token);
}

TEST(Generate, FillsTheContextAndNoMore) {
  const auto engine = LoadEngine(*OpenTiny({}), {.threads = 1, .max_context = 40});
  const auto result = Generate(&engine->executor(), RandomTokens(30, 320, 1), GreedyTokens(99), {});
  ASSERT_TRUE(result.ok()) << result.status();
  EXPECT_EQ(result->output.size(), 10u);
  EXPECT_EQ(result->finish, FinishReason::kLength);
}

TEST(Generate, RefusesClearly) {
  const auto engine = LoadEngine(*OpenTiny({}), {.threads = 1, .block_count = 2});
  Executor& executor = engine->executor();
  EXPECT_EQ(Generate(&executor, {1}, GreedyTokens(1), {.chunk_tokens = 0}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Generate(&executor, {}, GreedyTokens(1), {}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(Generate(&executor, RandomTokens(33, 320, 1), GreedyTokens(1), {}).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(executor.pool().counts().held, 0);
}

}  // namespace
}  // namespace baton::engine
