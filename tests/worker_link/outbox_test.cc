#include "worker_link/outbox.h"

#include <gtest/gtest.h>

namespace baton::worker_link {
namespace {

Event TokenAt(int32_t position) {
  TokensEvent event;
  event.tokens.push_back({.token = 1, .position = position});
  return event;
}

TEST(Outbox, WhatWaitsTravelsTogetherAndStatusComesAfterIt) {
  Outbox outbox;
  v1::WorkerMessage message;
  EXPECT_FALSE(outbox.Take(&message));
  outbox.PushStatus({.running = 1});
  EXPECT_TRUE(outbox.PushEvents({TokenAt(0)}));
  EXPECT_TRUE(outbox.PushEvents({TokenAt(1), TokenAt(2)}));
  outbox.PushStatus({.running = 2});

  ASSERT_TRUE(outbox.Take(&message));
  ASSERT_EQ(message.events().tokens_size(), 3);
  EXPECT_EQ(message.events().tokens(2).first_position(), 2);
  EXPECT_EQ(outbox.waiting_bytes(), 0u);
  ASSERT_TRUE(outbox.Take(&message));
  EXPECT_EQ(message.status().running(), 2) << "only the newest status is sent";
  EXPECT_FALSE(outbox.Take(&message));
}

TEST(Outbox, LongQueuesAreCutIntoMessagesThatThePeerTakes) {
  Outbox outbox;
  TokensEvent step;
  for (int i = 0; i < 10'000; ++i) step.tokens.push_back({.token = 40'000, .position = i});
  int32_t pushed = 0;
  while (outbox.waiting_bytes() < size_t{8} << 20) {
    ASSERT_TRUE(outbox.PushEvents({step}));
    ++pushed;
  }
  v1::WorkerMessage message;
  int32_t taken = 0;
  int32_t messages = 0;
  while (outbox.Take(&message)) {
    EXPECT_LE(message.ByteSizeLong(), size_t{2} << 20);
    taken += message.events().tokens_size();
    ++messages;
  }
  EXPECT_EQ(taken, pushed);
  EXPECT_LT(messages, pushed);
  EXPECT_EQ(outbox.waiting_bytes(), 0u);
}

TEST(Outbox, SaysWhenTooMuchWaits) {
  Outbox outbox;
  TokensEvent step;
  for (int i = 0; i < 100'000; ++i) step.tokens.push_back({.token = 40'000, .position = i});
  bool room = true;
  for (int i = 0; i < 10'000 && room; ++i) room = outbox.PushEvents({step});
  EXPECT_FALSE(room);
  EXPECT_GT(outbox.waiting_bytes(), kMaxWaitingBytes);
}

}  // namespace
}  // namespace baton::worker_link
