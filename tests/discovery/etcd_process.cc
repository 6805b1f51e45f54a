#include "tests/discovery/etcd_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <gtest/gtest.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <thread>

#include "common/status_macros.h"

namespace baton::discovery {
namespace {

constexpr auto kStartDeadline = std::chrono::seconds(60);

int FreePort() {
  const int probe = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  BATON_CHECK(bind(probe, reinterpret_cast<sockaddr*>(&address), size) == 0 &&
                  getsockname(probe, reinterpret_cast<sockaddr*>(&address), &size) == 0,
              "there is a free port");
  close(probe);
  return ntohs(address.sin_port);
}

std::string LocalUrl(const std::string& scheme) {
  return fmt::format("{}://127.0.0.1:{}", scheme, FreePort());
}

EtcdProcess::Member Alone() {
  const std::string peer = LocalUrl("http");
  return {"default", peer, "default=" + peer};
}

}  // namespace

EtcdProcess::EtcdProcess(std::vector<std::string> more, std::string scheme, std::string control)
    : control_flags(std::move(control)),
      more_(std::move(more)),
      endpoint_(LocalUrl(scheme)),
      elsewhere_(LocalUrl(scheme)),
      member_(Alone()) {
  Start();
}

EtcdProcess::EtcdProcess(Member member)
    : endpoint_(LocalUrl("http")), elsewhere_(endpoint_), member_(std::move(member)) {}

EtcdOptions EtcdProcess::options() const {
  EtcdOptions options;
  options.endpoints = {endpoint_};
  options.prefix = "/test/";
  return options;
}

void EtcdProcess::Start() {
  Spawn();
  AwaitAnswer();
}

void EtcdProcess::StartElsewhere() {
  SpawnAt(elsewhere_);
  AwaitAnswer();
}

void EtcdProcess::Spawn() { SpawnAt(endpoint_); }

void EtcdProcess::SpawnAt(const std::string& endpoint) {
  now_at_ = endpoint;
  std::vector<std::string> command = {"etcd",
                                      "--data-dir=" + directory_.File("data"),
                                      "--listen-client-urls=" + endpoint,
                                      "--advertise-client-urls=" + endpoint,
                                      "--name=" + member_.name,
                                      "--listen-peer-urls=" + member_.peer,
                                      "--initial-advertise-peer-urls=" + member_.peer,
                                      "--initial-cluster=" + member_.cluster,
                                      "--heartbeat-interval=20",
                                      "--election-timeout=200",
                                      "--log-level=warn"};
  command.insert(command.end(), more_.begin(), more_.end());
  std::vector<char*> arguments;
  for (std::string& argument : command) arguments.push_back(argument.data());
  arguments.push_back(nullptr);
  const std::string log = directory_.File("log");
  pid_ = fork();
  if (pid_ == 0) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    const int file = open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND, 0600);
    dup2(file, 1);
    dup2(file, 2);
    execvp(arguments[0], arguments.data());
    _exit(127);
  }
}

void EtcdProcess::AwaitAnswer() const {
  const auto deadline = std::chrono::steady_clock::now() + kStartDeadline;
  while (std::chrono::steady_clock::now() < deadline) {
    int status = 0;
    BATON_CHECK(waitpid(pid_, &status, WNOHANG) == 0,
                "etcd runs; Debian's packages etcd-server and etcd-client have it");
    const std::string probe = fmt::format(
        "ETCDCTL_API=3 etcdctl --endpoints={} --dial-timeout=1s --command-timeout=1s {} get / "
        ">/dev/null 2>&1",
        now_at_, control_flags);
    if (std::system(probe.c_str()) == 0) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
  BATON_CHECK(false, "etcd answers");
}

void EtcdProcess::Kill() {
  if (pid_ == 0) return;
  kill(pid_, SIGKILL);
  waitpid(pid_, nullptr, 0);
  pid_ = 0;
}

void EtcdProcess::Signal(int number) const { kill(pid_, number); }

void EtcdProcess::Forget() { std::filesystem::remove_all(directory_.File("data")); }

std::string EtcdProcess::Control(const std::string& arguments) const {
  const std::string command = fmt::format(
      "ETCDCTL_API=3 etcdctl --endpoints={} --dial-timeout=10s --command-timeout=20s {} "
      "{} 2>&1",
      now_at_, control_flags, arguments);
  std::FILE* const pipe = popen(command.c_str(), "r");
  std::string output;
  char buffer[4096];
  while (const size_t bytes = std::fread(buffer, 1, sizeof(buffer), pipe)) {
    output.append(buffer, bytes);
  }
  EXPECT_EQ(pclose(pipe), 0) << command << "\n" << output;
  while (output.ends_with('\n')) output.pop_back();
  return output;
}

std::string EtcdProcess::Get(const std::string& key) const {
  return Control("get --print-value-only " + key);
}

EtcdCluster::EtcdCluster() {
  std::vector<EtcdProcess::Member> members;
  std::string cluster;
  for (const char* name : {"a", "b", "c"}) {
    members.push_back({name, LocalUrl("http"), ""});
    cluster += fmt::format("{}{}={}", cluster.empty() ? "" : ",", name, members.back().peer);
  }
  for (EtcdProcess::Member& member : members) {
    member.cluster = cluster;
    members_.push_back(std::make_unique<EtcdProcess>(std::move(member)));
    members_.back()->Spawn();
  }
  for (const auto& member : members_) member->AwaitAnswer();
}

EtcdOptions EtcdCluster::options() const {
  EtcdOptions options = members_.front()->options();
  options.endpoints.clear();
  for (const auto& member : members_) options.endpoints.push_back(member->endpoint());
  return options;
}

}  // namespace baton::discovery
