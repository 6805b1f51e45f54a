#include "discovery/worker_watch.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>

#include "tests/discovery/discovery_testing.h"
#include "tests/discovery/etcd_process.h"

namespace baton::discovery {
namespace {

using testing::HasSubstr;

void Put(const EtcdProcess& etcd, int port, const std::string& name) {
  const RegisteredWorker worker = WorkerAt(port, name);
  etcd.Control(fmt::format("put {} '{}'", KeyOf("/test/", worker.address), ToJson(worker)));
}

void Delete(const EtcdProcess& etcd, int port) {
  etcd.Control(fmt::format("del /test/workers/127.0.0.1:{}", port));
}

std::vector<std::string> Found(const WorkerWatch& watch) {
  std::vector<std::string> found;
  for (const RegisteredWorker& worker : watch.Workers()) found.push_back(worker.name);
  return found;
}

struct Watched {
  std::atomic<int> changes{0};
  std::unique_ptr<WorkerWatch> watch;

  explicit Watched(const EtcdOptions& options, size_t max_workers = 100) {
    watch = WorkerWatch::Start(options, max_workers, [this] { ++changes; });
  }
  bool Sees(const std::vector<std::string>& names) {
    return Eventually([&] { return Found(*watch) == names; });
  }
};

TEST(WorkerWatchTest, ListsWhatIsThereAndFollowsWhatChanges) {
  const EtcdProcess etcd;
  Put(etcd, 1, "a");
  etcd.Control("put /tests/other x");  // not under the prefix
  etcd.Control("put /test/workers/bad '{\"address\":\"unix:/etc\"}'");
  Watched watched(etcd.options());
  EXPECT_TRUE(watched.Sees({"a"}));
  EXPECT_TRUE(Eventually([&] { return watched.watch->state().current; }));
  Put(etcd, 2, "b");
  EXPECT_TRUE(watched.Sees({"a", "b"}));
  Put(etcd, 1, "a2");
  EXPECT_TRUE(watched.Sees({"a2", "b"}));
  Delete(etcd, 1);
  EXPECT_TRUE(watched.Sees({"b"}));
  etcd.Control("put /test/workers/127.0.0.1:2 garbage");  // what was a worker is none any more
  EXPECT_TRUE(watched.Sees({}));
  EXPECT_EQ(watched.watch->lists(), 1);
  EXPECT_GE(watched.changes, 5);
}

TEST(WorkerWatchTest, ResumesBehindTheLastChangeWhenItsConnectionWasCut) {
  EtcdProcess etcd;
  Put(etcd, 1, "a");
  Put(etcd, 2, "b");
  Watched watched(etcd.options());
  ASSERT_TRUE(watched.Sees({"a", "b"}));
  testing::internal::CaptureStderr();
  etcd.Kill();
  EXPECT_TRUE(Eventually([&] { return !watched.watch->state().current; }));
  EXPECT_EQ(Found(*watched.watch), Names({"a", "b"}));  // the last known fleet
  EXPECT_GE(watched.watch->state().failures, 1);
  EXPECT_THAT(watched.watch->state().trouble, HasSubstr(etcd.endpoint()));
  etcd.Start();
  Put(etcd, 3, "c");
  Delete(etcd, 1);
  EXPECT_TRUE(watched.Sees({"b", "c"}));
  EXPECT_TRUE(Eventually([&] { return watched.watch->state().current; }));
  EXPECT_EQ(watched.watch->lists(), 1);
  const std::string log = testing::internal::GetCapturedStderr();
  EXPECT_THAT(log, HasSubstr("is lost"));
  EXPECT_THAT(log, HasSubstr("going on with the 2 workers known last"));
  EXPECT_THAT(log, HasSubstr("answers again"));
}

// While the watch is down things change, and the history up to there is compacted away.
TEST(WorkerWatchTest, ListsAnewWhenItsHistoryIsCompacted) {
  EtcdProcess etcd;
  Put(etcd, 1, "a");
  EtcdOptions options = etcd.options();
  Watched watched(options);
  ASSERT_TRUE(watched.Sees({"a"}));
  etcd.Kill();
  ASSERT_TRUE(Eventually([&] { return !watched.watch->state().current; }));
  // Compacted before it answers under the address that the watch knows.
  etcd.StartElsewhere();
  Delete(etcd, 1);
  Put(etcd, 2, "b");
  Put(etcd, 3, "c");
  etcd.Control("compact 5");
  etcd.Kill();
  etcd.Start();
  EXPECT_TRUE(watched.Sees({"b", "c"}));
  EXPECT_EQ(watched.watch->lists(), 2);
}

TEST(WorkerWatchTest, ListsAnewWhenEtcdHasForgottenAll) {
  EtcdProcess etcd;
  Put(etcd, 1, "a");
  Put(etcd, 2, "b");
  Watched watched(etcd.options());
  ASSERT_TRUE(watched.Sees({"a", "b"}));
  etcd.Kill();
  ASSERT_TRUE(Eventually([&] { return !watched.watch->state().current; }));
  etcd.Forget();
  etcd.Start();
  EXPECT_TRUE(watched.Sees({}));
  Put(etcd, 3, "c");
  EXPECT_TRUE(watched.Sees({"c"}));
  EXPECT_EQ(watched.watch->lists(), 2);
}

TEST(WorkerWatchTest, StartsBeforeEtcdAndTriesAllEndpoints) {
  EtcdProcess etcd;
  etcd.Kill();
  EtcdOptions options = etcd.options();
  options.endpoints.insert(options.endpoints.begin(), "http://127.0.0.1:1");  // nobody is there
  testing::internal::CaptureStderr();
  Watched watched(options);
  ASSERT_TRUE(Eventually([&] { return watched.watch->state().failures >= 2; }));
  EXPECT_FALSE(watched.watch->state().current);
  etcd.Start();
  Put(etcd, 1, "a");
  EXPECT_TRUE(watched.Sees({"a"}));
  EXPECT_THAT(testing::internal::GetCapturedStderr(), HasSubstr("none are known yet"));
}

TEST(WorkerWatchTest, GoesOnWithTheOtherMembersAndKeepsWhatItKnowsWithoutAQuorum) {
  EtcdCluster etcd;
  Put(etcd.member(0), 1, "a");
  Watched watched(etcd.options());
  ASSERT_TRUE(watched.Sees({"a"}));
  etcd.member(0).Kill();  // the one that it watches at
  etcd.member(1).AwaitAnswer();
  Put(etcd.member(1), 2, "b");
  ASSERT_TRUE(watched.Sees({"a", "b"}));
  EXPECT_TRUE(Eventually([&] { return watched.watch->state().current; }));

  etcd.member(1).Kill();
  EXPECT_TRUE(Eventually([&] { return !watched.watch->state().current; })) << "one of three";
  EXPECT_TRUE(watched.Sees({"a", "b"}));
  etcd.member(0).Start();
  Put(etcd.member(0), 3, "c");
  EXPECT_TRUE(watched.Sees({"a", "b", "c"}));
  EXPECT_TRUE(Eventually([&] { return watched.watch->state().current; }));
}

TEST(WorkerWatchTest, TakesNoMoreWorkersThanItIsTo) {
  const EtcdProcess etcd;
  Put(etcd, 1, "a");
  Put(etcd, 2, "b");
  Put(etcd, 3, "c");
  Watched watched(etcd.options(), 2);
  EXPECT_TRUE(watched.Sees({"a", "b"}));
  Put(etcd, 1, "a2");  // known: may change
  EXPECT_TRUE(watched.Sees({"a2", "b"}));
  Put(etcd, 4, "d");
  Delete(etcd, 2);
  EXPECT_TRUE(watched.Sees({"a2"}));
}

}  // namespace
}  // namespace baton::discovery
