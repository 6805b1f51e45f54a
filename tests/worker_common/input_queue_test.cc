#include "worker_common/input_queue.h"

#include <gtest/gtest.h>

#include <thread>

namespace baton::worker_common {
namespace {

using std::chrono::seconds;
using worker_link::CancelCommand;
using worker_link::DecodeCommand;
using worker_link::LinkCommand;
using worker_link::LinkInput;
using worker_link::LinkLost;
using worker_link::NoOfferCommand;

TEST(InputQueue, BoundsRequestsAndCancelsAndTakesTheRest) {
  InputQueue queue(2);
  EXPECT_TRUE(queue.PushLink(LinkCommand{1, DecodeCommand()}));
  EXPECT_TRUE(queue.PushLink(LinkCommand{1, DecodeCommand()}));
  EXPECT_FALSE(queue.PushLink(LinkCommand{1, DecodeCommand()}));
  for (size_t i = 0; i < 2 * InputQueue::kNoticesPerRequest; ++i) {
    ASSERT_TRUE(queue.PushLink(i % 2 == 0 ? LinkCommand{1, CancelCommand()}
                                          : LinkCommand{1, NoOfferCommand()}))
        << i;
  }
  EXPECT_FALSE(queue.PushLink(LinkCommand{1, CancelCommand()}));
  EXPECT_TRUE(queue.PushLink(LinkLost{1}));
  queue.PushHandoff(kv_transfer::SourceDone());

  const std::vector<Input> inputs = queue.Take(Duration(0));
  ASSERT_EQ(inputs.size(), 2 + 2 * InputQueue::kNoticesPerRequest + 2);
  EXPECT_TRUE(std::holds_alternative<LinkCommand>(std::get<LinkInput>(inputs.front())));
  EXPECT_TRUE(std::holds_alternative<kv_transfer::HandoffEvent>(inputs.back()));
  EXPECT_TRUE(queue.Take(Duration(0)).empty());
  EXPECT_TRUE(queue.PushLink(LinkCommand{1, DecodeCommand()})) << "there is room again";
}

TEST(InputQueue, AWaitingTakeIsEndedByInputsAndByWake) {
  InputQueue queue(2);
  std::thread pusher([&] { queue.PushHandoff(kv_transfer::SourceDone()); });
  EXPECT_EQ(queue.Take(seconds(20)).size(), 1u);
  pusher.join();
  queue.Wake();
  const TimePoint begin = SystemClock().Now();
  EXPECT_TRUE(queue.Take(seconds(20)).empty());
  EXPECT_LT(SystemClock().Now() - begin, seconds(20)) << "a Wake before the Take is not lost";
}

}  // namespace
}  // namespace baton::worker_common
