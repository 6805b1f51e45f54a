#include "router/worker_sources.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>

#include "tests/common/temp_dir.h"
#include "tests/router/cluster.h"

namespace baton::router {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

std::unique_ptr<WorkerSources> Make(WorkerSourcesOptions options, size_t max_workers = 100) {
  options.file_poll = std::chrono::milliseconds(5);
  auto sources = WorkerSources::Create(options, max_workers);
  BATON_CHECK(sources.ok(), sources.status().ToString());
  return *std::move(sources);
}

std::vector<std::string> Addresses(WorkerSources& sources) {
  std::vector<std::string> addresses;
  for (const ListedWorker& worker : sources.List()) addresses.push_back(worker.address);
  return addresses;
}

TEST(WorkerSourcesTest, AListAloneDoesNotChange) {
  const auto sources = Make({.workers = {"a:1", "b:1", "a:1"}});
  EXPECT_FALSE(sources->may_change());
  EXPECT_THAT(sources->List(), ElementsAre(ListedWorker{"a:1"}, ListedWorker{"b:1"}));
  EXPECT_TRUE(sources->Views().empty());
}

TEST(WorkerSourcesTest, AllSourcesTogetherGiveEachAddressOnce) {
  const test::TempDir directory;
  WorkerSourcesOptions options;
  options.workers = {"a:1", "dns:pods.svc:7"};
  options.workers_file = directory.File("workers");
  options.look_up = [](const HostPort& name) -> absl::StatusOr<std::vector<std::string>> {
    return std::vector<std::string>{"c:1", "d:1", name.ToString()};
  };
  std::ofstream(options.workers_file) << "b:1\na:1\nc:1\n";
  const auto sources = Make(options);
  EXPECT_TRUE(sources->may_change());
  EXPECT_TRUE(Eventually([&] { return sources->List().size() == 5; }));
  EXPECT_THAT(sources->List(),
              ElementsAre(ListedWorker{"a:1"}, ListedWorker{"b:1"}, ListedWorker{"c:1"},
                          ListedWorker{"d:1", true}, ListedWorker{"pods.svc:7", true}));
  const std::vector<DiscoveryView> views = sources->Views();
  ASSERT_EQ(views.size(), 2u);
  EXPECT_EQ(views[0].source, "file");
  EXPECT_EQ(views[0].workers, 3u);
  EXPECT_TRUE(views[0].current);
  EXPECT_EQ(views[1].source, "dns");
  EXPECT_EQ(views[1].where, "pods.svc:7");
  EXPECT_EQ(views[1].workers, 3u);
}

TEST(WorkerSourcesTest, AFileThatCannotBeReadKeepsItsWorkersAndSaysSo) {
  const test::TempDir directory;
  WorkerSourcesOptions options;
  options.workers_file = directory.File("workers");
  EXPECT_TRUE(absl::IsNotFound(WorkerSources::Create(options, 2).status()));
  std::ofstream(options.workers_file) << "a:1";
  const auto sources = Make(options, 2);
  std::ofstream(options.workers_file) << "a:1\nb:1\nc:1\n";  // too many
  EXPECT_THAT(Addresses(*sources), ElementsAre("a:1"));
  const DiscoveryView view = sources->Views().at(0);
  EXPECT_FALSE(view.current);
  EXPECT_THAT(view.trouble, HasSubstr("3 worker addresses, but at most 2"));
  EXPECT_EQ(view.failures, 1);
  std::ofstream(options.workers_file) << "b:1";
  EXPECT_THAT(Addresses(*sources), ElementsAre("b:1"));
  EXPECT_TRUE(sources->Views().at(0).current);
}

TEST(WorkerSourcesTest, WhatIsWrongIsAnErrorAtTheStart) {
  const auto complaint = [](WorkerSourcesOptions options) {
    return std::string(WorkerSources::Create(options, 2).status().message());
  };
  EXPECT_THAT(complaint({.workers = {"a:1", "b:1", "c:1"}}), HasSubstr("at most 2"));
  EXPECT_THAT(complaint({.workers = {"dns:pods.svc"}}), HasSubstr("must be dns:NAME:PORT"));
  EXPECT_THAT(complaint({.workers = std::vector<std::string>(65, "dns:localhost:1")}),
              HasSubstr("there may be 64"));
}

TEST(WorkerSourcesTest, NewsWakesWhoWaits) {
  WorkerSourcesOptions options;
  options.workers = {"dns:pods.svc:7"};
  options.look_up = [](const HostPort&) -> absl::StatusOr<std::vector<std::string>> {
    return std::vector<std::string>{"c:1"};
  };
  options.file_poll = std::chrono::hours(1);
  auto sources = WorkerSources::Create(options, 10);
  ASSERT_TRUE(sources.ok());
  EXPECT_TRUE((*sources)->WaitForNews());  // an hour without it
  EXPECT_THAT(Addresses(**sources), ElementsAre("c:1"));
  (*sources)->Stop();
  EXPECT_FALSE((*sources)->WaitForNews());
}

}  // namespace
}  // namespace baton::router
