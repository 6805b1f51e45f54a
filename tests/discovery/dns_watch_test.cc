#include "discovery/dns_watch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <mutex>

#include "tests/discovery/discovery_testing.h"

namespace baton::discovery {
namespace {

using std::chrono::milliseconds;
using testing::Contains;
using testing::ElementsAre;

TEST(DnsWatchTest, ANameOfThisMachineHasItsAddresses) {
  const auto addresses = LookUp({"localhost", 7000});
  ASSERT_TRUE(addresses.ok()) << addresses.status();
  EXPECT_THAT(*addresses, Contains("127.0.0.1:7000"));
  EXPECT_FALSE(LookUp({"no-such-name.invalid", 7000}).ok());
}

// Answers what it was told last.
struct Answers {
  std::mutex mutex;
  absl::StatusOr<std::vector<std::string>> next = std::vector<std::string>{};

  void Set(absl::StatusOr<std::vector<std::string>> answer) {
    const std::lock_guard lock(mutex);
    next = std::move(answer);
  }
  DnsWatch::Lookup Lookup() {
    return [this](const HostPort&) {
      const std::lock_guard lock(mutex);
      return next;
    };
  }
};

TEST(DnsWatchTest, FollowsTheNameAndKeepsWhatItHadWhenThereIsNoAnswer) {
  // Outlives the watch's thread, which is let go.
  static auto* const answers = new Answers;
  std::atomic<int> changes{0};
  const DnsWatch watch(
      {"workers", 7000}, milliseconds(5), [&] { ++changes; }, answers->Lookup());
  answers->Set(std::vector<std::string>{"a:1"});
  EXPECT_TRUE(Eventually([&] { return watch.Addresses().size() == 1; }));
  EXPECT_TRUE(watch.state().current);
  answers->Set(absl::NotFoundError("gone"));
  EXPECT_TRUE(Eventually([&] { return !watch.state().current; }));
  EXPECT_THAT(watch.Addresses(), ElementsAre("a:1"));
  EXPECT_EQ(watch.state().trouble, "NOT_FOUND: gone");
  answers->Set(std::vector<std::string>{"b:1", "c:1"});
  EXPECT_TRUE(Eventually([&] { return watch.Addresses().size() == 2; }));
  EXPECT_TRUE(watch.state().current);
  EXPECT_EQ(changes, 2);
}

TEST(DnsWatchTest, ItsEndDoesNotWaitForALookUp) {
  static std::atomic<bool> asked{false};
  static std::atomic<bool> answer{false};
  std::atomic<int> changes{0};
  {
    const DnsWatch watch(
        {"workers", 7000}, milliseconds(5), [&] { ++changes; },
        [](const HostPort&) -> absl::StatusOr<std::vector<std::string>> {
          asked = true;
          while (!answer) std::this_thread::sleep_for(milliseconds(1));
          return std::vector<std::string>{"late:1"};
        });
    ASSERT_TRUE(Eventually([&] { return asked.load(); }));
  }
  answer = true;
  std::this_thread::sleep_for(milliseconds(20));
  EXPECT_EQ(changes, 0);
}

}  // namespace
}  // namespace baton::discovery
