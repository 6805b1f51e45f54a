// What faults at random do to whole transfers. What each kind of damage does is in
// handoff_fault_test.cc.

#include "kv_transfer/faulty_transport.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {
namespace {

using ::testing::HasSubstr;

constexpr int32_t kBlocks = 8;

Faults FaultsFrom(const std::string& text, bool refuse_mapping) {
  Faults faults = RandomFaults(*TransportFaultsFromText(text));
  faults.refuse_mapping = refuse_mapping;
  return faults;
}

struct Pair {
  explicit Pair(const std::string& faults, bool pulled)
      : source(StartFaultyWorker(HastyOptions(pulled), "prefill-0", FaultsFrom(faults, pulled))),
        target(StartFaultyWorker(HastyOptions(pulled), "decode-0", FaultsFrom(faults, pulled))) {}

  // The target's end; NotFound when the offer did not come. The source has ended, too.
  absl::Status Transfer(uint64_t number) {
    const Attempt attempt = MakeAttempt(number);
    std::vector<int32_t> blocks;
    for (int32_t i = 0; i < kBlocks; ++i) blocks.push_back(3 * i);
    source->FillAll(blocks, number);
    EXPECT_TRUE(source->service
                    ->Offer(MakeOffer(source->options, attempt, kBlocks),
                            target->service->address(), blocks)
                    .ok());
    absl::Status status = absl::NotFoundError("no offer came");
    if (target->events.Take<OfferArrived>(attempt, 2 * source->options.offer_timeout).has_value()) {
      target->service->Grant(attempt, 0, blocks);
      source->service->Commit(attempt, "first");
      status = target->events.Take<TargetDone>(attempt)->status;
      for (int32_t i = 0; i < kBlocks && status.ok(); ++i) {
        EXPECT_TRUE(target->Holds(blocks[static_cast<size_t>(i)], number, i)) << number;
      }
    }
    source_status = source->events.Take<SourceDone>(attempt)->status;
    return status;
  }

  std::unique_ptr<Worker> source, target;
  absl::Status source_status;
};

class FaultyTransportTest : public testing::TestWithParam<bool> {};

INSTANTIATE_TEST_SUITE_P(Ways, FaultyTransportTest, testing::Bool(), [](const auto& tested) {
  return std::string(tested.param ? "Pulled" : "Mapped");
});

TEST_P(FaultyTransportTest, WhatIsForgedReplayedDelayedOrStalledChangesNothing) {
  // A replayed Pull asks for a block twice, which the source refuses.
  const std::string replay = GetParam() ? "" : "replay=0.5,";
  Pair pair(replay + "forge=1,delay-ms=2,stall=0.2,stall-ms=10,seed=11", GetParam());
  for (uint64_t i = 1; i <= 10; ++i) {
    const absl::Status status = pair.Transfer(i);
    EXPECT_TRUE(status.ok()) << status;
    EXPECT_TRUE(pair.source_status.ok()) << pair.source_status;
  }
}

TEST_P(FaultyTransportTest, ADelayIsWaitedFor) {
  Pair pair("delay-ms=20", GetParam());
  const TimePoint begin = SystemClock().Now();
  EXPECT_TRUE(pair.Transfer(1).ok());
  // Offer, Grant, Ready, Release.
  EXPECT_GE(SystemClock().Now() - begin, std::chrono::milliseconds(80));
}

TEST_P(FaultyTransportTest, FlippedBitsInDataOrMappedMemoryAreFound) {
  Pair pair("corrupt=0", GetParam());
  pair.target = StartFaultyWorker(HastyOptions(GetParam()), "decode-0", [] {
    Faults faults = FaultsFrom("corrupt=1,seed=3", GetParam());
    faults.on_send = nullptr;
    return faults;
  }());
  EXPECT_EQ(pair.Transfer(1).code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(pair.source_status.code(), absl::StatusCode::kDataLoss);
}

TEST_P(FaultyTransportTest, AClosedConnectionEndsTransfersAndTheNextOneConnectsAgain) {
  const auto closing = std::make_shared<bool>(false);
  Pair pair("corrupt=0", GetParam());
  Faults faults = FaultsOf([](std::string&) { return 1; }, GetParam());
  faults.on_send = [closing](PeerId, std::string&, std::vector<std::string>&) {
    Fate fate;
    fate.close = *closing;
    return fate;
  };
  pair.source = StartFaultyWorker(HastyOptions(GetParam()), "prefill-0", faults);
  ASSERT_TRUE(pair.Transfer(1).ok());
  *closing = true;
  EXPECT_EQ(pair.Transfer(2).code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(pair.source_status.ToString(), HasSubstr("connection lost"));
  *closing = false;
  EXPECT_TRUE(pair.Transfer(3).ok());
}

TEST_P(FaultyTransportTest, WhateverHappensEveryTransferEnds) {
  const uint64_t seed = RandomU64();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  const std::string faults =
      "drop=0.03,duplicate=0.03,corrupt=0.02,truncate=0.02,replay=0.05,forge=0.1,close=0.02,"
      "stall=0.03,stall-ms=30,delay-ms=1,seed=" +
      std::to_string(seed);
  Pair pair(faults, GetParam());
  // Some seeds let twenty transfers through, or none.
  constexpr int kLeast = 20;
  constexpr int kMost = 500;
  int good = 0;
  int all = 0;
  while (all < kLeast || ((good == 0 || good == all) && all < kMost)) {
    good += pair.Transfer(static_cast<uint64_t>(++all)).ok() ? 1 : 0;
  }
  EXPECT_GT(good, 0);
  EXPECT_LT(good, all);
}

}  // namespace
}  // namespace baton::kv_transfer
