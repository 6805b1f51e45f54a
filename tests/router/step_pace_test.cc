#include "router/step_pace.h"

#include <gtest/gtest.h>

#include <random>

namespace baton::router {
namespace {

// A worker whose decode steps take 5 ms, 0.2 ms a sequence and 1 us for each ten tokens of context,
// `slowness` times.
class Worker {
 public:
  explicit Worker(double slowness) : slowness_(slowness) {}

  const worker_link::StepTotals& Compute(int64_t steps, int64_t sequences, double context) {
    totals_.steps += steps;
    totals_.sequences += steps * sequences;
    totals_.context_tokens += static_cast<double>(steps) * context;
    totals_.seconds += slowness_ * static_cast<double>(steps) *
                       (5e-3 + 2e-4 * static_cast<double>(sequences) + 1e-7 * context);
    return totals_;
  }

 private:
  double slowness_;
  worker_link::StepTotals totals_;
};

class StepPaceTest : public testing::Test {
 protected:
  void Run(Worker& worker, StepPace& pace, int reports) {
    for (int i = 0; i < reports; ++i) {
      const auto sequences = static_cast<int64_t>(1 + random_() % 30);
      const double context = static_cast<double>(sequences) * (100.0 + random_() % 2000);
      pace.Report(worker.Compute(50, sequences, context), &fleet_);
    }
  }

  std::mt19937 random_{7};
  planner::StepLearner fleet_;
};

TEST_F(StepPaceTest, LearnsWhatAStepTakes) {
  Worker worker(1);
  StepPace pace;
  Run(worker, pace, 5);
  EXPECT_EQ(DecodeStepCostOf(fleet_).step_s, 0) << "too little to go by";
  EXPECT_EQ(pace.slowness(), 1);
  Run(worker, pace, 200);
  const DecodeStepCost cost = DecodeStepCostOf(fleet_);
  EXPECT_NEAR(cost.step_s, 5e-3, 2e-4);
  EXPECT_NEAR(cost.sequence_s, 2e-4, 2e-5);
  EXPECT_NEAR(cost.context_token_s, 1e-7, 1e-8);
  EXPECT_EQ(pace.slowness(), 1);
}

TEST_F(StepPaceTest, TellsSlowMachinesFromFastOnes) {
  Worker fast(1), other(1.02), slow(3);
  StepPace fast_pace, other_pace, slow_pace;
  for (int round = 0; round < 100; ++round) {
    Run(fast, fast_pace, 1);
    Run(other, other_pace, 1);
    Run(slow, slow_pace, 1);
  }
  EXPECT_EQ(fast_pace.slowness(), other_pace.slowness()) << "as good as equal";
  EXPECT_GE(slow_pace.slowness() / fast_pace.slowness(), 2);
  EXPECT_LE(slow_pace.slowness() / fast_pace.slowness(), 4);
}

// It would hardly get work to show that it is not slow.
TEST_F(StepPaceTest, AFewSlowStepsOfANewWorkerAreNotBelieved) {
  Worker worker(1), disturbed(8);
  StepPace pace, new_pace;
  Run(worker, pace, 60);
  Run(disturbed, new_pace, 19);
  EXPECT_EQ(new_pace.slowness(), 1);
  Run(disturbed, new_pace, 1);
  EXPECT_GT(new_pace.slowness(), 2);
}

TEST_F(StepPaceTest, BeginsAnewWithAnotherRole) {
  Worker worker(1), slow(2);
  StepPace pace, slow_pace;
  Run(worker, pace, 60);
  Run(slow, slow_pace, 20);
  ASSERT_GT(slow_pace.slowness(), pace.slowness());
  Worker anew(1);
  slow_pace.Report(anew.Compute(1, 1, 10), &fleet_);
  const int64_t reports = fleet_.reports();
  slow_pace.Report(anew.Compute(0, 0, 0), &fleet_);
  EXPECT_EQ(fleet_.reports(), reports) << "nothing was computed";
  EXPECT_LT(slow_pace.slowness(), 1.5) << "by what it has computed since";
}

}  // namespace
}  // namespace baton::router
