// What both kinds of worker share, with a loop that holds every attempt until it is told to stop.

#include "worker_common/loop.h"

#include <gtest/gtest.h>

#include <set>

#include "tests/worker_common/worker_testing.h"

namespace baton::worker_common {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using worker_link::CancelCommand;
using worker_link::DecodeCommand;

class HoldingLoop final : public WorkerLoop {
 public:
  explicit HoldingLoop(WorkerHost* host) : WorkerLoop(host, worker_link::Role::kDecode) {}

 private:
  void Start(const Attempt& attempt, worker_link::Command) override { held_.insert(attempt); }
  void Stop(const Attempt& attempt, const absl::Status& why) override {
    Fail(attempt, why);
    Fail(attempt, absl::InternalError("the second answer is not sent"));
    held_.erase(attempt);
    book().Remove(attempt);
  }
  void OnHandoff(kv_transfer::HandoffEvent) override {}
  void OnNoOffer(const Attempt&) override {}
  bool Advance() override { return false; }
  bool Quiet() const override { return held_.empty(); }
  worker_link::WorkerStatus CountWork() const override {
    return {.running = static_cast<int32_t>(held_.size())};
  }

  std::set<Attempt> held_;
};

class HoldingWorker {
 public:
  static absl::StatusOr<std::unique_ptr<HoldingWorker>> Create(const WorkerOptions& options) {
    BATON_ASSIGN_OR_RETURN(auto host, WorkerHost::Create(options, worker_link::Role::kDecode));
    return std::make_unique<HoldingWorker>(std::move(host));
  }
  explicit HoldingWorker(std::unique_ptr<WorkerHost> host)
      : host_(std::move(host)), loop_(host_.get()) {}
  std::string address() const { return host_->server().address(); }
  void Run() { next_role_ = loop_.Run(); }
  std::optional<worker_link::Role> next_role() const { return next_role_; }  // after Run
  void Drain() { loop_.Drain(); }

 private:
  std::unique_ptr<WorkerHost> host_;
  HoldingLoop loop_;
  std::optional<worker_link::Role> next_role_;
};

DecodeCommand Command(const Attempt& attempt, Duration timeout = seconds(60)) {
  DecodeCommand command;
  command.attempt = attempt;
  command.prompt = {1};
  command.timeout = timeout;
  return command;
}

class WorkerLoopTest : public testing::Test {
 protected:
  WorkerLoopTest()
      : worker_(Options()), router_(std::make_unique<TestRouter>(worker_->address())) {}
  ~WorkerLoopTest() override {
    router_.reset();  // the loop lets go of what it holds
  }
  WorkerOptions Options() {
    WorkerOptions options = model_.Options("w", 4);
    options.queue_capacity = 3;
    return options;
  }
  void WaitForHeld(int32_t count) {
    router_->WaitForStatus("held", [&](const auto& s) { return s.running == count; });
  }
  absl::StatusCode FailureOf(const Attempt& attempt) {
    return router_->Wait(attempt).failed.value_or(absl::OkStatus()).code();
  }

  TinyModel model_;
  RunningWorker<HoldingWorker> worker_;
  std::unique_ptr<TestRouter> router_;
};

TEST_F(WorkerLoopTest, CancelsAndDeadlinesStopAttempts) {
  router_->Send(Command(AttemptOf(1)));
  router_->Send(Command(AttemptOf(2), milliseconds(50)));
  router_->Send(CancelCommand{AttemptOf(1, 7)});  // an epoch that is not here
  router_->Send(CancelCommand{AttemptOf(1)});
  EXPECT_EQ(FailureOf(AttemptOf(1)), absl::StatusCode::kCancelled);
  EXPECT_EQ(FailureOf(AttemptOf(2)), absl::StatusCode::kDeadlineExceeded);
  router_->ExpectIdle();
}

TEST_F(WorkerLoopTest, NobodyCancelsAnothersAttempt) {
  router_->Send(Command(AttemptOf(1)));
  WaitForHeld(1);
  TestRouter other(worker_->address());
  other.Send(CancelCommand{AttemptOf(1)});
  other.Send(Command(AttemptOf(2), milliseconds(50)));
  EXPECT_TRUE(other.Wait(AttemptOf(2)).failed);
  WaitForHeld(1);
}

TEST_F(WorkerLoopTest, ANewerEpochStopsTheOlderAndAnOlderIsRefused) {
  router_->Send(Command(AttemptOf(1, 1)));
  router_->Send(Command(AttemptOf(1, 2)));
  EXPECT_EQ(FailureOf(AttemptOf(1, 1)), absl::StatusCode::kCancelled);
  router_->Send(Command(AttemptOf(1, 0)));
  EXPECT_EQ(FailureOf(AttemptOf(1, 0)), absl::StatusCode::kFailedPrecondition);
  WaitForHeld(1);
}

TEST_F(WorkerLoopTest, ALostRouterTakesItsAttemptsWithIt) {
  router_->Send(Command(AttemptOf(1)));
  WaitForHeld(1);
  {
    TestRouter other(worker_->address());
    other.Send(Command(AttemptOf(2)));
    WaitForHeld(2);
  }
  WaitForHeld(1);
}

TEST_F(WorkerLoopTest, HoldsNoMoreThanItsCapacity) {
  for (uint64_t i = 1; i <= 3; ++i) router_->Send(Command(AttemptOf(i)));
  WaitForHeld(3);
  router_->Send(Command(AttemptOf(4)));
  EXPECT_EQ(FailureOf(AttemptOf(4)), absl::StatusCode::kResourceExhausted);
  router_->Send(CancelCommand{AttemptOf(2)});
  EXPECT_EQ(FailureOf(AttemptOf(2)), absl::StatusCode::kCancelled);
  router_->Send(Command(AttemptOf(5)));
  WaitForHeld(3);
}

TEST_F(WorkerLoopTest, ADrainRefusesAndWaits) {
  router_->Send(Command(AttemptOf(1)));
  WaitForHeld(1);
  worker_->Drain();
  router_->WaitForStatus("draining", [](const auto& s) { return s.draining; });
  router_->Send(Command(AttemptOf(2)));
  EXPECT_EQ(FailureOf(AttemptOf(2)), absl::StatusCode::kUnavailable);
  router_->Send(CancelCommand{AttemptOf(1)});
  EXPECT_EQ(FailureOf(AttemptOf(1)), absl::StatusCode::kCancelled);
  worker_.Join();
}

constexpr auto kPrefill = worker_link::Role::kPrefill;
constexpr auto kDecode = worker_link::Role::kDecode;

TEST_F(WorkerLoopTest, ADrainByARouterRefusesAndCanBeUndone) {
  router_->Send(Command(AttemptOf(1)));
  WaitForHeld(1);
  router_->Send(worker_link::DutyCommand{kDecode, /*takes_work=*/false, seconds(600)});
  router_->WaitForStatus("draining", [](const auto& s) { return s.draining && !s.leaving; });
  router_->Send(Command(AttemptOf(2)));
  EXPECT_EQ(FailureOf(AttemptOf(2)), absl::StatusCode::kUnavailable);
  router_->Send(worker_link::DutyCommand{kDecode, /*takes_work=*/false, Duration(0)});
  router_->WaitForStatus("leaving", [](const auto& s) { return s.draining && s.leaving; });
  router_->Send(CancelCommand{AttemptOf(1)});
  WaitForHeld(0);
  router_->Send(worker_link::DutyCommand{kDecode, /*takes_work=*/true, Duration(0)});
  router_->WaitForStatus("back", [](const auto& s) { return !s.draining && !s.leaving; });
  router_->Send(Command(AttemptOf(3)));
  WaitForHeld(1);
}

TEST_F(WorkerLoopTest, ItsRoleEndsWhenWhatItHoldsIsOver) {
  router_->Send(Command(AttemptOf(1)));
  WaitForHeld(1);
  router_->Send(worker_link::DutyCommand{kPrefill, /*takes_work=*/true, Duration(0)});
  router_->WaitForStatus("leaving", [](const auto& s) { return s.leaving && s.role == kDecode; });
  router_->Send(CancelCommand{AttemptOf(1)});
  worker_.Join();
  EXPECT_EQ(worker_->next_role(), kPrefill);
}

TEST_F(WorkerLoopTest, OneThatEndsHasNoNextRole) {
  router_->Send(Command(AttemptOf(1)));
  WaitForHeld(1);
  router_->Send(worker_link::DutyCommand{kPrefill, /*takes_work=*/true, seconds(600)});
  router_->WaitForStatus("draining", [](const auto& s) { return s.draining; });
  worker_->Drain();
  router_->Send(CancelCommand{AttemptOf(1)});
  worker_.Join();
  EXPECT_EQ(worker_->next_role(), std::nullopt);
}

}  // namespace
}  // namespace baton::worker_common
