#include "kv_transfer/target_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::kv_transfer {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr TimePoint kStart = TimePoint(seconds(1'000));
constexpr Duration kLease = seconds(5), kOfferTimeout = seconds(30), kReadyTimeout = seconds(10);
using State = TargetMachine::State;

// Five blocks are offered. The first is held already; the others go to 7, 8, 3, 4.
struct Driven {
  TargetMachine machine{{.block_count = 5,
                         .source_slab_blocks = 100,
                         .lease = kLease,
                         .offer_timeout = kOfferTimeout,
                         .ready_timeout = kReadyTimeout},
                        kStart};
  std::vector<MessageBody> messages;
  std::vector<TargetFinish> finishes;

  void Collect() {
    for (TargetAction& action : machine.TakeActions()) {
      if (auto* send = std::get_if<TargetSend>(&action)) messages.push_back(send->body);
      if (auto* finish = std::get_if<TargetFinish>(&action)) finishes.push_back(*finish);
    }
  }
  template <typename T>
  std::vector<T> Sent() const {
    std::vector<T> found;
    for (const MessageBody& body : messages) {
      if (const T* message = std::get_if<T>(&body)) found.push_back(*message);
    }
    return found;
  }
  void Grant(TimePoint now = kStart) { machine.Grant(1, {7, 8, 3, 4}, now); }
  // Fetches what there is, as a perfect network would.
  void LandAll(TimePoint now = kStart) {
    while (const auto landing = machine.NextRun(100)) Land(*landing, now);
  }
  void Land(const Landing& landing, TimePoint now) {
    std::vector<uint64_t> checksums;
    for (int32_t i = 0; i < landing.run.count; ++i) {
      checksums.push_back(static_cast<uint64_t>(1'000 + landing.source_block + i));
    }
    machine.OnLanded(landing.run, checksums, now);
  }
};

// Source blocks 50.. with checksums 1050..
ReadyMessage Ready(int32_t first, int32_t count, bool last = false) {
  ReadyMessage ready{.first = first, .blocks = {}, .last = last, .commit_payload = last ? "T" : ""};
  for (int32_t i = 0; i < count; ++i) {
    const int32_t block = 50 + first + i;
    ready.blocks.push_back({block, static_cast<uint64_t>(1'000 + block)});
  }
  return ready;
}

// ---- the table of legal transitions ----

// `kFlying` is kPulling with a run in flight, `kAllButCommit` has landed every block.
enum From { kOffered, kPulling, kFlying, kAllButCommit, kDone, kFroms };
enum Event {
  kGrant,
  kBadGrant,
  kRefuse,
  kCancel,
  kReady,
  kReadyLast,
  kBadReady,
  kHeartbeat,
  kOnCancel,
  kPeerDown,
  kTickEarly,
  kTickLate,
  kEvents
};

Driven MakeFrom(From from) {
  Driven driven;
  if (from == kOffered) return driven;
  driven.Grant();
  if (from == kFlying) {
    driven.machine.OnReady(Ready(1, 2), kStart);
    EXPECT_TRUE(driven.machine.NextRun(1).has_value());
  }
  if (from == kAllButCommit) {
    driven.machine.OnReady(Ready(1, 4), kStart);
    driven.LandAll();
  }
  if (from == kDone) driven.machine.Cancel(absl::CancelledError("enough"));
  return driven;
}

void Apply(Event event, TargetMachine& machine) {
  const TimePoint soon = kStart + milliseconds(10);
  switch (event) {
    case kGrant:
      machine.Grant(5, {}, soon);
      break;
    case kBadGrant:
      machine.Grant(2, {1, 2}, soon);
      break;
    case kRefuse:
      machine.Refuse(absl::ResourceExhaustedError("full"));
      break;
    case kCancel:
      machine.Cancel(absl::CancelledError("enough"));
      break;
    case kReady:
      machine.OnReady(Ready(1, 1), soon);
      break;
    case kReadyLast:
      machine.OnReady(Ready(5, 0, true), soon);
      break;
    case kBadReady:
      machine.OnReady(Ready(4, 2), soon);
      break;
    case kHeartbeat:
      machine.OnSourceHeartbeat({1, false}, soon);
      break;
    case kOnCancel:
      machine.OnCancel({absl::AbortedError("client left")});
      break;
    case kPeerDown:
      machine.OnPeerDown(absl::UnavailableError("gone"));
      break;
    case kTickEarly:
      machine.OnTick(soon);
      break;
    case kTickLate:
      machine.OnTick(kStart + kOfferTimeout);
      break;
    case kEvents:
      break;
  }
}

TEST(TargetMachineTest, FollowsTheTableOfTransitions) {
  constexpr State O = State::kOffered, P = State::kPulling, X = State::kDone;
  constexpr State kTable[kFroms][kEvents] = {
      // Grant BadGr Refuse Cancel Ready Last BadRd Beat Cancl Down Early Late
      {P, X, X, X, O, O, O, O, X, X, O, X},  // Offered
      {P, P, P, X, P, P, X, P, X, X, P, X},  // Pulling
      {P, P, P, X, P, P, X, P, X, X, P, X},  // Flying
      {P, P, P, X, P, X, X, P, X, X, P, X},  // AllButCommit
      {X, X, X, X, X, X, X, X, X, X, X, X},  // Done
  };
  for (int from = 0; from < kFroms; ++from) {
    for (int event = 0; event < kEvents; ++event) {
      SCOPED_TRACE(testing::Message() << "row " << from << " column " << event);
      Driven driven = MakeFrom(static_cast<From>(from));
      driven.Collect();
      driven.messages.clear();
      Apply(static_cast<Event>(event), driven.machine);
      driven.Collect();
      const State state = driven.machine.state();
      EXPECT_EQ(static_cast<int>(state), static_cast<int>(kTable[from][event]));
      EXPECT_EQ(driven.finishes.size(), state == X ? 1u : 0u);
      if (state == X && from != kDone) {
        EXPECT_EQ(driven.finishes[0].granted, from != kOffered || event == kBadGrant);
        // The source is told, unless it is the one that is gone.
        EXPECT_EQ(driven.Sent<ReleaseMessage>().size(), event == kPeerDown ? 0u : 1u);
      }
      if (state != X) continue;
      for (int next = 0; next < kEvents; ++next) {
        Apply(static_cast<Event>(next), driven.machine);
        EXPECT_TRUE(driven.machine.TakeActions().empty()) << "event " << next << " after the end";
        EXPECT_FALSE(driven.machine.NextRun(1).has_value());
        EXPECT_FALSE(driven.machine.InFlight({1, 1}).has_value());
      }
    }
  }
}

// ---- what it fetches ----

TEST(TargetMachineTest, MergesBlocksThatLieTogetherOnBothSides) {
  Driven driven;
  driven.Grant();
  driven.machine.OnReady(Ready(1, 4), kStart);
  const auto first = driven.machine.NextRun(100);  // 7, 8 here; then comes 3
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->run, (BlockRun{1, 2}));
  EXPECT_EQ(first->source_block, 51);
  EXPECT_EQ(first->target_block, 7);
  const auto second = driven.machine.NextRun(1);
  EXPECT_EQ(second->run, (BlockRun{3, 1}));
  EXPECT_EQ(second->target_block, 3);
  EXPECT_EQ(driven.machine.NextRun(100)->run, (BlockRun{4, 1}));
  EXPECT_FALSE(driven.machine.NextRun(100).has_value());
}

TEST(TargetMachineTest, DoesNotMergeAcrossAGapAtTheSource) {
  Driven driven;
  driven.Grant();
  ReadyMessage ready = Ready(1, 2);
  ready.blocks[1].source_block = 99;
  driven.machine.OnReady(ready, kStart);
  EXPECT_EQ(driven.machine.NextRun(100)->run, (BlockRun{1, 1}));
  EXPECT_EQ(driven.machine.NextRun(100)->source_block, 99);
}

TEST(TargetMachineTest, IsCompleteInWhateverOrderThingsCome) {
  Driven driven;
  driven.Grant();
  driven.machine.OnReady(Ready(3, 2, true), kStart + seconds(1));  // the last before the first
  driven.LandAll(kStart + seconds(2));
  EXPECT_EQ(driven.machine.state(), State::kPulling);
  driven.machine.OnReady(Ready(1, 2), kStart + seconds(3));
  driven.machine.OnReady(Ready(1, 2), kStart + seconds(3));  // and once more
  driven.LandAll(kStart + seconds(4));
  driven.Collect();
  ASSERT_EQ(driven.finishes.size(), 1u);
  EXPECT_TRUE(driven.finishes[0].status.ok());
  EXPECT_EQ(driven.Sent<ReleaseMessage>(), std::vector{ReleaseMessage{absl::OkStatus()}});
  EXPECT_EQ(driven.machine.commit_payload(), "T");
  EXPECT_EQ(driven.machine.blocks_landed(), 4);
  EXPECT_EQ(driven.machine.committed_at(), kStart + seconds(1));
  EXPECT_EQ(driven.machine.last_landed_at(), kStart + seconds(4));
}

TEST(TargetMachineTest, NeedsOnlyTheCommitWhenItHoldsEverything) {
  Driven driven;
  driven.machine.Grant(5, {}, kStart);
  driven.machine.OnReady(Ready(5, 0, true), kStart);
  driven.Collect();
  EXPECT_TRUE(driven.finishes.at(0).status.ok());
}

TEST(TargetMachineTest, AWrongChecksumEndsItAndNothingMoreIsWritten) {
  Driven driven;
  driven.Grant();
  driven.machine.OnReady(Ready(1, 4, true), kStart);
  const auto run = driven.machine.NextRun(100);
  const auto other = driven.machine.NextRun(100);
  driven.machine.OnLanded(run->run, std::vector<uint64_t>{1'051, 666}, kStart);
  driven.Collect();
  ASSERT_EQ(driven.finishes.size(), 1u);
  EXPECT_EQ(driven.finishes[0].status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(driven.finishes[0].status.ToString(), HasSubstr("block 2 of 5"));
  EXPECT_FALSE(driven.machine.InFlight(other->run).has_value());
}

TEST(TargetMachineTest, DataIsPlacedOnlyForARunInFlight) {
  Driven driven;
  driven.Grant();
  driven.machine.OnReady(Ready(1, 4), kStart);
  EXPECT_FALSE(driven.machine.InFlight({1, 2}).has_value());
  const auto run = driven.machine.NextRun(100);
  EXPECT_EQ(driven.machine.InFlight({1, 2})->target_block, 7);
  EXPECT_FALSE(driven.machine.InFlight({1, 1}).has_value());
  EXPECT_FALSE(driven.machine.InFlight({3, 1}).has_value());
  driven.Land(*run, kStart);
  EXPECT_FALSE(driven.machine.InFlight({1, 2}).has_value()) << "a second copy";
}

TEST(TargetMachineTest, BlocksThatTheSourceCannotHaveEndIt) {
  Driven driven;
  driven.Grant();
  ReadyMessage ready = Ready(1, 1);
  ready.blocks[0].source_block = 100;
  driven.machine.OnReady(ready, kStart);
  driven.Collect();
  EXPECT_THAT(driven.finishes.at(0).status.ToString(),
              HasSubstr("block 100 of its slab, which has 100"));
}

// ---- time ----

TEST(TargetMachineTest, SilenceEndsItAndHeartbeatsOfAnIdleSourceDoNot) {
  Driven driven;
  driven.Grant();
  TimePoint now = kStart;
  for (int i = 0; i < 5; ++i) {
    now += kReadyTimeout - seconds(1);
    driven.machine.OnSourceHeartbeat({1, false}, now);
    driven.machine.OnTick(now);
  }
  EXPECT_EQ(driven.machine.state(), State::kPulling);
  driven.machine.OnTick(now + kReadyTimeout);
  driven.Collect();
  EXPECT_EQ(driven.finishes.at(0).status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(TargetMachineTest, HeartbeatsDoNotHideALostMessage) {
  // The source has announced a block, or committed, and that never came.
  for (const SourceHeartbeat heartbeat : {SourceHeartbeat{3, false}, SourceHeartbeat{1, true}}) {
    Driven driven;
    driven.Grant();
    for (TimePoint now = kStart; now <= kStart + kReadyTimeout; now += seconds(1)) {
      driven.machine.OnSourceHeartbeat(heartbeat, now);
      driven.machine.OnTick(now);
    }
    EXPECT_EQ(driven.machine.state(), State::kDone);
  }
}

TEST(TargetMachineTest, HeartbeatsDoNotHideLostData) {
  Driven driven;
  driven.Grant();
  driven.machine.OnReady(Ready(1, 4), kStart);
  ASSERT_TRUE(driven.machine.NextRun(100).has_value());
  for (TimePoint now = kStart; now <= kStart + kReadyTimeout; now += seconds(1)) {
    driven.machine.OnSourceHeartbeat({5, false}, now);
    driven.machine.OnTick(now);
  }
  driven.Collect();
  EXPECT_THAT(driven.finishes.at(0).status.ToString(), HasSubstr("1 pulls unanswered"));
}

TEST(TargetMachineTest, RenewsTheLeaseWellBeforeItIsOver) {
  Driven driven;
  driven.Grant();
  for (TimePoint now = kStart; now < kStart + kLease; now += milliseconds(100)) {
    driven.machine.OnTick(now);
  }
  driven.Collect();
  EXPECT_GE(driven.Sent<TargetHeartbeat>().size(), 4u);
  EXPECT_EQ(driven.Sent<GrantMessage>(), std::vector{(GrantMessage{1, 2'000})});
}

}  // namespace
}  // namespace baton::kv_transfer
