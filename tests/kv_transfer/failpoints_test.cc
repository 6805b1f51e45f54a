// That every failpoint of the handoff is where its name says. What becomes of workers that die or
// stop there is in tests/e2e/faults_test.py.

#include "kv_transfer/failpoints.h"

#include <gtest/gtest.h>

#include <chrono>
#include <set>
#include <thread>

#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {
namespace {

constexpr int32_t kBlocks = 4;
constexpr Duration kHasty = std::chrono::milliseconds(150);

struct Ends {
  bool offered = false;  // the offer came
  absl::Status target, source;
};

// A transfer of pulled blocks, which has every step: one Ready, then the commit.
Ends Transfer(Worker& source, Worker& target, uint64_t number) {
  const Attempt attempt = MakeAttempt(number);
  const std::vector<int32_t> blocks = {1, 3, 5, 7};
  source.FillAll(blocks, number);
  Ends ends;
  EXPECT_TRUE(
      source.service
          ->Offer(MakeOffer(source.options, attempt, kBlocks), target.service->address(), blocks)
          .ok());
  source.service->BlocksReady(attempt, kBlocks / 2);
  ends.offered =
      target.events.Take<OfferArrived>(attempt, 2 * source.options.offer_timeout).has_value();
  if (ends.offered) {
    target.service->Grant(attempt, 0, blocks);
    // The commit follows when the first half has been announced, not with it.
    std::this_thread::sleep_for(std::chrono::milliseconds(60));
    source.service->Commit(attempt, "first");
    ends.target = target.events.Take<TargetDone>(attempt)->status;
  }
  ends.source = source.events.Take<SourceDone>(attempt)->status;
  return ends;
}

std::unique_ptr<Worker> Start(const std::string& name, Duration timeout) {
  HandoffOptions options = SmallOptions(TransportKind::kAuto);
  options.lease = options.ready_timeout = options.offer_timeout = timeout;
  return StartFaultyWorker(options, name, {.refuse_mapping = true});
}

TEST(FailpointsTest, NamesAreDifferentAndTellTheSide) {
  std::set<std::string_view> names;
  for (const Failpoint* const point : HandoffFailpoints()) {
    EXPECT_TRUE(names.insert(point->name()).second) << point->name();
    EXPECT_TRUE(point->name().starts_with("source.") || point->name().starts_with("target."));
  }
  EXPECT_EQ(names.size(), 24u);
}

// Those that can fail lose their message: the transfer ends, and the next one is whole.
TEST(FailpointsTest, AMessageThatFailsIsLostOnce) {
  const auto source = Start("prefill-0", kHasty), target = Start("decode-0", kHasty);
  uint64_t number = 0;
  int can_fail = 0;
  for (Failpoint* const point : HandoffFailpoints()) {
    SCOPED_TRACE(point->name());
    if (!point->Arm("fail:1").ok()) continue;
    ++can_fail;
    const Ends lost = Transfer(*source, *target, ++number);
    EXPECT_EQ(lost.offered, !point->name().ends_with("_offer"));
    const bool release = point->name().ends_with("_release");
    if (lost.offered) {
      EXPECT_EQ(lost.target.ok(), release) << lost.target;
    }
    EXPECT_FALSE(lost.source.ok());
    const Ends whole = Transfer(*source, *target, ++number);
    EXPECT_TRUE(whole.target.ok()) << whole.target;
    EXPECT_TRUE(whole.source.ok()) << whole.source;
  }
  EXPECT_EQ(can_fail, 12);
}

// All others are passed on the way, too.
TEST(FailpointsTest, EveryStepIsReached) {
  for (Failpoint* const point : HandoffFailpoints()) {
    SCOPED_TRACE(point->name());
    ASSERT_TRUE(point->Arm("delay=60:1").ok());
    const auto source = Start("prefill-0", kPatience), target = Start("decode-0", kPatience);
    const TimePoint begin = SystemClock().Now();
    const Ends ends = Transfer(*source, *target, 1);
    EXPECT_TRUE(ends.source.ok()) << ends.source;
    // At the very end the delay comes behind the event, and the service ends behind it.
    target->service.reset();
    source->service.reset();
    EXPECT_GE(SystemClock().Now() - begin, std::chrono::milliseconds(60));
  }
}

}  // namespace
}  // namespace baton::kv_transfer
