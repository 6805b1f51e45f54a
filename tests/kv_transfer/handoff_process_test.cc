// Handoffs between processes: real bytes through real borders, and peers that die or stop.

#include <fcntl.h>
#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <functional>
#include <thread>

#include "tests/kv_transfer/handoff_harness.h"

namespace baton::kv_transfer {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::StartsWith;

constexpr int kPatientMs = 60'000;  // no deadline of the handoff's is met
constexpr int kHastyMs = 300;
constexpr int kLargeLayers = 45;  // 360 KiB a block: UCX moves them by rendezvous

// A kv_transfer_peer, which is killed at the end at the latest.
class PeerProcess {
 public:
  PeerProcess(const std::string& transport, const std::string& name, int timeout_ms, int layers = 2,
              const std::vector<std::pair<std::string, std::string>>& environment = {}) {
    int in[2], out[2];
    BATON_CHECK(pipe2(in, O_CLOEXEC) == 0 && pipe2(out, O_CLOEXEC) == 0, "pipes");
    const std::string program =
        std::filesystem::read_symlink("/proc/self/exe").parent_path() / "kv_transfer_peer";
    const std::string timeout = std::to_string(timeout_ms), layer_count = std::to_string(layers);
    pid_ = fork();
    if (pid_ == 0) {
      dup2(in[0], STDIN_FILENO);
      dup2(out[1], STDOUT_FILENO);
      for (const auto& [key, value] : environment) setenv(key.c_str(), value.c_str(), 1);
      execl(program.c_str(), program.c_str(), transport.c_str(), name.c_str(), timeout.c_str(),
            layer_count.c_str(), nullptr);
      _exit(127);
    }
    close(in[0]);
    close(out[1]);
    to_ = fdopen(in[1], "w");
    from_ = fdopen(out[0], "r");
  }
  ~PeerProcess() {
    fclose(to_);
    Kill(SIGCONT);
    fclose(from_);
    if (pid_ <= 0) return;
    int status = 0;
    waitpid(pid_, &status, 0);
    EXPECT_TRUE(WIFEXITED(status) && WEXITSTATUS(status) == 0) << "a peer ended with " << status;
  }
  PeerProcess(const PeerProcess&) = delete;
  PeerProcess& operator=(const PeerProcess&) = delete;

  // The answer to a command. UCX and the log may put lines of their own before it.
  std::string Ask(const std::string& command) {
    fputs((command + "\n").c_str(), to_);
    fflush(to_);
    std::string line;
    do {
      line.clear();
      for (int c = fgetc(from_); c != '\n'; c = fgetc(from_)) {
        if (c == EOF) return "gone";
        line += static_cast<char>(c);
      }
    } while (line.starts_with('['));
    return line;
  }
  std::string Address() { return Ask("address").substr(std::string("address ").size()); }
  void Kill(int signal) {
    if (pid_ > 0) kill(pid_, signal);
    if (signal != SIGKILL || pid_ <= 0) return;
    waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_ = -1;
  FILE* to_ = nullptr;
  FILE* from_ = nullptr;
};

class HandoffProcessTest : public testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(Transports, HandoffProcessTest, testing::Values("shm", "ucx", "auto"),
                         [](const auto& tested) { return tested.param; });

TEST_P(HandoffProcessTest, BlocksCrossTheBorder) {
  PeerProcess source(GetParam(), "prefill-0", kPatientMs);
  PeerProcess target(GetParam(), "decode-0", kPatientMs);
  const std::string address = target.Address();
  for (int i = 1; i <= 20; ++i) {
    const int blocks = 1 + (i * 37) % 200;
    ASSERT_EQ(source.Ask("offer " + std::to_string(i) + " " + address + " " +
                         std::to_string(blocks) + " " + std::to_string(i)),
              "offered");
    ASSERT_EQ(target.Ask("grant " + std::to_string(i) + " " + std::to_string(blocks)), "granted");
    EXPECT_EQ(target.Ask("wait_target " + std::to_string(i) + " " + std::to_string(i)),
              GetParam() == "ucx" ? "done OK by ucx tcp" : "done OK by shm");
    EXPECT_EQ(source.Ask("wait_source " + std::to_string(i)), "done OK");
  }
  EXPECT_EQ(source.Ask("active"), "active 0");
  EXPECT_EQ(target.Ask("active"), "active 0");
}

TEST_P(HandoffProcessTest, LargeBlocksCrossTheBorder) {
  PeerProcess source(GetParam(), "prefill-0", kPatientMs, kLargeLayers);
  PeerProcess target(GetParam(), "decode-0", kPatientMs, kLargeLayers);
  const std::string address = target.Address();
  for (const char* const number : {"1", "2", "3"}) {
    ASSERT_EQ(source.Ask(fmt::format("offer {} {} 32 {}", number, address, number)), "offered");
    ASSERT_EQ(target.Ask(fmt::format("grant {} 32", number)), "granted");
    EXPECT_THAT(target.Ask(fmt::format("wait_target {} {}", number, number)),
                StartsWith("done OK"));
    EXPECT_EQ(source.Ask(fmt::format("wait_source {}", number)), "done OK");
  }
}

// Both ways between the same two processes at once.
TEST_P(HandoffProcessTest, EachCanBeSourceAndTarget) {
  PeerProcess one(GetParam(), "one", kPatientMs);
  PeerProcess two(GetParam(), "two", kPatientMs);
  ASSERT_EQ(one.Ask("offer 1 " + two.Address() + " 50 1"), "offered");
  ASSERT_EQ(two.Ask("offer 2 " + one.Address() + " 60 2"), "offered");
  ASSERT_EQ(one.Ask("grant 2 60"), "granted");
  ASSERT_EQ(two.Ask("grant 1 50"), "granted");
  EXPECT_THAT(one.Ask("wait_target 2 2"), StartsWith("done OK"));
  EXPECT_THAT(two.Ask("wait_target 1 1"), StartsWith("done OK"));
}

TEST_P(HandoffProcessTest, AKilledSourceIsNoticedLongBeforeAnyDeadline) {
  PeerProcess target(GetParam(), "decode-0", kPatientMs);
  PeerProcess source(GetParam(), "prefill-0", kPatientMs);
  ASSERT_EQ(source.Ask("half 1 " + target.Address() + " 100 1"), "offered");
  ASSERT_EQ(target.Ask("grant 1 100"), "granted");
  source.Kill(SIGKILL);
  EXPECT_THAT(target.Ask("wait_target 1 1"), HasSubstr("connection to 'prefill-0' lost"));
  EXPECT_EQ(target.Ask("active"), "active 0");
  // The next one is served.
  PeerProcess again(GetParam(), "prefill-0", kPatientMs);
  ASSERT_EQ(again.Ask("offer 2 " + target.Address() + " 100 2"), "offered");
  ASSERT_EQ(target.Ask("grant 2 100"), "granted");
  EXPECT_THAT(target.Ask("wait_target 2 2"), StartsWith("done OK"));
}

TEST_P(HandoffProcessTest, AKilledTargetIsNoticedLongBeforeAnyDeadline) {
  PeerProcess target(GetParam(), "decode-0", kPatientMs);
  PeerProcess source(GetParam(), "prefill-0", kPatientMs);
  ASSERT_EQ(source.Ask("half 1 " + target.Address() + " 100 1"), "offered");
  ASSERT_EQ(source.Ask("half 2 " + target.Address() + " 100 2"), "offered");  // never answered
  ASSERT_EQ(target.Ask("grant 1 100"), "granted");
  target.Kill(SIGKILL);
  EXPECT_THAT(source.Ask("wait_source 1"), HasSubstr("connection to 'decode-0' lost"));
  EXPECT_THAT(source.Ask("wait_source 2"), HasSubstr("connection to 'decode-0' lost"));
  EXPECT_EQ(source.Ask("active"), "active 0");
}

// Over UCX's own shared memory no wire tells of a death: keepalives do.
class HandoffDeathTest : public testing::TestWithParam<std::string> {
 protected:
  // The fastest of some deaths: other load on the machine makes single ones slow.
  static double FastestOf(const std::function<Duration()>& die) {
    Duration fastest = Duration::max();
    for (int i = 0; i < 3; ++i) fastest = std::min(fastest, die());
    return Seconds(fastest);
  }
  static constexpr double kNoticedSeconds = 0.5;
};

INSTANTIATE_TEST_SUITE_P(Transports, HandoffDeathTest,
                         testing::Values("shm", "ucx", "ucx:posix,self"), [](const auto& tested) {
                           return tested.param.ends_with("self") ? "ucx_posix" : tested.param;
                         });

TEST_P(HandoffDeathTest, OfASourceIsNoticedWithinHalfASecond) {
  PeerProcess target(GetParam(), "decode-0", kPatientMs);
  const std::string address = target.Address();
  int number = 0;
  EXPECT_LE(FastestOf([&] {
              ++number;
              PeerProcess source(GetParam(), "prefill-0", kPatientMs);
              EXPECT_EQ(source.Ask(fmt::format("half {} {} 100 1", number, address)), "offered");
              EXPECT_EQ(target.Ask(fmt::format("grant {} 100", number)), "granted");
              const TimePoint killed = SystemClock().Now();
              source.Kill(SIGKILL);
              EXPECT_THAT(target.Ask(fmt::format("wait_target {} 1", number)),
                          HasSubstr("connection to 'prefill-0' lost"));
              return SystemClock().Now() - killed;
            }),
            kNoticedSeconds);
}

TEST_P(HandoffDeathTest, OfATargetIsNoticedWithinHalfASecond) {
  PeerProcess source(GetParam(), "prefill-0", kPatientMs);
  int number = 0;
  EXPECT_LE(FastestOf([&] {
              ++number;
              PeerProcess target(GetParam(), "decode-0", kPatientMs);
              EXPECT_EQ(source.Ask(fmt::format("half {} {} 100 1", number, target.Address())),
                        "offered");
              EXPECT_EQ(target.Ask(fmt::format("grant {} 100", number)), "granted");
              const TimePoint killed = SystemClock().Now();
              target.Kill(SIGKILL);
              EXPECT_THAT(source.Ask(fmt::format("wait_source {}", number)),
                          HasSubstr("connection to 'decode-0' lost"));
              return SystemClock().Now() - killed;
            }),
            kNoticedSeconds);
}

TEST_P(HandoffDeathTest, OfAnIdlePeerIsNoticedWithinHalfASecond) {
  PeerProcess target(GetParam(), "decode-0", kPatientMs);
  const std::string address = target.Address();
  const auto wait_for_paths = [&](const std::string& answer) {
    const TimePoint give_up = SystemClock().Now() + kPatience;
    while (target.Ask("paths") != answer && SystemClock().Now() < give_up) {
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    EXPECT_EQ(target.Ask("paths"), answer);
  };
  int number = 0;
  EXPECT_LE(FastestOf([&] {
              ++number;
              PeerProcess source(GetParam(), "prefill-0", kPatientMs);
              EXPECT_EQ(source.Ask(fmt::format("offer {} {} 10 1", number, address)), "offered");
              EXPECT_EQ(target.Ask(fmt::format("grant {} 10", number)), "granted");
              EXPECT_THAT(target.Ask(fmt::format("wait_target {} 1", number)),
                          StartsWith("done OK"));
              wait_for_paths("paths 1");
              const TimePoint killed = SystemClock().Now();
              source.Kill(SIGKILL);
              wait_for_paths("paths 0");
              return SystemClock().Now() - killed;
            }),
            kNoticedSeconds);
}

TEST_P(HandoffProcessTest, AnOfferToADeadAddressEnds) {
  PeerProcess source(GetParam(), "prefill-0", kPatientMs);
  std::string address;
  {
    PeerProcess target(GetParam(), "decode-0", kPatientMs);
    address = target.Address();
  }
  ASSERT_EQ(source.Ask("offer 1 " + address + " 10 1"), "offered");
  EXPECT_THAT(source.Ask("wait_source 1"), HasSubstr("UNAVAILABLE"));
}

// A process that is stopped looks alive to the wire: deadlines find it.
TEST_P(HandoffProcessTest, AStoppedPeerIsFoundByTheDeadline) {
  {
    PeerProcess target(GetParam(), "decode-0", kHastyMs);
    PeerProcess source(GetParam(), "prefill-0", kHastyMs);
    ASSERT_EQ(source.Ask("half 1 " + target.Address() + " 100 1"), "offered");
    ASSERT_EQ(target.Ask("grant 1 100"), "granted");
    source.Kill(SIGSTOP);
    EXPECT_THAT(target.Ask("wait_target 1 1"), HasSubstr("DEADLINE_EXCEEDED"));
    EXPECT_EQ(target.Ask("active"), "active 0");
  }
  PeerProcess target(GetParam(), "decode-0", kHastyMs);
  PeerProcess source(GetParam(), "prefill-0", kHastyMs);
  ASSERT_EQ(source.Ask("half 1 " + target.Address() + " 100 1"), "offered");
  ASSERT_EQ(target.Ask("grant 1 100"), "granted");
  target.Kill(SIGSTOP);
  EXPECT_THAT(source.Ask("wait_source 1"), HasSubstr("DEADLINE_EXCEEDED"));
  EXPECT_EQ(source.Ask("active"), "active 0");
}

// Stopped at some moment of a transfer that is in full flow, and let go again: what it still sends
// is dropped, and the next transfer is as good as any.
TEST_P(HandoffProcessTest, ASourceThatStopsAndGoesOnHarmsNobody) {
  PeerProcess target(GetParam(), "decode-0", kHastyMs, kLargeLayers);
  PeerProcess source(GetParam(), "prefill-0", kHastyMs, kLargeLayers);
  const std::string address = target.Address();
  for (int i = 1; i <= 6; ++i) {
    ASSERT_EQ(source.Ask(fmt::format("offer {} {} 32 {}", i, address, i)), "offered");
    ASSERT_EQ(target.Ask(fmt::format("grant {} 32", i)), "granted");
    std::this_thread::sleep_for(std::chrono::microseconds(500 * (i - 1)));
    source.Kill(SIGSTOP);
    const std::string target_end = target.Ask(fmt::format("wait_target {} {}", i, i));
    EXPECT_THAT(target_end, AnyOf(StartsWith("done OK"), HasSubstr("DEADLINE_EXCEEDED")));
    source.Kill(SIGCONT);
    EXPECT_THAT(source.Ask(fmt::format("wait_source {}", i)), StartsWith("done "));
  }
  ASSERT_EQ(source.Ask("offer 7 " + address + " 32 7"), "offered");
  ASSERT_EQ(target.Ask("grant 7 32"), "granted");
  EXPECT_THAT(target.Ask("wait_target 7 7"), StartsWith("done OK"));
  EXPECT_EQ(source.Ask("wait_source 7"), "done OK");
  EXPECT_EQ(target.Ask("active"), "active 0");
  EXPECT_EQ(source.Ask("active"), "active 0");
}

TEST_P(HandoffProcessTest, ASourceKilledInFullFlowLeavesItsTargetServing) {
  PeerProcess target(GetParam(), "decode-0", kPatientMs, kLargeLayers);
  const std::string address = target.Address();
  for (int i = 1; i <= 6; ++i) {
    PeerProcess source(GetParam(), "prefill-0", kPatientMs, kLargeLayers);
    ASSERT_EQ(source.Ask(fmt::format("offer {} {} 32 {}", i, address, i)), "offered");
    ASSERT_EQ(target.Ask(fmt::format("grant {} 32", i)), "granted");
    std::this_thread::sleep_for(std::chrono::microseconds(500 * (i - 1)));
    source.Kill(SIGKILL);
    EXPECT_THAT(target.Ask(fmt::format("wait_target {} {}", i, i)),
                AnyOf(StartsWith("done OK"), HasSubstr("connection to 'prefill-0' lost")));
  }
  EXPECT_EQ(target.Ask("active"), "active 0");
}

TEST_P(HandoffProcessTest, ATargetKilledInFullFlowLeavesItsSourceServing) {
  PeerProcess source(GetParam(), "prefill-0", kPatientMs, kLargeLayers);
  for (int i = 1; i <= 12; ++i) {
    PeerProcess target(GetParam(), "decode-0", kPatientMs, kLargeLayers);
    ASSERT_EQ(source.Ask(fmt::format("offer {} {} 32 {}", i, target.Address(), i)), "offered");
    ASSERT_EQ(target.Ask(fmt::format("grant {} 32", i)), "granted");
    std::this_thread::sleep_for(std::chrono::microseconds(500 * (i - 1)));
    target.Kill(SIGKILL);
    EXPECT_THAT(source.Ask(fmt::format("wait_source {}", i)),
                AnyOf(StartsWith("done OK"), HasSubstr("connection to 'decode-0' lost")));
  }
  EXPECT_EQ(source.Ask("active"), "active 0");
}

// That it does, the end of PeerProcess checks.
TEST_P(HandoffProcessTest, AServiceEndsCleanlyBesideAStoppedPeer) {
  PeerProcess target(GetParam(), "decode-0", kPatientMs, kLargeLayers);
  {
    PeerProcess source(GetParam(), "prefill-0", kPatientMs, kLargeLayers);
    ASSERT_EQ(source.Ask("offer 1 " + target.Address() + " 32 1"), "offered");
    ASSERT_EQ(target.Ask("grant 1 32"), "granted");
    target.Kill(SIGSTOP);
  }
  target.Kill(SIGCONT);
  EXPECT_THAT(target.Ask("wait_target 1 1"), AnyOf(StartsWith("done OK"), HasSubstr("ABORTED"),
                                                   HasSubstr("connection to 'prefill-0' lost")));
}

TEST_P(HandoffProcessTest, LoopbackAloneIsEnough) {
  PeerProcess source(GetParam(), "prefill-0", kPatientMs, 2, {{"UCX_NET_DEVICES", "lo"}});
  PeerProcess target(GetParam(), "decode-0", kPatientMs, 2, {{"UCX_NET_DEVICES", "lo"}});
  ASSERT_EQ(source.Ask("offer 1 " + target.Address() + " 100 1"), "offered");
  ASSERT_EQ(target.Ask("grant 1 100"), "granted");
  EXPECT_THAT(target.Ask("wait_target 1 1"), StartsWith("done OK"));
}

// Whoever maps and whoever does not can talk to each other.
TEST(HandoffProcessTest, TheReaderChoosesTheWay) {
  PeerProcess mapped("auto", "prefill-0", kPatientMs);
  PeerProcess pulled("ucx", "decode-0", kPatientMs);
  ASSERT_EQ(mapped.Ask("offer 1 " + pulled.Address() + " 100 1"), "offered");
  ASSERT_EQ(pulled.Ask("grant 1 100"), "granted");
  EXPECT_EQ(pulled.Ask("wait_target 1 1"), "done OK by ucx tcp");
  ASSERT_EQ(pulled.Ask("offer 2 " + mapped.Address() + " 100 2"), "offered");
  ASSERT_EQ(mapped.Ask("grant 2 100"), "granted");
  EXPECT_EQ(mapped.Ask("wait_target 2 2"), "done OK by shm");
}

}  // namespace
}  // namespace baton::kv_transfer
