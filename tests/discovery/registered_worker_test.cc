#include "discovery/registered_worker.h"

#include <gtest/gtest.h>

#include "tests/discovery/discovery_testing.h"

namespace baton::discovery {
namespace {

TEST(RegisteredWorkerTest, GoesThroughJsonUnchanged) {
  RegisteredWorker worker = WorkerAt(7001, "d \"0\"\n");
  worker.draining = true;
  const auto back = FromJson(ToJson(worker));
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(*back, worker);
  EXPECT_EQ(KeyOf("/baton/", worker.address), "/baton/workers/127.0.0.1:7001");
}

TEST(RegisteredWorkerTest, NeedsOnlyAnAddress) {
  const auto worker = FromJson(R"({"address":"a:1","role":7,"later":{"x":[]},"draining":"yes"})");
  ASSERT_TRUE(worker.ok()) << worker.status();
  EXPECT_EQ(worker->address, "a:1");
  EXPECT_EQ(worker->role, "");
  EXPECT_FALSE(worker->draining);
}

TEST(RegisteredWorkerTest, RefusesWhatRoutersShallNotDial) {
  for (const char* const unsound : {"", "[]", "{", "{}", R"({"address":1})", R"({"address":"a"})",
                                    R"({"address":"unix:/run/x"})", R"({"address":"a:1"} more)"}) {
    EXPECT_FALSE(FromJson(unsound).ok()) << unsound;
  }
  EXPECT_FALSE(FromJson(R"({"address":"a:1","x":")" + std::string(20'000, 'x') + "\"}").ok());
  EXPECT_FALSE(FromJson(std::string(10'000, '[')).ok());
}

}  // namespace
}  // namespace baton::discovery
