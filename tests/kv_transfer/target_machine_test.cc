#include "kv_transfer/target_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <numeric>

#include "tests/kv_transfer/transition_table.h"

namespace baton::kv_transfer {
namespace {

using std::chrono::milliseconds;
using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr TimePoint kStart = TimePoint(seconds(1'000));
constexpr Duration kLease = seconds(5), kOfferTimeout = seconds(30), kReadyTimeout = seconds(10);
using State = TargetMachine::State;

// Five blocks are offered, in two slices each. The first is held already; the others, pieces 2 to
// 9, go to 7, 8, 3, 4.
struct Driven {
  TargetMachine machine{{.block_count = 5,
                         .slices = 2,
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
      checksums.push_back(static_cast<uint64_t>(1'000 + landing.source_piece + i));
    }
    machine.OnLanded(landing.run, checksums, now);
  }
};

// Piece `index` is in the source's slab piece 100 + index, with a checksum of 1000 more.
ReadyMessage ReadyPieces(const std::vector<int32_t>& indices, bool last = false) {
  ReadyMessage ready{.pieces = {}, .last = last, .commit_payload = last ? "T" : ""};
  for (const int32_t index : indices) {
    ready.pieces.push_back({index, 100 + index, static_cast<uint64_t>(1'100 + index)});
  }
  return ready;
}
// Whole blocks.
ReadyMessage Ready(int32_t first, int32_t count, bool last = false) {
  std::vector<int32_t> indices(static_cast<size_t>(2 * count));
  std::iota(indices.begin(), indices.end(), 2 * first);
  return ReadyPieces(indices, last);
}

// ---- the table of legal transitions ----

// In the walk, time goes on with every event.
struct Walked {
  Driven driven;
  TimePoint now = kStart;
  std::vector<Landing> in_flight;
  size_t actions_before = 0;

  char state() const { return "OPX"[static_cast<size_t>(driven.machine.state())]; }
  size_t actions() const { return driven.messages.size() + driven.finishes.size(); }
  void CheckStep(char before, size_t column) const;
};

enum Column : size_t {
  kGrant,
  kBadGrant,
  kRefuse,
  kCancel,
  kReady,
  kReadyLast,
  kBadReady,
  kFetch,
  kLand,
  kBadLand,
  kHeartbeat,
  kOnCancel,
  kPeerDown,
  kTickEarly,
  kTickLate,
  kColumns
};

void Walked::CheckStep(char before, size_t column) const {
  // Done exactly when its finish came, and that once.
  EXPECT_EQ(driven.finishes.size(), state() == 'X' ? 1u : 0u);
  if (state() != 'X') return;
  // Nothing more is written, and nothing follows.
  TargetMachine machine = driven.machine;
  EXPECT_FALSE(machine.NextRun(1).has_value());
  for (const Landing& landing : in_flight) {
    EXPECT_FALSE(machine.InFlight(landing.run).has_value());
  }
  if (before == 'X') {
    EXPECT_EQ(actions(), actions_before);
    return;
  }
  EXPECT_EQ(driven.finishes[0].granted, before == 'P' || column == kBadGrant);
  // The source is told, unless it is the one that is gone.
  EXPECT_EQ(driven.Sent<ReleaseMessage>().size(), column == kPeerDown ? 0u : 1u);
}

std::vector<Input<Walked>> TargetInputs() {
  std::vector<Input<Walked>> inputs;
  const auto add = [&inputs](size_t column, auto apply) {
    inputs.push_back({column, [apply](Walked& walked) {
                        walked.actions_before = walked.actions();
                        walked.now += milliseconds(10);
                        if (!apply(walked, walked.driven.machine)) return false;
                        walked.driven.Collect();
                        return true;
                      }});
  };
  const auto always = [&add](size_t column, auto apply) {
    add(column, [apply](Walked& walked, TargetMachine& machine) {
      apply(walked, machine);
      return true;
    });
  };
  const auto grant = [&always](Column column, int32_t first, std::vector<int32_t> blocks) {
    always(column, [=](Walked& walked, TargetMachine& machine) {
      machine.Grant(first, blocks, walked.now);
    });
  };
  grant(kGrant, 1, {7, 8, 3, 4});
  grant(kGrant, 0, {9, 7, 8, 3, 4});
  grant(kBadGrant, 2, {1, 2});
  grant(kBadGrant, -1, {});
  grant(kBadGrant, 6, {});
  for (const absl::Status& why : {absl::OkStatus(), absl::ResourceExhaustedError("full")}) {
    always(kRefuse, [=](Walked&, TargetMachine& machine) { machine.Refuse(why); });
  }
  always(kCancel,
         [](Walked&, TargetMachine& machine) { machine.Cancel(absl::CancelledError("enough")); });
  ReadyMessage strange = Ready(1, 1);
  strange.pieces[0].source_piece = 200;
  const std::vector<std::pair<Column, ReadyMessage>> readies = {{kReady, Ready(1, 1)},
                                                                {kReady, Ready(1, 4)},
                                                                {kReady, Ready(5, 0)},
                                                                {kReadyLast, Ready(5, 0, true)},
                                                                {kReadyLast, Ready(3, 2, true)},
                                                                {kReadyLast, Ready(1, 4, true)},
                                                                {kReady, ReadyPieces({3, 8})},
                                                                {kBadReady, Ready(4, 2)},
                                                                {kBadReady, strange}};
  for (const auto& [column, ready] : readies) {
    always(column, [ready = ready](Walked& walked, TargetMachine& machine) {
      machine.OnReady(ready, walked.now);
    });
  }
  for (const int32_t most : {1, 100}) {
    add(kFetch, [=](Walked& walked, TargetMachine& machine) {
      const auto landing = machine.NextRun(most);
      if (landing.has_value()) walked.in_flight.push_back(*landing);
      return landing.has_value();
    });
  }
  for (const Column column : {kLand, kBadLand}) {
    add(column, [=](Walked& walked, TargetMachine& machine) {
      if (walked.in_flight.empty() || !machine.InFlight(walked.in_flight.back().run)) return false;
      const Landing landing = walked.in_flight.back();
      walked.in_flight.pop_back();
      if (column == kLand) {
        walked.driven.Land(landing, walked.now);
      } else {
        const std::vector<uint64_t> wrong(static_cast<size_t>(landing.run.count));
        machine.OnLanded(landing.run, wrong, walked.now);
      }
      return true;
    });
  }
  for (const SourceHeartbeat beat : {SourceHeartbeat{0, false}, SourceHeartbeat{8, true}}) {
    always(kHeartbeat, [=](Walked& walked, TargetMachine& machine) {
      machine.OnSourceHeartbeat(beat, walked.now);
    });
  }
  always(kOnCancel, [](Walked&, TargetMachine& machine) {
    machine.OnCancel({absl::AbortedError("client left")});
  });
  always(kPeerDown, [](Walked&, TargetMachine& machine) {
    machine.OnPeerDown(absl::UnavailableError("gone"));
  });
  always(kTickEarly, [](Walked& walked, TargetMachine& machine) { machine.OnTick(walked.now); });
  always(kTickLate, [](Walked& walked, TargetMachine& machine) {
    walked.now += kOfferTimeout;
    machine.OnTick(walked.now);
  });
  return inputs;
}

TEST(TargetMachineTest, FollowsTheTableOfTransitions) {
  // Letters: Offered, Pulling, X for done.
  const std::vector<TableRow<kColumns>> table = {
      // Grant BadGr Refuse Cancel Ready Last BadRd Fetch Land BadLand Beat OnCancel Down Early Late
      {'O', {"P", "X", "X", "X", "O", "O", "O", "", "", "", "O", "X", "X", "O", "X"}},
      {'P', {"P", "P", "P", "X", "P", "PX", "X", "P", "PX", "X", "P", "X", "X", "P", "X"}},
      {'X', {"X", "X", "X", "X", "X", "X", "X", "", "", "", "X", "X", "X", "X", "X"}},
  };
  TransitionWalk<Walked, kColumns> walk(table, TargetInputs());
  for (int beginning = 0; beginning < 5; ++beginning) {
    SCOPED_TRACE(testing::Message() << "beginning " << beginning);
    Walked walked;
    // Just offered; granted; with runs to fetch; with the last one in flight; with all blocks here,
    // but no commit.
    if (beginning > 0) walked.driven.Grant();
    if (beginning > 1) walked.driven.machine.OnReady(Ready(1, 4), kStart);
    if (beginning == 3) {
      walked.driven.Land(*walked.driven.machine.NextRun(100), kStart);
      walked.in_flight.push_back(*walked.driven.machine.NextRun(100));
    }
    if (beginning == 4) walked.driven.LandAll();
    walked.driven.Collect();
    walked.driven.messages.clear();
    walk.From(walked, 3);
  }
  walk.CheckEverythingSeen();
}

// ---- what it fetches ----

TEST(TargetMachineTest, MergesBlocksThatLieTogetherOnBothSides) {
  Driven driven;
  driven.Grant();
  driven.machine.OnReady(Ready(1, 4), kStart);
  const auto first = driven.machine.NextRun(100);  // 7, 8 here; then comes 3
  ASSERT_TRUE(first.has_value());
  EXPECT_EQ(first->run, (PieceRun{2, 4}));
  EXPECT_EQ(first->source_piece, 102);
  EXPECT_EQ(first->target_piece, 14);
  const auto second = driven.machine.NextRun(1);
  EXPECT_EQ(second->run, (PieceRun{6, 1}));
  EXPECT_EQ(second->target_piece, 6);
  EXPECT_EQ(driven.machine.NextRun(100)->run, (PieceRun{7, 3}));
  EXPECT_FALSE(driven.machine.NextRun(100).has_value());
}

TEST(TargetMachineTest, DoesNotMergeAcrossAGapAtTheSource) {
  Driven driven;
  driven.Grant();
  ReadyMessage ready = Ready(1, 2);
  ready.pieces[2].source_piece = 198;
  ready.pieces[3].source_piece = 199;
  driven.machine.OnReady(ready, kStart);
  EXPECT_EQ(driven.machine.NextRun(100)->run, (PieceRun{2, 2}));
  EXPECT_EQ(driven.machine.NextRun(100)->source_piece, 198);
}

// The lower layers come first, those of two blocks that lie together; the upper ones later.
TEST(TargetMachineTest, TakesSlicesAsTheyComeAndNeedsAllOfThem) {
  Driven driven;
  driven.Grant();
  driven.machine.OnReady(ReadyPieces({2, 4, 6, 8}), kStart);
  for (const int32_t index : {2, 4, 6, 8}) {
    const auto landing = driven.machine.NextRun(100);
    ASSERT_TRUE(landing.has_value());
    EXPECT_EQ(landing->run, (PieceRun{index, 1}));
    driven.Land(*landing, kStart);
  }
  EXPECT_FALSE(driven.machine.NextRun(100).has_value());
  driven.machine.OnReady(ReadyPieces({3, 5, 7}, true), kStart);
  driven.LandAll();
  EXPECT_EQ(driven.machine.pieces_landed(), 7);
  EXPECT_EQ(driven.machine.state(), State::kPulling) << "the last block has only its lower layers";
  driven.machine.OnReady(ReadyPieces({9}), kStart);
  driven.LandAll();
  driven.Collect();
  EXPECT_TRUE(driven.finishes.at(0).status.ok());
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
  EXPECT_EQ(driven.machine.pieces_landed(), 8);
  EXPECT_EQ(driven.machine.committed_at(), kStart + seconds(1));
  EXPECT_EQ(driven.machine.last_landed_at(), kStart + seconds(4));
}

TEST(TargetMachineTest, CountsTheTimeInWhichSomethingAnnouncedIsNotHere) {
  Driven driven;
  driven.Grant();
  driven.machine.OnReady(Ready(1, 1), kStart + milliseconds(100));
  driven.LandAll(kStart + milliseconds(103));
  EXPECT_EQ(driven.machine.moving(), milliseconds(3)) << "not while nothing was announced";
  driven.machine.OnReady(Ready(2, 1), kStart + milliseconds(200));
  driven.machine.OnReady(Ready(3, 2, true), kStart + milliseconds(204));
  driven.LandAll(kStart + milliseconds(210));
  EXPECT_EQ(driven.machine.moving(), milliseconds(13)) << "what overlaps counts once";
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
  driven.machine.OnLanded(run->run, std::vector<uint64_t>{1'102, 1'103, 1'104, 666}, kStart);
  driven.Collect();
  ASSERT_EQ(driven.finishes.size(), 1u);
  EXPECT_EQ(driven.finishes[0].status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(driven.finishes[0].status.ToString(), HasSubstr("slice 1 of block 2 of 5"));
  EXPECT_FALSE(driven.machine.InFlight(other->run).has_value());
}

TEST(TargetMachineTest, DataIsPlacedOnlyForARunInFlight) {
  Driven driven;
  driven.Grant();
  driven.machine.OnReady(Ready(1, 4), kStart);
  EXPECT_FALSE(driven.machine.InFlight({2, 4}).has_value());
  const auto run = driven.machine.NextRun(100);
  EXPECT_EQ(driven.machine.InFlight({2, 4})->target_piece, 14);
  EXPECT_FALSE(driven.machine.InFlight({2, 2}).has_value());
  EXPECT_FALSE(driven.machine.InFlight({6, 1}).has_value());
  driven.Land(*run, kStart);
  EXPECT_FALSE(driven.machine.InFlight({2, 4}).has_value()) << "a second copy";
}

TEST(TargetMachineTest, BlocksThatTheSourceCannotHaveEndIt) {
  Driven driven;
  driven.Grant();
  ReadyMessage ready = Ready(1, 1);
  ready.pieces[0].source_piece = 200;
  driven.machine.OnReady(ready, kStart);
  driven.Collect();
  EXPECT_THAT(driven.finishes.at(0).status.ToString(),
              HasSubstr("block 100 of its slab, which has 100"));
}

TEST(TargetMachineTest, PiecesThatWereNotAskedForEndIt) {
  for (const int32_t index : {0, 1, 10, kMaxPiecesPerTransfer - 1}) {
    Driven driven;
    driven.Grant();
    driven.machine.OnReady(ReadyPieces({2, index}), kStart);
    driven.Collect();
    EXPECT_THAT(driven.finishes.at(0).status.ToString(), HasSubstr("wanted are [2, 10)")) << index;
  }
}

// ---- time ----

TEST(TargetMachineTest, SilenceEndsItAndHeartbeatsOfAnIdleSourceDoNot) {
  Driven driven;
  driven.Grant();
  TimePoint now = kStart;
  for (int i = 0; i < 5; ++i) {
    now += kReadyTimeout - seconds(1);
    driven.machine.OnSourceHeartbeat({0, false}, now);
    driven.machine.OnTick(now);
  }
  EXPECT_EQ(driven.machine.state(), State::kPulling);
  driven.machine.OnTick(now + kReadyTimeout);
  driven.Collect();
  EXPECT_EQ(driven.finishes.at(0).status.code(), absl::StatusCode::kDeadlineExceeded);
}

TEST(TargetMachineTest, HeartbeatsDoNotHideALostMessage) {
  // The source has announced a block, or committed, and that never came.
  for (const SourceHeartbeat heartbeat : {SourceHeartbeat{2, false}, SourceHeartbeat{0, true}}) {
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
    driven.machine.OnSourceHeartbeat({8, false}, now);
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
