#include "router/room.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

using worker_link::Role;

WorkerSnapshot Prefill(int32_t requests, int64_t tokens, double tokens_per_s = 0) {
  WorkerSnapshot load;
  load.role = Role::kPrefill;
  load.requests = requests;
  load.prompt_tokens_queued = tokens;
  load.prefill_tokens_per_s = tokens_per_s;
  return load;
}

WorkerSnapshot Decode(int32_t requests, int64_t blocks_available = 1000) {
  WorkerSnapshot load;
  load.role = Role::kDecode;
  load.requests = requests;
  load.max_sequences = 64;
  load.blocks_available = blocks_available;
  load.blocks_total = 1000;
  return load;
}

bool Room(std::initializer_list<WorkerSnapshot> workers) {
  FleetRoom fleet;
  for (const WorkerSnapshot& worker : workers) fleet.Add(worker);
  return fleet.room();
}

TEST(RoomTest, APrefillWorkerTakesHalfASecondsWork) {
  EXPECT_TRUE(HasRoom(Prefill(0, 0)));
  EXPECT_TRUE(HasRoom(Prefill(1, 100'000)));
  EXPECT_FALSE(HasRoom(Prefill(2, 100'000)));
  EXPECT_TRUE(HasRoom(Prefill(20, kPrefillTokens - 1)));
  EXPECT_FALSE(HasRoom(Prefill(20, kPrefillTokens)));
  EXPECT_TRUE(HasRoom(Prefill(20, 20'000, 50'000)));
  EXPECT_FALSE(HasRoom(Prefill(20, 25'000, 50'000)));
}

TEST(RoomTest, ADecodeWorkerTakesAFullStepAndSomeMore) {
  EXPECT_TRUE(HasRoom(Decode(79)));
  EXPECT_FALSE(HasRoom(Decode(80)));
  WorkerSnapshot untold = Decode(10'000);
  untold.max_sequences = 0;
  EXPECT_TRUE(HasRoom(untold));
}

TEST(RoomTest, ADecodeWorkerWithoutBlocksTakesNothingUnlessItIsIdle) {
  EXPECT_FALSE(HasRoom(Decode(5, 62)));
  EXPECT_TRUE(HasRoom(Decode(5, 63)));
  EXPECT_TRUE(HasRoom(Decode(0, 0)));
}

TEST(RoomTest, TheFleetNeedsRoomOfBothKinds) {
  EXPECT_TRUE(Room({Prefill(9, 9999), Prefill(0, 0), Decode(200), Decode(3)}));
  EXPECT_FALSE(Room({Prefill(9, 9999), Decode(3)}));
  EXPECT_FALSE(Room({Prefill(0, 0), Decode(200)}));
  EXPECT_TRUE(Room({Decode(3)}));  // it prefills itself
  EXPECT_FALSE(Room({Decode(200)}));
  EXPECT_TRUE(Room({}));  // placement says what is missing
  EXPECT_TRUE(Room({Prefill(9, 9999)}));
}

TEST(RoomTest, LooksNoFurtherThanNeeded) {
  FleetRoom fleet;
  fleet.Add(Decode(0));
  EXPECT_FALSE(fleet.decided());
  fleet.Add(Prefill(0, 0));
  EXPECT_TRUE(fleet.decided());
}

}  // namespace
}  // namespace baton::router
