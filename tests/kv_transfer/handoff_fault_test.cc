// Handoffs between services whose transport loses, repeats and damages things. Whatever happens:
// each side ends once, both end idle, and nobody believes wrong bytes.

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {
namespace {

using ::testing::AnyOf;
using ::testing::Eq;
using ::testing::HasSubstr;

constexpr int32_t kBlocks = 6;
constexpr std::array kTypeNames = {"Offer",           "Grant",           "Ready",   "Pull",
                                   "SourceHeartbeat", "TargetHeartbeat", "Release", "Cancel"};
enum Type : size_t { kOffer, kGrant, kReady, kPull, kSourceBeat, kTargetBeat, kRelease, kCancel };

struct Outcome {
  std::optional<TargetDone> target;  // empty: the offer never came
  std::optional<SourceDone> source;
};

void WaitUntilIdle(const Worker& worker) {
  const TimePoint give_up = SystemClock().Now() + kPatience;
  while (worker.service->active_transfers() > 0 && SystemClock().Now() < give_up) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  EXPECT_EQ(worker.service->active_transfers(), 0u);
}

// One whole transfer; says how it ended, after both sides are idle.
Outcome Transfer(Worker& source, Worker& target, const Attempt& attempt) {
  std::vector<int32_t> blocks;
  for (int32_t i = 0; i < kBlocks; ++i) blocks.push_back(2 * i);
  source.FillAll(blocks, attempt.request.low);
  Outcome outcome;
  const absl::Status offered = source.service->Offer(MakeOffer(source.options, attempt, kBlocks),
                                                     target.service->address(), blocks);
  EXPECT_TRUE(offered.ok()) << offered;
  const Duration longer_than_the_offer = source.options.offer_timeout * 4;
  if (target.events.Take<OfferArrived>(attempt, longer_than_the_offer).has_value()) {
    target.service->Grant(attempt, 0, blocks);
    source.service->BlocksReady(attempt, kBlocks / 2);
    source.service->Commit(attempt, "the first token");
    outcome.target = target.events.Take<TargetDone>(attempt);
    EXPECT_TRUE(outcome.target.has_value());
    if (outcome.target.has_value() && outcome.target->status.ok()) {
      EXPECT_EQ(outcome.target->commit_payload, "the first token");
      for (int32_t i = 0; i < kBlocks; ++i) {
        EXPECT_TRUE(target.Holds(blocks[static_cast<size_t>(i)], attempt.request.low, i));
      }
    }
  }
  outcome.source = source.events.Take<SourceDone>(attempt);
  EXPECT_TRUE(outcome.source.has_value());
  WaitUntilIdle(source);
  WaitUntilIdle(target);
  EXPECT_EQ(source.events.size(), 0u);
  EXPECT_EQ(target.events.size(), 0u);
  return outcome;
}

class HandoffFaultTest : public testing::TestWithParam<bool> {
 protected:
  // The transfer of blocks is by pull; else the source's slab is mapped.
  static bool Pulled() { return GetParam(); }
  static Faults With(std::function<int(std::string&)> on_send) {
    return FaultsOf(std::move(on_send), Pulled());
  }
  static Faults None() { return {.refuse_mapping = Pulled()}; }
};

INSTANTIATE_TEST_SUITE_P(Ways, HandoffFaultTest, testing::Bool(), [](const auto& tested) {
  return std::string(tested.param ? "Pulled" : "Mapped");
});

TEST_P(HandoffFaultTest, ALostMessageOfAnyKindEndsTheTransferOnBothSides) {
  for (size_t type = kOffer; type <= kRelease; ++type) {
    SCOPED_TRACE(kTypeNames[type]);
    const auto lose = [type](std::string& message) { return TypeOf(message) == type ? 0 : 1; };
    auto source = StartFaultyWorker(HastyOptions(Pulled()), "prefill-0", With(lose));
    auto target = StartFaultyWorker(HastyOptions(Pulled()), "decode-0", With(lose));
    const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
    ASSERT_TRUE(outcome.source.has_value());
    EXPECT_EQ(outcome.target.has_value(), type != kOffer);
    const bool matters = type != kSourceBeat && type != kTargetBeat && (type != kPull || Pulled());
    EXPECT_EQ(outcome.source->status.ok(), !matters) << outcome.source->status;
    if (type == kRelease) {
      // The target has everything; only the source cannot know.
      EXPECT_TRUE(outcome.target->status.ok()) << outcome.target->status;
      EXPECT_EQ(outcome.source->status.code(), absl::StatusCode::kDeadlineExceeded);
    } else if (outcome.target.has_value()) {
      EXPECT_EQ(outcome.target->status.ok(), !matters) << outcome.target->status;
    }
  }
}

TEST_P(HandoffFaultTest, ADamagedMessageOfAnyKindIsDropped) {
  for (size_t type = kOffer; type <= kRelease; ++type) {
    SCOPED_TRACE(kTypeNames[type]);
    const auto damage = [type](std::string& message) {
      if (TypeOf(message) == type) message[message.size() / 2] ^= 0x10;
      return 1;
    };
    auto source = StartFaultyWorker(HastyOptions(Pulled()), "prefill-0", With(damage));
    auto target = StartFaultyWorker(HastyOptions(Pulled()), "decode-0", With(damage));
    const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
    EXPECT_EQ(outcome.target.has_value(), type != kOffer);
  }
}

TEST_P(HandoffFaultTest, RepeatedMessagesChangeNothing) {
  const auto repeat = [](std::string&) { return 3; };
  auto source = StartFaultyWorker(HastyOptions(false), "prefill-0", FaultsOf(repeat));
  auto target = StartFaultyWorker(HastyOptions(false), "decode-0", FaultsOf(repeat));
  const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
  EXPECT_TRUE(outcome.target->status.ok()) << outcome.target->status;
  EXPECT_TRUE(outcome.source->status.ok()) << outcome.source->status;
}

TEST(HandoffFaultTest, ASourceSendsNoBlockTwice) {
  const auto repeat_pull = [](std::string& message) { return TypeOf(message) == kPull ? 2 : 1; };
  auto source = StartFaultyWorker(HastyOptions(true), "prefill-0", {.refuse_mapping = true});
  auto target = StartFaultyWorker(HastyOptions(true), "decode-0",
                                  FaultsOf(repeat_pull, /*refuse_mapping=*/true));
  const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
  EXPECT_THAT(outcome.source->status.ToString(), HasSubstr("twice"));
}

TEST_P(HandoffFaultTest, MessagesFromAnotherIncarnationAreDropped) {
  for (const bool of_sender : {true, false}) {
    const auto change = [of_sender](std::string& message) {
      Message decoded = *Decode(std::as_bytes(std::span(message.data(), message.size())));
      if (decoded.body.index() == kReady) ++(of_sender ? decoded.sender : decoded.receiver);
      message = Encode(decoded);
      return 1;
    };
    auto source = StartFaultyWorker(HastyOptions(Pulled()), "prefill-0", With(change));
    auto target = StartFaultyWorker(HastyOptions(Pulled()), "decode-0", None());
    const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
    EXPECT_EQ(outcome.target->status.code(), absl::StatusCode::kDeadlineExceeded);
    EXPECT_FALSE(outcome.source->status.ok());
  }
}

TEST(HandoffFaultTest, DamagedPulledDataIsFoundAndTold) {
  const auto flip = [](std::string& data) { data[data.size() - 1] ^= 1; };
  auto source = StartFaultyWorker(HastyOptions(true), "prefill-0", {.refuse_mapping = true});
  auto target =
      StartFaultyWorker(HastyOptions(true), "decode-0", {.on_data = flip, .refuse_mapping = true});
  const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
  EXPECT_EQ(outcome.target->status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(outcome.target->commit_payload, "");
  EXPECT_EQ(outcome.source->status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(outcome.source->status.ToString(), HasSubstr("checksum"));
}

TEST(HandoffFaultTest, ShortPulledDataIsNotTaken) {
  auto source = StartFaultyWorker(HastyOptions(true), "prefill-0", {.refuse_mapping = true});
  auto target = StartFaultyWorker(
      HastyOptions(true), "decode-0",
      {.on_data = [](std::string& data) { data.pop_back(); }, .refuse_mapping = true});
  const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
  EXPECT_EQ(outcome.target->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_THAT(outcome.target->status.ToString(), HasSubstr("pulls unanswered"));
}

TEST(HandoffFaultTest, WrongMappedBytesAreFoundAndTold) {
  const auto garbage = [](std::span<std::byte> bytes) {
    std::fill(bytes.begin(), bytes.end(), std::byte{0xBD});
  };
  auto source = StartFaultyWorker(HastyOptions(false), "prefill-0", {});
  auto target = StartFaultyWorker(HastyOptions(false), "decode-0", {.on_read = garbage});
  const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
  EXPECT_EQ(outcome.target->status.code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(outcome.source->status.code(), absl::StatusCode::kDataLoss);
}

TEST(HandoffFaultTest, ATransportThatMustMapRefusesClearlyWhereItCannot) {
  auto source = StartFaultyWorker(HastyOptions(false), "prefill-0", {});
  auto target = StartFaultyWorker(HastyOptions(false), "decode-0", {.refuse_mapping = true});
  const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
  EXPECT_FALSE(outcome.target.has_value());
  EXPECT_EQ(outcome.source->status, absl::FailedPreconditionError("mapping is refused"));
}

TEST(HandoffFaultTest, AnOfferInSlicesThatTheTargetCannotPlaceIsRefused) {
  const auto cut = [](int32_t slices) {
    return FaultsOf([slices](std::string& message) {
      Message decoded = *Decode(std::as_bytes(std::span(message.data(), message.size())));
      if (auto* offer = std::get_if<OfferMessage>(&decoded.body)) offer->slices = slices;
      message = Encode(decoded);
      return 1;
    });
  };
  HandoffOptions other = HastyOptions(false);
  other.layout.block_tokens = 32;
  const std::vector<std::tuple<int32_t, HandoffOptions, std::string>> cases = {
      {3, HastyOptions(false), "blocks of 16384 bytes come in 3 slices"},
      {2, other, "cannot be converted"}};
  for (const auto& [slices, target_options, why] : cases) {
    auto source = StartFaultyWorker(HastyOptions(false), "prefill-0", cut(slices));
    auto target = StartFaultyWorker(target_options, "decode-0", {});
    const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
    EXPECT_FALSE(outcome.target.has_value());
    EXPECT_EQ(outcome.source->status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(outcome.source->status.ToString(), HasSubstr(why));
  }
}

TEST(HandoffFaultTest, DataThatNobodyTakesDoesNotHoldTheBlocksForEver) {
  auto source = StartFaultyWorker(HastyOptions(true), "prefill-0",
                                  {.refuse_mapping = true, .swallow_data = true});
  auto target = StartFaultyWorker(HastyOptions(true), "decode-0", {.refuse_mapping = true});
  const Outcome outcome = Transfer(*source, *target, MakeAttempt(1));
  EXPECT_EQ(outcome.target->status.code(), absl::StatusCode::kDeadlineExceeded);
  EXPECT_EQ(outcome.source->status.code(), absl::StatusCode::kDeadlineExceeded);
}

// A newer epoch of which only the cancel arrives ends the older one all the same.
TEST_P(HandoffFaultTest, ACancelledNewerEpochEndsTheOlder) {
  const auto lose_second_offer = [](std::string& message) {
    const Message decoded = *Decode(std::as_bytes(std::span(message.data(), message.size())));
    return decoded.body.index() == kOffer && decoded.attempt.epoch == 2 ? 0 : 1;
  };
  HandoffOptions patient = HastyOptions(Pulled());
  patient.lease = patient.ready_timeout = patient.offer_timeout = kPatience;
  auto source = StartFaultyWorker(patient, "prefill-0", With(lose_second_offer));
  auto target = StartFaultyWorker(patient, "decode-0", None());
  const auto offer = [&](uint32_t epoch) {
    return source->service->Offer(MakeOffer(patient, MakeAttempt(1, epoch), 1),
                                  target->service->address(), {static_cast<int32_t>(epoch)});
  };
  ASSERT_TRUE(offer(1).ok());
  ASSERT_TRUE(target->events.Take<OfferArrived>(MakeAttempt(1, 1)).has_value());
  target->service->Grant(MakeAttempt(1, 1), 0, {7});
  ASSERT_TRUE(offer(2).ok());
  source->service->CancelSource(MakeAttempt(1, 2), absl::AbortedError("no longer wanted"));
  const auto older = target->events.Take<TargetDone>(MakeAttempt(1, 1), kPatience / 4);
  ASSERT_TRUE(older.has_value());
  EXPECT_THAT(older->status.ToString(), HasSubstr("epoch 2 of this request has begun"));
  EXPECT_FALSE(source->events.Take<SourceDone>(MakeAttempt(1, 1))->status.ok());
  EXPECT_FALSE(source->events.Take<SourceDone>(MakeAttempt(1, 2))->status.ok());
  WaitUntilIdle(*source);
  WaitUntilIdle(*target);
}

// Every client leaves at once, and each side hears of it in its own order. The services go on.
TEST_P(HandoffFaultTest, ABurstOfCancelsLeavesBothSidesServing) {
  HandoffOptions options = HastyOptions(Pulled());
  options.lease = options.ready_timeout = options.offer_timeout = kPatience;
  auto source = StartFaultyWorker(options, "prefill-0", None());
  auto target = StartFaultyWorker(options, "decode-0", None());
  constexpr uint64_t kTransfers = 64;
  for (uint64_t i = 1; i <= kTransfers; ++i) {
    const auto first = static_cast<int32_t>(4 * (i - 1));
    const std::vector<int32_t> blocks = {first, first + 1, first + 2, first + 3};
    ASSERT_TRUE(
        source->service
            ->Offer(MakeOffer(options, MakeAttempt(i), 4), target->service->address(), blocks)
            .ok());
    ASSERT_TRUE(target->events.Take<OfferArrived>(MakeAttempt(i)).has_value());
    target->service->Grant(MakeAttempt(i), 0, blocks);
    source->service->BlocksReady(MakeAttempt(i), 3);
  }
  for (uint64_t i = 1; i <= kTransfers; ++i) {
    source->service->CancelSource(MakeAttempt(i), absl::AbortedError("the client left"));
    target->service->CancelTarget(MakeAttempt(kTransfers + 1 - i));
  }
  for (uint64_t i = 1; i <= kTransfers; ++i) {
    EXPECT_FALSE(source->events.Take<SourceDone>(MakeAttempt(i))->status.ok());
    EXPECT_FALSE(target->events.Take<TargetDone>(MakeAttempt(i))->status.ok());
  }
  const Outcome next = Transfer(*source, *target, MakeAttempt(kTransfers + 1));
  EXPECT_TRUE(next.target->status.ok()) << next.target->status;
  EXPECT_TRUE(next.source->status.ok()) << next.source->status;
}

// A long prefill: nothing is ready for many timeouts, but both sides live.
TEST_P(HandoffFaultTest, HeartbeatsKeepASlowTransferAlive) {
  auto source = StartFaultyWorker(HastyOptions(Pulled()), "prefill-0", None());
  auto target = StartFaultyWorker(HastyOptions(Pulled()), "decode-0", None());
  const Attempt attempt = MakeAttempt(1);
  ASSERT_TRUE(source->service
                  ->Offer(MakeOffer(source->options, attempt, 1), target->service->address(), {0})
                  .ok());
  ASSERT_TRUE(target->events.Take<OfferArrived>(attempt).has_value());
  target->service->Grant(attempt, 0, {0});
  EXPECT_FALSE(target->events.Take<TargetDone>(attempt, 4 * HastyOptions(false).lease).has_value());
  source->service->Commit(attempt, "");
  EXPECT_TRUE(target->events.Take<TargetDone>(attempt)->status.ok());
  EXPECT_TRUE(source->events.Take<SourceDone>(attempt)->status.ok());
}

// Losses, repetitions and damage at random, to many transfers at once.
TEST_P(HandoffFaultTest, ManyTransfersThroughABadNetworkAllEnd) {
  const auto seed = static_cast<uint32_t>(RandomU64());
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  const auto bad_network = [](uint32_t its_seed) {
    return [random = std::mt19937(its_seed)](std::string& message) mutable {
      const uint32_t dice = random() % 100;
      if (dice < 5) message[random() % message.size()] ^= static_cast<char>(1 + random() % 255);
      return dice < 10 ? 1 : dice < 15 ? 0 : dice < 20 ? 2 : 1;
    };
  };
  auto source = StartFaultyWorker(HastyOptions(Pulled()), "prefill-0", With(bad_network(seed)));
  auto target = StartFaultyWorker(HastyOptions(Pulled()), "decode-0", With(bad_network(seed + 1)));
  constexpr uint64_t kTransfers = 100;
  source->FillAll({0, 1, 2, 3}, 5);
  for (uint64_t i = 0; i < kTransfers; ++i) {
    ASSERT_TRUE(source->service
                    ->Offer(MakeOffer(source->options, MakeAttempt(i), 4),
                            target->service->address(), {0, 1, 2, 3})
                    .ok());
    source->service->Commit(MakeAttempt(i), "");
  }
  std::vector<bool> granted(kTransfers);
  const TimePoint all_are_here = SystemClock().Now() + HastyOptions(false).offer_timeout / 2;
  for (uint64_t i = 0; i < kTransfers; ++i) {
    const Duration left = std::max(Duration{}, all_are_here - SystemClock().Now());
    if (!target->events.Take<OfferArrived>(MakeAttempt(i), left).has_value()) continue;
    const auto first = static_cast<int32_t>(4 * (i % 64));
    target->service->Grant(MakeAttempt(i), 0, {first, first + 2, first + 1, first + 3});
    granted[i] = true;
  }
  uint64_t succeeded = 0;
  for (uint64_t i = 0; i < kTransfers; ++i) {
    if (granted[i]) {
      const auto done = target->events.Take<TargetDone>(MakeAttempt(i));
      ASSERT_TRUE(done.has_value());
      if (done->status.ok()) {
        ++succeeded;
        EXPECT_TRUE(target->Holds(static_cast<int32_t>(4 * (i % 64)) + 2, 5, 1));
      }
    }
    ASSERT_TRUE(source->events.Take<SourceDone>(MakeAttempt(i)).has_value());
  }
  WaitUntilIdle(*source);
  WaitUntilIdle(*target);
  EXPECT_GT(succeeded, 0u);
}

}  // namespace
}  // namespace baton::kv_transfer
