#include "simulator/regret.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <iostream>

namespace baton::simulator {
namespace {

using planner::WorkloadOf;
using testing::HasSubstr;

RegretQuestion ChatFleet() {
  return {.deployment = {.model = *planner::KnownModelFacts("llama-3-8b"),
                         .hardware = *planner::KnownHardwareFacts("h100")},
          .workload = *WorkloadOf({.rate_per_s = 20,
                                   .input_tokens = 2000,
                                   .input_cv = 0.7,
                                   .output_tokens = 200,
                                   .output_cv = 1}),
          .objectives = {.percentile = 0.99, .ttft_s = 2, .itl_s = 0.03},
          .workers = 6,
          .requests = 1500};
}

TEST(Regret, ThePlanIsNearTheBestSplitAndNoneIsAbove) {
  const auto report = StaticRegret(ChatFleet());
  ASSERT_TRUE(report.ok()) << report.status();
  ASSERT_EQ(report->chosen.size(), 5u);
  const double best = report->chosen[0].goodput_per_s;
  for (const PlayedSplit& split : report->chosen) {
    EXPECT_EQ(split.prefill + split.decode, 6) << split.how;
    EXPECT_LE(split.goodput_per_s, 1.02 * best) << split.how;
  }
  EXPECT_EQ(report->chosen[1].how, "plan");
  EXPECT_GE(report->chosen[1].goodput_per_s, 0.95 * best);
}

TEST(Regret, GoodputIsTheLargestRateThatHolds) {
  const RegretQuestion question = ChatFleet();
  const SimulatedWorker worker = *WorkerOf(question.deployment, 0);
  int64_t runs = 0;
  const auto goodput = PlayedGoodput(worker, question, 4, 2, &runs);
  ASSERT_TRUE(goodput.ok()) << goodput.status();
  const auto ttft = [&](double rate) {
    return Simulate(worker, question.workload,
                    {.prefill = 4, .decode = 2, .requests = question.requests, .faster = rate / 20})
        ->ttft_s.Percentile(0.99);
  };
  const auto itl = [&](double rate) {
    return Simulate(worker, question.workload,
                    {.prefill = 4, .decode = 2, .requests = question.requests, .faster = rate / 20})
        ->itl_s.Percentile(0.99);
  };
  EXPECT_LE(ttft(*goodput), 2);
  EXPECT_LE(itl(*goodput), 0.03);
  EXPECT_TRUE(ttft(1.1 * *goodput) > 2 || itl(1.1 * *goodput) > 0.03);
}

planner::Workload Traffic(double input, double output) {
  return *WorkloadOf({.rate_per_s = 20,
                      .input_tokens = input,
                      .input_cv = 0.5,
                      .output_tokens = output,
                      .output_cv = 0.5});
}

// Nearly all that a fleet can do, and what carries one half does not carry the other.
LiveQuestion Flip(const planner::Workload& first, const planner::Workload& second) {
  LiveQuestion question{.first = ChatFleet(), .second = second, .load = 0.85};
  question.first.workload = first;
  question.control.objectives = question.first.objectives;
  return question;
}

void Print(const LiveReport& report) {
  for (const auto& change : report.changes) {
    std::cout << change.at_s << " s: " << change.decision.reason << "\n";
  }
  std::cout << report.good_live << " of " << report.good_clairvoyant << ", told at the change "
            << report.good_told << ", without control " << report.good_stays << "; changed after "
            << report.first_s << " s of " << report.duration_s << "\n";
}

TEST(Regret, TheControllerIsWithinATenthOfWhoKnowsAllWhereTrafficFlips) {
  const planner::Workload prompts = Traffic(4000, 40), answers = Traffic(400, 500);
  for (const bool prompts_first : {true, false}) {
    LiveQuestion question = prompts_first ? Flip(prompts, answers) : Flip(answers, prompts);
    question.first.requests = prompts_first ? 3'000 : 13'000;
    const auto report = LiveRegret(question);
    ASSERT_TRUE(report.ok()) << report.status();
    Print(*report);
    EXPECT_NE(report->best_first.prefill, report->best_second.prefill);
    EXPECT_GE(static_cast<double>(report->good_live),
              0.9 * static_cast<double>(report->good_clairvoyant));
    EXPECT_GT(report->good_live, report->good_stays);
    EXPECT_GE(report->good_told, report->good_stays);
  }
}

TEST(Regret, TrafficThatStaysLeavesTheSplit) {
  const planner::Workload traffic = Traffic(2000, 200);
  LiveQuestion question = Flip(traffic, traffic);
  question.first.requests = 4'000;
  const auto report = LiveRegret(question);
  ASSERT_TRUE(report.ok()) << report.status();
  Print(*report);
  EXPECT_TRUE(report->changes.empty());
  EXPECT_EQ(report->good_live, report->good_stays);
}

TEST(Regret, SaysWhatCannotBe) {
  RegretQuestion question = ChatFleet();
  question.workers = 1;
  EXPECT_THAT(std::string(StaticRegret(question).status().message()), HasSubstr("1 workers"));
  question = ChatFleet();
  question.objectives.ttft_s = 0;
  EXPECT_THAT(std::string(StaticRegret(question).status().message()), HasSubstr("first token"));
  question = ChatFleet();
  question.objectives.itl_s = 1e-5;
  EXPECT_FALSE(StaticRegret(question).ok());
}

}  // namespace
}  // namespace baton::simulator
