#include "kv_transfer/source_machine.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "tests/kv_transfer/transition_table.h"

namespace baton::kv_transfer {
namespace {

using std::chrono::seconds;
using ::testing::HasSubstr;

constexpr TimePoint kStart = TimePoint(seconds(1'000));
constexpr Duration kLease = seconds(5), kOfferTimeout = seconds(30);

// Four blocks in two slices each: pieces 0 to 7 of the offer, 20 to 23 and 40 to 43 of the slab.
SourceMachine::Config Config() {
  return {.offer = {.tokens = 60,
                    .block_count = 4,
                    .slices = 2,
                    .lease_ms = 5'000,
                    .block_hashes = {},
                    .source_name = "prefill-0",
                    .source_address = ""},
          .blocks = {10, 11, 20, 21},
          .lease = kLease,
          .offer_timeout = kOfferTimeout};
}

// A machine with what it has asked for, by kind.
struct Driven {
  SourceMachine machine{Config(), kStart};
  std::vector<MessageBody> messages;
  std::vector<SendRun> runs;
  std::vector<Finish> finishes;

  void Collect() {
    for (SourceAction& action : machine.TakeActions()) {
      if (auto* send = std::get_if<SendMessage>(&action)) messages.push_back(send->body);
      if (auto* run = std::get_if<SendRun>(&action)) runs.push_back(*run);
      if (auto* finish = std::get_if<Finish>(&action)) finishes.push_back(*finish);
    }
  }
  // The next, at most so many; each piece's checksum is 100 and its index.
  void Hash(size_t most, TimePoint now) {
    std::vector<uint64_t> checksums;
    for (const int32_t index : machine.ToHash()) {
      if (checksums.size() < most) checksums.push_back(100u + static_cast<uint64_t>(index));
    }
    machine.Hashed(checksums, now);
  }
  void HashAll(TimePoint now) {
    while (!machine.ToHash().empty()) Hash(4, now);
  }
  template <typename T>
  std::vector<T> Sent() const {
    std::vector<T> found;
    for (const MessageBody& body : messages) {
      if (const T* message = std::get_if<T>(&body)) found.push_back(*message);
    }
    return found;
  }
};

// ---- the table of legal transitions ----

// States, with what distinguishes them to events: `kCommitted` is kStreaming when everything is
// announced, `kSending` has data on its way besides.
enum From { kOffered, kStreaming, kCommitted, kSending, kCancelling, kDraining, kDone, kFroms };
using State = SourceMachine::State;

Driven MakeFrom(From from) {
  Driven driven;
  SourceMachine& machine = driven.machine;
  if (from == kOffered) return driven;
  machine.OnGrant({.first_block_wanted = 1, .heartbeat_ms = 1'000}, kStart);
  machine.BlocksReady(3);
  driven.HashAll(kStart);
  if (from == kCommitted || from == kSending || from == kDraining) {
    machine.Commit("payload", kStart);
    driven.HashAll(kStart);
  }
  if (from == kSending || from == kDraining) machine.OnPull({.runs = {{4, 4}}}, kStart);
  if (from == kDraining) machine.OnPeerDown(absl::UnavailableError("gone"), kStart);
  if (from == kCancelling) machine.Cancel(absl::AbortedError("enough"), kStart);
  if (from == kDone) machine.OnRelease({absl::InternalError("no")}, kStart);
  return driven;
}

// In the walk, time goes on with every event.
struct Walked {
  Driven driven;
  TimePoint now = kStart;
  size_t sends_ended = 0;
  size_t actions_before = 0;

  char state() const { return "OSCDX"[static_cast<size_t>(driven.machine.state())]; }
  size_t actions() const {
    return driven.messages.size() + driven.runs.size() + driven.finishes.size();
  }
  void CheckStep(char before, size_t) const {
    // Done exactly when Finish came, and that once; nothing follows it.
    EXPECT_EQ(driven.finishes.size(), state() == 'X' ? 1u : 0u);
    if (before == 'X') {
      EXPECT_EQ(actions(), actions_before);
    }
    // Blocks are let go while they are sent only when that was given up.
    if (before != 'X' && state() == 'X') {
      EXPECT_EQ(driven.finishes[0].sends_given_up, driven.runs.size() > sends_ended);
    }
  }
};

constexpr size_t kEvents = 15;

std::vector<Input<Walked>> SourceInputs() {
  std::vector<Input<Walked>> inputs;
  const auto add = [&inputs](size_t column, auto apply) {
    inputs.push_back({column, [apply](Walked& walked) {
                        walked.actions_before = walked.actions();
                        walked.now += std::chrono::milliseconds(10);
                        if (!apply(walked, walked.driven.machine)) return false;
                        walked.driven.Collect();
                        return true;
                      }});
  };
  const auto always = [&add](size_t column, auto apply) {
    add(column, [apply](Walked& walked, SourceMachine& machine) {
      apply(walked, machine);
      return true;
    });
  };
  for (const int32_t count : {-1, 0, 2, 4, 100}) {
    always(0, [=](Walked&, SourceMachine& machine) { machine.BlocksReady(count); });
    always(0, [=](Walked&, SourceMachine& machine) { machine.SlicesReady(count, 1); });
  }
  add(1, [](Walked& walked, SourceMachine& machine) {
    if (machine.ToHash().empty()) return false;
    walked.driven.Hash(4, walked.now);
    return true;
  });
  always(2, [](Walked& walked, SourceMachine& machine) { machine.Commit("T", walked.now); });
  for (const absl::Status& why : {absl::OkStatus(), absl::AbortedError("enough")}) {
    always(3, [=](Walked& walked, SourceMachine& machine) { machine.Cancel(why, walked.now); });
  }
  for (const int32_t first : {0, 2, 4, 5}) {
    always(first <= 4 ? 4 : 5, [=](Walked& walked, SourceMachine& machine) {
      machine.OnGrant({.first_block_wanted = first, .heartbeat_ms = 1'000}, walked.now);
    });
  }
  // 6: may make sense, when enough is announced; 7: makes none in whatever state.
  const std::vector<std::pair<size_t, PullMessage>> pulls = {
      {6, {}},         {6, {{{0, 1}}}}, {6, {{{4, 4}}}},        {6, {{{2, 1}, {6, 2}}}},
      {7, {{{7, 2}}}}, {7, {{{3, 2}}}}, {7, {{{4, 1}, {4, 1}}}}};
  for (const auto& [column, pull] : pulls) {
    always(column, [pull = pull](Walked& walked, SourceMachine& machine) {
      machine.OnPull(pull, walked.now);
    });
  }
  always(8, [](Walked& walked, SourceMachine& machine) { machine.OnTargetHeartbeat(walked.now); });
  always(9, [](Walked& walked, SourceMachine& machine) {
    machine.OnRelease({absl::OkStatus()}, walked.now);
  });
  always(10, [](Walked& walked, SourceMachine& machine) {
    machine.OnRelease({absl::DataLossError("bad")}, walked.now);
  });
  add(11, [](Walked& walked, SourceMachine& machine) {
    if (walked.sends_ended == walked.driven.runs.size()) return false;
    ++walked.sends_ended;
    machine.OnSent();
    return true;
  });
  always(12, [](Walked& walked, SourceMachine& machine) {
    machine.OnPeerDown(absl::UnavailableError("gone"), walked.now);
  });
  always(13, [](Walked& walked, SourceMachine& machine) { machine.OnTick(walked.now); });
  always(14, [](Walked& walked, SourceMachine& machine) {
    walked.now += kLease + kOfferTimeout;
    machine.OnTick(walked.now);
  });
  return inputs;
}

TEST(SourceMachineTest, FollowsTheTableOfTransitions) {
  // Letters: Offered, Streaming, Cancelling, Draining, X for done. A drain without anything to wait
  // for is over at once.
  const std::vector<TableRow<kEvents>> table = {
      // Ready Hash Commit Cancel Grant BadGr Pull BadPull Beat RelOk RelBad Sent Down Early Late
      {'O', {"O", "O", "O", "C", "S", "X", "O", "O", "O", "X", "X", "", "X", "O", "X"}},
      {'S', {"S", "S", "S", "C", "S", "S", "SC", "C", "S", "DX", "DX", "S", "DX", "S", "DX"}},
      {'C', {"C", "", "C", "C", "C", "C", "C", "C", "C", "DX", "DX", "C", "DX", "C", "DX"}},
      {'D', {"D", "", "D", "D", "D", "D", "D", "D", "D", "D", "D", "DX", "D", "D", "X"}},
      {'X', {"X", "", "X", "X", "X", "X", "X", "X", "X", "X", "X", "X", "X", "X", "X"}},
  };
  TransitionWalk<Walked, kEvents> walk(table, SourceInputs());
  for (int from = 0; from < kFroms; ++from) {
    SCOPED_TRACE(testing::Message() << "beginning " << from);
    Walked walked{.driven = MakeFrom(static_cast<From>(from))};
    walked.driven.Collect();
    walk.From(walked, 3);
  }
  walk.CheckEverythingSeen();
}

// ---- what it says and when ----

TEST(SourceMachineTest, OffersFirst) {
  Driven driven;
  driven.Collect();
  ASSERT_EQ(driven.messages.size(), 1u);
  EXPECT_EQ(std::get<OfferMessage>(driven.messages[0]), Config().offer);
}

// Of pieces of the offer, as Hash gives their checksums.
ReadyMessage Announced(const std::vector<int32_t>& indices, bool last = false) {
  const std::vector<int32_t> slab_pieces = {20, 21, 22, 23, 40, 41, 42, 43};
  ReadyMessage ready{.pieces = {}, .last = last, .commit_payload = last ? "token" : ""};
  for (const int32_t index : indices) {
    ready.pieces.push_back(
        {index, slab_pieces[static_cast<size_t>(index)], 100u + static_cast<uint64_t>(index)});
  }
  return ready;
}

TEST(SourceMachineTest, HashesBeforeTheGrantAndThenAnnouncesOnlyWhatIsWanted) {
  Driven driven;
  driven.machine.BlocksReady(3);
  driven.HashAll(kStart);
  driven.Collect();
  EXPECT_TRUE(driven.Sent<ReadyMessage>().empty());
  driven.machine.OnGrant({.first_block_wanted = 1, .heartbeat_ms = 500}, kStart);
  driven.machine.Commit("token", kStart);
  driven.HashAll(kStart);
  driven.Collect();
  EXPECT_EQ(driven.Sent<ReadyMessage>(),
            (std::vector{Announced({2, 3, 4, 5}), Announced({6, 7}, true)}));
}

TEST(SourceMachineTest, BlocksThatTheTargetHasNeedNoChecksum) {
  Driven driven;
  driven.machine.BlocksReady(3);
  driven.Hash(1, kStart);
  driven.machine.OnGrant({.first_block_wanted = 2, .heartbeat_ms = 500}, kStart);
  EXPECT_THAT(driven.machine.ToHash(), testing::ElementsAre(4, 5));
  driven.machine.Commit("token", kStart);
  EXPECT_THAT(driven.machine.ToHash(), testing::ElementsAre(4, 5, 6, 7));
  driven.HashAll(kStart);
  driven.Collect();
  EXPECT_EQ(driven.Sent<ReadyMessage>(), std::vector{Announced({4, 5, 6, 7}, true)});
}

TEST(SourceMachineTest, AnnouncesAtOnceAtTheGrantWhatWasCommittedBeforeIt) {
  Driven driven;
  driven.machine.Commit("token", kStart);
  driven.HashAll(kStart);
  driven.machine.OnGrant({.first_block_wanted = 2, .heartbeat_ms = 500}, kStart);
  driven.Collect();
  EXPECT_EQ(driven.Sent<ReadyMessage>(), std::vector{Announced({4, 5, 6, 7}, true)});
}

TEST(SourceMachineTest, LowerLayersGoAheadAndEachPieceOnce) {
  Driven driven;
  SourceMachine& machine = driven.machine;
  machine.OnGrant({.first_block_wanted = 0, .heartbeat_ms = 500}, kStart);
  machine.SlicesReady(2, 1);
  EXPECT_THAT(machine.ToHash(), testing::ElementsAre(0, 2));
  machine.SlicesReady(2, 1);
  machine.SlicesReady(1, 0);
  machine.SlicesReady(3, 1);  // a chunk that is begun before the one before it is whole
  machine.BlocksReady(2);
  machine.Commit("token", kStart);
  EXPECT_THAT(machine.ToHash(), testing::ElementsAre(0, 2, 4, 1, 3, 5, 6, 7));
  driven.HashAll(kStart);
  driven.Collect();
  EXPECT_EQ(driven.Sent<ReadyMessage>(),
            (std::vector{Announced({0, 2, 4, 1}), Announced({3, 5, 6, 7}, true)}));
}

TEST(SourceMachineTest, ManyPiecesAreAnnouncedInMessagesOfABoundedSize) {
  SourceMachine::Config config = Config();
  config.offer.block_count = kMaxReadyPieces;
  config.blocks.assign(static_cast<size_t>(config.offer.block_count), 0);
  Driven driven{.machine = SourceMachine(config, kStart)};
  driven.machine.Commit("token", kStart);
  driven.Hash(SIZE_MAX, kStart);
  driven.machine.OnGrant({.first_block_wanted = 0, .heartbeat_ms = 500}, kStart);
  driven.Collect();
  const auto ready = driven.Sent<ReadyMessage>();
  ASSERT_EQ(ready.size(), 2u);
  for (const size_t i : {0u, 1u}) {
    EXPECT_EQ(ready[i].pieces.size(), static_cast<size_t>(kMaxReadyPieces));
    EXPECT_EQ(ready[i].pieces[0].index, static_cast<int32_t>(i) * kMaxReadyPieces);
    EXPECT_EQ(ready[i].last, i == 1);
  }
}

TEST(SourceMachineTest, CommitsByItselfWhenTheTargetWantsNoBlock) {
  Driven driven;
  driven.machine.OnGrant({.first_block_wanted = 4, .heartbeat_ms = 500}, kStart);
  driven.machine.Commit("token", kStart);
  driven.Collect();
  EXPECT_EQ(driven.Sent<ReadyMessage>().back(), (ReadyMessage{{}, true, "token"}));
  driven.machine.OnRelease({absl::OkStatus()}, kStart);
  driven.Collect();
  EXPECT_TRUE(driven.finishes.at(0).status.ok());
}

TEST(SourceMachineTest, ReadyCountsOnlyGrow) {
  Driven driven;
  driven.machine.OnGrant({.first_block_wanted = 0, .heartbeat_ms = 500}, kStart);
  driven.machine.BlocksReady(3);
  driven.machine.BlocksReady(1);
  driven.machine.BlocksReady(-5);
  EXPECT_THAT(driven.machine.ToHash(), testing::ElementsAre(0, 1, 2, 3, 4, 5));
  driven.machine.BlocksReady(1'000);
  EXPECT_EQ(driven.machine.ToHash().size(), 8u);
}

TEST(SourceMachineTest, SendsWhatIsPulledInRunsThatLieTogether) {
  Driven driven = MakeFrom(kCommitted);
  driven.machine.OnPull({.runs = {{2, 2}, {4, 4}}}, kStart);
  driven.Collect();
  ASSERT_EQ(driven.runs.size(), 2u);
  EXPECT_EQ(driven.runs[0].source_piece, 22);
  EXPECT_EQ(driven.runs[1].source_piece, 40);
  EXPECT_EQ(driven.machine.pieces_pulled(), 6);
}

TEST(SourceMachineTest, RefusesPullsThatMakeNoSense) {
  const std::map<std::string, PullMessage> pulls = {
      {"piece 0 of 8, which was not announced", {.runs = {{0, 1}}}},  // not wanted
      {"piece 8 of 8, which was not announced", {.runs = {{7, 2}}}},
      {"piece 4 twice", {.runs = {{4, 1}, {4, 1}}}},
      {"[3, 5) as one run, which is not contiguous", {.runs = {{3, 2}}}},  // blocks 11 and 20
  };
  for (const auto& [why, pull] : pulls) {
    Driven driven = MakeFrom(kCommitted);
    driven.machine.OnPull(pull, kStart);
    driven.Collect();
    EXPECT_EQ(driven.machine.state(), State::kCancelling);
    const auto cancels = driven.Sent<CancelMessage>();
    ASSERT_EQ(cancels.size(), 1u) << why;
    EXPECT_THAT(cancels[0].why.ToString(), HasSubstr(why));
  }
}

TEST(SourceMachineTest, KeepsTheBlocksUntilItsSendsEndOrTheLeaseIsOver) {
  Driven patient = MakeFrom(kSending);
  patient.machine.OnRelease({absl::OkStatus()}, kStart);
  patient.Collect();
  EXPECT_TRUE(patient.finishes.empty());
  patient.machine.OnSent();
  patient.Collect();
  ASSERT_EQ(patient.finishes.size(), 1u);
  EXPECT_TRUE(patient.finishes[0].status.ok());
  EXPECT_FALSE(patient.finishes[0].sends_given_up);

  Driven stuck = MakeFrom(kSending);
  stuck.machine.OnRelease({absl::OkStatus()}, kStart);
  stuck.machine.OnTick(kStart + kLease - seconds(1));
  stuck.Collect();
  EXPECT_TRUE(stuck.finishes.empty());
  stuck.machine.OnTick(kStart + kLease);
  stuck.Collect();
  ASSERT_EQ(stuck.finishes.size(), 1u);
  EXPECT_TRUE(stuck.finishes[0].sends_given_up);
}

TEST(SourceMachineTest, TheLeaseIsRenewedByHeartbeatsAndPulls) {
  Driven driven = MakeFrom(kCommitted);
  TimePoint now = kStart;
  for (int i = 0; i < 10; ++i) {
    now += kLease - seconds(1);
    driven.machine.OnTick(now);
    driven.machine.OnTargetHeartbeat(now);
  }
  now += kLease - seconds(1);
  driven.machine.OnPull({.runs = {{2, 1}}}, now);
  driven.machine.OnSent();
  driven.machine.OnTick(now + kLease - seconds(1));
  EXPECT_EQ(driven.machine.state(), State::kStreaming);
  driven.machine.OnTick(now + kLease);
  driven.Collect();
  ASSERT_EQ(driven.finishes.size(), 1u);
  EXPECT_EQ(driven.finishes[0].status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(driven.finishes[0].status.ToString(), HasSubstr("5.0 s"));
}

TEST(SourceMachineTest, GivesSignsOfLifeAsOftenAsTheTargetWants) {
  Driven driven;
  driven.machine.OnGrant({.first_block_wanted = 0, .heartbeat_ms = 1'000}, kStart);
  driven.machine.BlocksReady(2);
  driven.HashAll(kStart);
  driven.machine.OnTick(kStart + std::chrono::milliseconds(999));
  driven.Collect();
  EXPECT_TRUE(driven.Sent<SourceHeartbeat>().empty());
  driven.machine.OnTick(kStart + seconds(1));
  driven.machine.OnTick(kStart + seconds(1));
  driven.Collect();
  EXPECT_EQ(driven.Sent<SourceHeartbeat>(), std::vector{(SourceHeartbeat{4, false})});
}

TEST(SourceMachineTest, AReleaseBeforeTheCommitIsNotSuccess) {
  Driven driven = MakeFrom(kStreaming);
  driven.machine.OnRelease({absl::OkStatus()}, kStart);
  driven.Collect();
  EXPECT_EQ(driven.finishes.at(0).status.code(), absl::StatusCode::kInternal);
}

TEST(SourceMachineTest, ACancelKeepsItsReasonWhateverTheTargetAnswers) {
  Driven driven = MakeFrom(kCommitted);
  driven.machine.Cancel(absl::AbortedError("client left"), kStart);
  driven.machine.OnRelease({absl::OkStatus()}, kStart);
  driven.Collect();
  EXPECT_EQ(driven.finishes.at(0).status, absl::AbortedError("client left"));
}

}  // namespace
}  // namespace baton::kv_transfer
