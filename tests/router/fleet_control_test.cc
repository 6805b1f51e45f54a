#include "router/fleet_control.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <boost/json.hpp>

namespace baton::router {
namespace {

namespace json = boost::json;
using planner::ControlAction;
using testing::HasSubstr;
using worker_link::Role;

// Workers whose steps take what they say: a prompt token 0.1 ms, a step 10 ms, a sequence in it
// 0.2 ms.
class FakeFleet {
 public:
  FakeFleet(int prefill, int decode) {
    for (int i = 0; i < prefill + decode; ++i) {
      WorkerView worker;
      worker.address = "worker-" + std::to_string(i);
      worker.role = i < prefill ? "prefill" : "decode";
      worker.state = "ready";
      worker.blocks_total = 10'000;
      worker.block_tokens = 16;
      worker.max_sequences = 64;
      worker.steps.chunk_tokens = 256;
      workers.push_back(worker);
    }
  }

  void Work(int round) {
    for (WorkerView& worker : workers) {
      worker_link::StepTotals& steps = worker.steps;
      const int64_t count = 3 + round % 5;
      steps.steps += count;
      if (worker.role == "prefill") {
        const int64_t tokens = count * (60 + 13 * (round % 7));
        steps.prompt_steps += count;
        steps.prompt_tokens += tokens;
        steps.prompt_pairs += static_cast<double>(tokens) * (200 + 50 * (round % 11));
        steps.seconds += 0.001 * static_cast<double>(count) + 1e-4 * static_cast<double>(tokens);
      } else {
        const int64_t sequences = count * (1 + round % 9);
        steps.sequences += sequences;
        steps.context_tokens += static_cast<double>(sequences) * (300 + 70 * (round % 6));
        steps.seconds += 0.010 * static_cast<double>(count) + 2e-4 * static_cast<double>(sequences);
      }
    }
  }

  FleetHandle handle() {
    return {.fleet = [this] { return workers; },
            .set_duty =
                [this](const DutyChange& change) {
                  duties.push_back(change);
                  return duty_status;
                }};
  }

  std::vector<WorkerView> workers;
  std::vector<DutyChange> duties;
  absl::Status duty_status;
};

// Long prompts, short answers, `per_s` of them.
void Prompts(FleetControl* control, double from_s, double per_s, int count) {
  for (int i = 0; i < count; ++i) {
    const auto request = static_cast<uint64_t>(i);
    control->watch().OnArrival(from_s + i / per_s, request, 3000 + 100 * (i % 7));
    control->watch().OnTokens(request, 5);
    control->watch().OnFinish(request, 20, 0);
  }
}

FleetControlOptions Acts() {
  FleetControlOptions options{.mode = ControlMode::kAct};
  options.control.objectives = {.ttft_s = 2, .itl_s = 0.05};
  options.control.confirm = 1;
  options.grace = std::chrono::seconds(7);
  return options;
}

TEST(FleetControl, LearnsWhatStepsTakeAndFlipsTheWorkerThatIsMissing) {
  FakeFleet fleet(2, 4);
  FleetControl control(Acts(), fleet.handle());
  Prompts(&control, 100, 8, 100);
  EXPECT_THAT(control.DecideOnce(112.5).reason, HasSubstr("what a step takes is known"));
  for (int round = 0; round < 60; ++round) {
    fleet.Work(round);
    control.Learn();
  }
  const auto decision = control.DecideOnce(112.5);
  ASSERT_EQ(decision.action, ControlAction::kFlip) << decision.reason;
  ASSERT_EQ(fleet.duties.size(), 2u);
  EXPECT_EQ(fleet.duties[0].worker, "worker-2");
  EXPECT_EQ(fleet.duties[0].role, Role::kPrefill);
  EXPECT_EQ(fleet.duties[0].grace, std::chrono::seconds(7));

  const json::object plan = json::parse(control.Json()).as_object();
  EXPECT_EQ(plan.at("mode").as_string(), "act");
  ASSERT_EQ(plan.at("changes").as_array().size(), 1u);
  const json::object& change = plan.at("changes").as_array()[0].as_object();
  EXPECT_EQ(change.at("outcome").as_string(), "done");
  EXPECT_EQ(change.at("new_prefill").as_int64(), 4);
  EXPECT_NEAR(plan.at("model").at("chunk_step_s").as_double(), 0.001 + 256e-4, 2e-3);

  EXPECT_THAT(control.DecideOnce(113).reason, HasSubstr("since the last change"));
  EXPECT_EQ(fleet.duties.size(), 2u);
}

TEST(FleetControl, AdviceChangesNothing) {
  FakeFleet fleet(2, 4);
  FleetControlOptions options = Acts();
  options.mode = ControlMode::kAdvise;
  FleetControl control(options, fleet.handle());
  for (int round = 0; round < 60; ++round) {
    fleet.Work(round);
    control.Learn();
  }
  Prompts(&control, 100, 8, 100);
  EXPECT_EQ(control.DecideOnce(112.5).action, ControlAction::kFlip);
  EXPECT_TRUE(fleet.duties.empty());
  EXPECT_THAT(control.Json(), HasSubstr("advised"));
}

TEST(FleetControl, AWorkerThatBeginsAnewIsNoStepBackwards) {
  FakeFleet fleet(2, 4);
  FleetControl control(Acts(), fleet.handle());
  for (int round = 0; round < 60; ++round) {
    if (round % 10 == 5) {
      for (WorkerView& worker : fleet.workers) worker.steps = {.chunk_tokens = 256};
    }
    fleet.Work(round);
    control.Learn();
  }
  const json::object plan = json::parse(control.Json()).as_object();
  EXPECT_NEAR(plan.at("model").at("chunk_step_s").as_double(), 0.001 + 256e-4, 2e-3);
}

TEST(FleetControl, SaysWhatCouldNotBeDone) {
  FakeFleet fleet(2, 4);
  fleet.duty_status = absl::UnavailableError("the worker takes no commands");
  FleetControl control(Acts(), fleet.handle());
  for (int round = 0; round < 60; ++round) {
    fleet.Work(round);
    control.Learn();
  }
  Prompts(&control, 100, 8, 100);
  control.DecideOnce(112.5);
  EXPECT_THAT(control.Json(), HasSubstr("the worker takes no commands"));
}

class Counted : public PlanExecutor {
 public:
  absl::StatusOr<int64_t> Replicas(Role) override { return replicas; }
  absl::Status SetReplicas(Role role, int64_t count) override {
    asked.emplace_back(role, count);
    replicas = count;
    return absl::OkStatus();
  }
  int64_t replicas = 4;
  std::vector<std::pair<Role, int64_t>> asked;
};

TEST(FleetControl, AsksForAnotherWorkerOnceUntilItIsHere) {
  FakeFleet fleet(4, 2);
  auto executor = std::make_shared<Counted>();
  FleetControlOptions options = Acts();
  options.executor = executor;
  options.control.most_workers = 10;
  options.control.cooldown_s = 0;
  FleetControl control(options, fleet.handle());
  for (int round = 0; round < 60; ++round) {
    fleet.Work(round);
    control.Learn();
  }
  Prompts(&control, 100, 30, 300);
  const auto decision = control.DecideOnce(110);
  ASSERT_EQ(decision.action, ControlAction::kGrow) << decision.reason;
  EXPECT_THAT(executor->asked, testing::ElementsAre(std::pair(Role::kPrefill, 5)));
  control.DecideOnce(111);
  EXPECT_EQ(executor->asked.size(), 1u);
  EXPECT_THAT(control.Json(), HasSubstr("5 prefill workers are asked for, 4 are here"));
}

TEST(FleetControl, ItsThreadEndsWithIt) {
  FakeFleet fleet(1, 2);
  FleetControlOptions options = Acts();
  options.every = std::chrono::milliseconds(1);
  FleetControl control(options, fleet.handle());
  control.Start();
  while (json::parse(control.Json()).at("last").at("reason").as_string().empty()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
}

class FakeLeadership : public discovery::Leadership {
 public:
  bool Leads() const override { return leads; }
  std::string Leader() const override { return leader; }
  bool leads = false;
  std::string leader = "r2";
};

TEST(FleetControl, OnlyWhoLeadsActs) {
  FakeFleet fleet(2, 4);
  FleetControlOptions options = Acts();
  options.control.cooldown_s = 0;
  const auto leadership = std::make_shared<FakeLeadership>();
  options.leadership = leadership;
  FleetControl control(options, fleet.handle());
  for (int round = 0; round < 60; ++round) {
    fleet.Work(round);
    control.Learn();
  }
  Prompts(&control, 100, 8, 100);
  EXPECT_EQ(control.DecideOnce(112.5).action, ControlAction::kFlip);
  EXPECT_TRUE(fleet.duties.empty());
  EXPECT_THAT(control.Json(), HasSubstr(R"("leads":false,"leader":"r2")"));
  EXPECT_THAT(control.Json(), HasSubstr("left to 'r2'"));
  leadership->leader = "";
  control.DecideOnce(112.6);
  EXPECT_THAT(control.Json(), HasSubstr("nobody is known to lead"));
  EXPECT_TRUE(fleet.duties.empty());
  leadership->leads = true;
  EXPECT_EQ(control.DecideOnce(112.7).action, ControlAction::kFlip);
  EXPECT_FALSE(fleet.duties.empty());
}

}  // namespace
}  // namespace baton::router
