#include "cli/subprocess.h"

#include <gtest/gtest.h>
#include <signal.h>

namespace baton::cli {
namespace {

constexpr Duration kLong = std::chrono::seconds(30);

TEST(Subprocess, GivesLinesAndExitCode) {
  auto child = Subprocess::Start({"sh", "-c", "echo one; echo two; exit 3"}, true);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(*child->ReadLine(kLong), "one");
  EXPECT_EQ(*child->ReadLine(kLong), "two");
  EXPECT_EQ(child->ReadLine(kLong).status().code(), absl::StatusCode::kUnavailable);
  ASSERT_TRUE(child->WaitFor(kLong));
  EXPECT_EQ(child->exit_code(), 3);
}

TEST(Subprocess, ReadLineTimesOutAndSignalsReachTheChild) {
  auto child = Subprocess::Start({"sleep", "1000"}, true);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child->ReadLine(std::chrono::milliseconds(20)).status().code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_FALSE(child->Poll());
  child->Signal(SIGTERM);
  ASSERT_TRUE(child->WaitFor(kLong));
  EXPECT_EQ(child->exit_code(), 128 + SIGTERM);
}

TEST(Subprocess, MissingProgramExits127) {
  auto child = Subprocess::Start({"/no/such/program"}, true);
  ASSERT_TRUE(child.ok());
  ASSERT_TRUE(child->WaitFor(kLong));
  EXPECT_EQ(child->exit_code(), 127);
}

TEST(Subprocess, DestructorEndsTheChild) {
  pid_t pid;
  {
    auto child = Subprocess::Start({"sleep", "1000"}, false);
    ASSERT_TRUE(child.ok());
    pid = child->pid();
  }
  EXPECT_EQ(kill(pid, 0), -1);
}

TEST(Subprocess, EndlessLineIsAnError) {
  auto child = Subprocess::Start({"sh", "-c", "yes | tr -d '\\n'"}, true);
  ASSERT_TRUE(child.ok());
  EXPECT_EQ(child->ReadLine(kLong).status().code(), absl::StatusCode::kResourceExhausted);
}

}  // namespace
}  // namespace baton::cli
