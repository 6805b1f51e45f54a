#include "bench/serve_load.h"

#include <gtest/gtest.h>

#include <set>

namespace baton::bench {
namespace {

std::vector<ServeRequest> Load(const ServeLoadOptions& options) {
  auto load = MakeServeLoad(options);
  EXPECT_TRUE(load.ok()) << load.status();
  return *load;
}

TEST(ServeLoadTest, LengthsHaveTheirMeanAndSpread) {
  const auto load = Load({.requests = 5000, .input = {300, 1}, .output = {50, 0}});
  double sum = 0;
  std::set<int64_t> lengths;
  for (const ServeRequest& request : load) {
    sum += static_cast<double>(request.words());
    lengths.insert(request.words());
    EXPECT_EQ(request.output_tokens, 50);
  }
  EXPECT_NEAR(sum / 5000, 300, 30);
  EXPECT_GT(lengths.size(), 300u);
}

TEST(ServeLoadTest, GroupsShareTheirPrefixAndNothingElse) {
  const auto load =
      Load({.requests = 200, .input = {40, 0}, .shared_prefix = 30, .prefix_groups = 3});
  std::set<std::string> prefixes, texts;
  for (const ServeRequest& request : load) {
    ASSERT_EQ(request.prompt.size(), 2u);
    EXPECT_EQ(request.prompt[0].words, 30);
    EXPECT_EQ(request.prompt[1].words, 10);
    prefixes.insert(PromptText({.prompt = {request.prompt[0]}}));
    texts.insert(PromptText(request));
  }
  EXPECT_EQ(prefixes.size(), 3u);
  EXPECT_EQ(texts.size(), 200u);
}

TEST(ServeLoadTest, ASeedGivesTheSameLoadAgain) {
  const ServeLoadOptions options{.requests = 20, .input = {100, 2}};
  const auto one = Load(options), two = Load(options);
  ServeLoadOptions other = options;
  other.arrivals.seed = 2;
  const auto three = Load(other);
  for (size_t i = 0; i < one.size(); ++i) {
    EXPECT_EQ(PromptText(one[i]), PromptText(two[i]));
    EXPECT_EQ(one[i].due_s, two[i].due_s);
    EXPECT_NE(PromptText(one[i]), PromptText(three[i]));
  }
}

TEST(ServeLoadTest, NumbersThatMakeNoSenseAreRefused) {
  EXPECT_FALSE(MakeServeLoad({.requests = 0}).ok());
  EXPECT_FALSE(MakeServeLoad({.input = {0.5, 0}}).ok());
  EXPECT_FALSE(MakeServeLoad({.output = {5, -1}}).ok());
  EXPECT_FALSE(MakeServeLoad({.prefix_groups = 0}).ok());
  EXPECT_FALSE(MakeServeLoad({.arrivals = {.rate_per_s = -1}}).ok());
}

planner::Trace SharedTrace() {
  planner::Trace trace{.block_tokens = 512};
  trace.requests = {
      {.arrival_s = 10, .input_tokens = 1200, .output_tokens = 80, .prefix_blocks = {5, 6, 7}},
      {.arrival_s = 14, .input_tokens = 600, .output_tokens = 7, .prefix_blocks = {5, 9}},
      {.arrival_s = 12, .input_tokens = 100, .output_tokens = 1}};
  return trace;
}

TEST(ServeLoadTest, ATraceKeepsItsTimesLengthsAndSharedBlocks) {
  const auto load = MakeTraceLoad(SharedTrace(), {.speed = 2});
  ASSERT_TRUE(load.ok());
  ASSERT_EQ(load->size(), 3u);
  EXPECT_EQ((*load)[0].due_s, 0);
  EXPECT_EQ((*load)[1].due_s, 1);
  EXPECT_EQ((*load)[2].due_s, 2);
  EXPECT_EQ((*load)[0].words(), 1200);
  EXPECT_EQ((*load)[1].words(), 100);
  EXPECT_EQ((*load)[2].words(), 600);
  const std::string first = PromptText((*load)[0]), last = PromptText((*load)[2]);
  const std::string shared = PromptText({.prompt = {(*load)[0].prompt[0]}});
  EXPECT_TRUE(first.starts_with(shared));
  EXPECT_TRUE(last.starts_with(shared));
  EXPECT_NE(first.substr(0, last.size()), last);
}

TEST(ServeLoadTest, ATraceIsScaledAndCut) {
  const auto load = MakeTraceLoad(
      SharedTrace(), {.token_scale = 0.1, .requests = 1, .longest_input = 90, .longest_output = 4});
  ASSERT_TRUE(load.ok());
  ASSERT_EQ(load->size(), 1u);
  EXPECT_EQ((*load)[0].words(), 90);
  EXPECT_EQ((*load)[0].prompt[0].words, 51);
  EXPECT_EQ((*load)[0].output_tokens, 4);
  EXPECT_FALSE(MakeTraceLoad(SharedTrace(), {.speed = 0}).ok());
  EXPECT_FALSE(MakeTraceLoad({}, {}).ok());
}

}  // namespace
}  // namespace baton::bench
