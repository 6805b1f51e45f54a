#include "common/failpoint.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

#include "common/clock.h"

namespace baton {
namespace {

using ::testing::HasSubstr;

TEST(FailpointTest, NothingHappensUnlessItIsArmed) {
  Failpoint point("a.b", Failpoint::CanFail::kYes);
  for (int i = 0; i < 100; ++i) EXPECT_FALSE(point.Fails());
}

TEST(FailpointTest, FailsEveryTimeOrAtTheCountGiven) {
  Failpoint always("a.b", Failpoint::CanFail::kYes);
  ASSERT_TRUE(always.Arm("fail").ok());
  EXPECT_TRUE(always.Fails());
  EXPECT_TRUE(always.Fails());
  Failpoint third("a.c", Failpoint::CanFail::kYes);
  ASSERT_TRUE(third.Arm("fail:3").ok());
  EXPECT_FALSE(third.Fails());
  EXPECT_FALSE(third.Fails());
  EXPECT_TRUE(third.Fails());
  EXPECT_FALSE(third.Fails());
}

TEST(FailpointTest, DelaysTheCaller) {
  Failpoint point("a.b");
  ASSERT_TRUE(point.Arm("delay=30:2").ok());
  point.Reach();
  const TimePoint begin = SystemClock().Now();
  point.Reach();
  EXPECT_GE(SystemClock().Now() - begin, std::chrono::milliseconds(30));
}

// What a child that reaches the place does, as waitpid tells it.
int EndOfChild(const char* setting) {
  const pid_t child = fork();
  if (child == 0) {
    Failpoint point("a.b");
    if (!point.Arm(setting).ok()) _exit(1);
    point.Reach();
    _exit(7);
  }
  int status = 0;
  waitpid(child, &status, WUNTRACED);
  if (!WIFSTOPPED(status)) return status;
  EXPECT_EQ(WSTOPSIG(status), SIGSTOP);
  kill(child, SIGCONT);
  waitpid(child, &status, 0);
  return status;
}

TEST(FailpointTest, KillsTheProcess) {
  const int status = EndOfChild("kill");
  EXPECT_TRUE(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL) << status;
}

TEST(FailpointTest, StopsTheProcessWhichCanGoOn) {
  const int status = EndOfChild("stop");
  EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 7) << status;
}

TEST(FailpointTest, RefusesSettingsWithoutSense) {
  Failpoint point("a.b");
  for (const char* const setting : {"", "die", "kill:", "kill:0", "kill:-1", "kill:x", "delay=",
                                    "delay=0", "delay=600001", "delay=5ms", "delay", "kill:1x"}) {
    EXPECT_EQ(point.Arm(setting).code(), absl::StatusCode::kInvalidArgument) << setting;
  }
  EXPECT_THAT(point.Arm("fail").ToString(), HasSubstr("cannot be left out"));
  EXPECT_FALSE(point.Fails());
}

TEST(FailpointTest, IsArmedByNameAndNamesTheNearest) {
  Failpoint offer("source.before_offer", Failpoint::CanFail::kYes);
  Failpoint grant("target.before_grant");
  const std::array<Failpoint*, 2> known = {&offer, &grant};
  EXPECT_TRUE(ArmFailpoint("source.before_offer=fail:1", known).ok());
  EXPECT_TRUE(offer.Fails());
  EXPECT_THAT(ArmFailpoint("target.before_grand=kill", known).ToString(),
              HasSubstr("no failpoint 'target.before_grand'; did you mean 'target.before_grant'?"));
  EXPECT_THAT(ArmFailpoint("x=kill", known).ToString(),
              HasSubstr("there are source.before_offer, target.before_grant"));
  EXPECT_THAT(ArmFailpoint("source.before_offer", known).ToString(),
              HasSubstr("is not NAME=ACTION[:COUNT]"));
}

}  // namespace
}  // namespace baton
