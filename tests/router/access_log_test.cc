#include "router/access_log.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "tests/common/temp_dir.h"
#include "tests/router/record_testing.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

std::vector<std::string> LinesOf(const std::string& path) {
  std::ifstream file(path);
  std::vector<std::string> lines;
  for (std::string line; std::getline(file, line);) lines.push_back(line);
  return lines;
}

RecordPtr Record(int number) {
  return std::make_shared<const RequestRecord>(
      TestRecord(TestCall("call-" + std::to_string(number))));
}

void WaitFor(const std::function<bool()>& done) {
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  while (!done() && std::chrono::steady_clock::now() < deadline) {
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_TRUE(done());
}

TEST(AccessLogTest, WritesALineForEachInOrderBehindWhatIsThere) {
  const test::TempDir directory;
  const std::string path = directory.File("access.log");
  std::ofstream(path) << "earlier\n";
  {
    const auto log = AccessLog::Open(path);
    ASSERT_TRUE(log.ok()) << log.status();
    for (int i = 0; i < 1000; ++i) (*log)->Put(Record(i));
  }
  const std::vector<std::string> lines = LinesOf(path);
  ASSERT_EQ(lines.size(), 1001u);
  EXPECT_EQ(lines[0], "earlier");
  for (int i = 0; i < 1000; ++i) {
    EXPECT_THAT(lines[static_cast<size_t>(i) + 1],
                HasSubstr("\"request_id\":\"call-" + std::to_string(i) + "\""));
  }
}

TEST(AccessLogTest, GoesOnInANewFileWhenItIsReopened) {
  const test::TempDir directory;
  const std::string path = directory.File("access.log");
  const auto log = AccessLog::Open(path);
  ASSERT_TRUE(log.ok());
  (*log)->Put(Record(1));
  WaitFor([&] { return (*log)->written() == 1; });
  std::filesystem::rename(path, directory.File("access.log.1"));
  (*log)->Reopen();
  WaitFor([&] { return std::filesystem::exists(path); });
  (*log)->Put(Record(2));
  WaitFor([&] { return (*log)->written() == 2; });
  EXPECT_EQ(LinesOf(directory.File("access.log.1")).size(), 1u);
  ASSERT_EQ(LinesOf(path).size(), 1u);
  EXPECT_THAT(LinesOf(path)[0], HasSubstr("call-2"));
}

TEST(AccessLogTest, CountsWhatTheDiskDoesNotTake) {
  const auto log = AccessLog::Open("/dev/full");
  ASSERT_TRUE(log.ok());
  (*log)->Put(Record(1));
  WaitFor([&] { return (*log)->failed() == 1; });
  EXPECT_EQ((*log)->written(), 0u);
}

TEST(AccessLogTest, AFileThatCannotBeOpenedIsAnErrorThatNamesIt) {
  const auto log = AccessLog::Open("/proc/no/such.log");
  EXPECT_EQ(log.status().code(), absl::StatusCode::kPermissionDenied);
  EXPECT_THAT(std::string(log.status().message()), HasSubstr("/proc/no/such.log"));
}

TEST(RecordQueueTest, DropsAndCountsWhatIsTooMuchAndGivesTheRest) {
  RecordQueue queue(3);
  for (int i = 0; i < 5; ++i) queue.Put(Record(i));
  EXPECT_EQ(queue.dropped(), 2u);
  const std::vector<RecordPtr> records = queue.Take(std::chrono::hours(1));  // full: at once
  ASSERT_EQ(records.size(), 3u);
  EXPECT_EQ(records[2]->call->request_id, "call-2");
  EXPECT_FALSE(queue.closed());
  EXPECT_FALSE(queue.WaitClosed(std::chrono::milliseconds(1)));
  queue.Put(Record(9));
  queue.Close();
  queue.Put(Record(10));
  EXPECT_EQ(queue.dropped(), 3u);
  EXPECT_TRUE(queue.WaitClosed(std::chrono::hours(1)));
  EXPECT_EQ(queue.Take(std::chrono::hours(1)).size(), 1u);
}

}  // namespace
}  // namespace baton::router
