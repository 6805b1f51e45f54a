#include "discovery/registration.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "discovery/worker_watch.h"
#include "tests/discovery/discovery_testing.h"
#include "tests/discovery/etcd_process.h"

namespace baton::discovery {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr char kKey[] = "/test/workers/127.0.0.1:7001";

RegistrationOptions OptionsFor(EtcdOptions etcd) {
  RegistrationOptions options;
  options.etcd = std::move(etcd);
  options.ttl = std::chrono::seconds(1);
  return options;
}

// What somebody else would find: asks etcd itself.
std::vector<std::string> Found(const WorkerWatch& watch) {
  std::vector<std::string> found;
  for (const RegisteredWorker& worker : watch.Workers()) found.push_back(Describe(worker));
  return found;
}

TEST(RegistrationTest, IsThereAsLongAsItLivesAndSaysWhatTheWorkerIs) {
  const EtcdProcess etcd;
  const auto watch = WorkerWatch::Start(etcd.options(), 10, [] {});
  auto registration = Registration::Start(OptionsFor(etcd.options()), WorkerAt(7001, "d0"));
  EXPECT_TRUE(Eventually([&] { return Found(*watch) == Names({"d0 decode"}); }));
  // Longer than its lease: it is kept alive.
  std::this_thread::sleep_for(std::chrono::milliseconds(2500));
  EXPECT_TRUE(Eventually([&] { return Found(*watch) == Names({"d0 decode"}); }));
  registration->Update("prefill", false);
  EXPECT_TRUE(Eventually([&] { return Found(*watch) == Names({"d0 prefill"}); }));
  registration->Update("prefill", true);
  EXPECT_TRUE(Eventually([&] { return Found(*watch) == Names({"d0 prefill draining"}); }));
  const RegisteredWorker worker = watch->Workers().at(0);
  EXPECT_EQ(worker.address, "127.0.0.1:7001");
  EXPECT_EQ(worker.model, "demo");
  registration.reset();  // does not wait for the lease's end
  EXPECT_THAT(etcd.Get(kKey), IsEmpty());
}

TEST(RegistrationTest, ComesBackWhenItWasDeletedExpiredOrEtcdHasForgottenAll) {
  EtcdProcess etcd;
  const auto registration = Registration::Start(OptionsFor(etcd.options()), WorkerAt(7001, "d0"));
  const auto is_there = [&] { return etcd.Get(kKey).find("\"d0\"") != std::string::npos; };
  ASSERT_TRUE(Eventually(is_there));
  etcd.Control(std::string("del ") + kKey);
  EXPECT_TRUE(Eventually(is_there));
  // Somebody ends its lease.
  const std::string leases = etcd.Control("lease list | tail -n 1");
  etcd.Control("lease revoke " + leases);
  EXPECT_TRUE(Eventually(is_there));
  etcd.Kill();
  etcd.Forget();
  etcd.Start();
  EXPECT_TRUE(Eventually(is_there));
}

TEST(RegistrationTest, StartsBeforeEtcdAndGoesOverToAnotherEndpoint) {
  EtcdProcess etcd;
  EtcdOptions options = etcd.options();
  options.endpoints.insert(options.endpoints.begin(), "http://127.0.0.1:1");  // nobody is there
  etcd.Kill();
  const auto registration = Registration::Start(OptionsFor(options), WorkerAt(7001, "d0"));
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  etcd.Start();
  EXPECT_TRUE(Eventually([&] { return !etcd.Get(kKey).empty(); }));
}

TEST(RegistrationTest, KeepsItsKeyThroughTheOtherMembersWhenOneDies) {
  EtcdCluster etcd;
  const auto registration = Registration::Start(OptionsFor(etcd.options()), WorkerAt(7001, "d0"));
  ASSERT_TRUE(Eventually([&] { return !etcd.member(2).Get(kKey).empty(); }));
  etcd.member(0).Kill();  // the one that it renews its lease at
  etcd.member(2).AwaitAnswer();
  std::this_thread::sleep_for(std::chrono::seconds(3));  // three times what the lease lives
  EXPECT_TRUE(Eventually([&] { return !etcd.member(2).Get(kKey).empty(); }));
}

TEST(RegistrationTest, AWorkerThatComesAnewAtItsAddressTakesItsKeyOver) {
  const EtcdProcess etcd;
  testing::internal::CaptureStderr();
  auto first = Registration::Start(OptionsFor(etcd.options()), WorkerAt(7001, "first"));
  ASSERT_TRUE(Eventually([&] { return !etcd.Get(kKey).empty(); }));
  const auto second = Registration::Start(OptionsFor(etcd.options()), WorkerAt(7001, "second"));
  EXPECT_TRUE(Eventually([&] { return etcd.Get(kKey).find("\"second\"") != std::string::npos; }));
  // The first lives on, notices, and leaves it; its end does not take the second's key away.
  std::this_thread::sleep_for(std::chrono::milliseconds(1000));
  first.reset();
  EXPECT_THAT(etcd.Get(kKey), HasSubstr("\"second\""));
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("another worker, 'second', has registered the address 127.0.0.1:7001"));
}

TEST(RegistrationTest, NobodyWaitsLongForAnEtcdThatDoesNotAnswer) {
  const EtcdProcess etcd;
  auto registration = Registration::Start(OptionsFor(etcd.options()), WorkerAt(7001, "d0"));
  ASSERT_TRUE(Eventually([&] { return !etcd.Get(kKey).empty(); }));
  etcd.Signal(SIGSTOP);
  registration.reset();  // a hang would be the test's failure
  etcd.Signal(SIGCONT);
  EXPECT_TRUE(Eventually([&] { return etcd.Get(kKey).empty(); }));  // its lease ends
}

TEST(RegistrationTest, WithUserAndPassword) {
  EtcdProcess etcd;
  const test::TempDir directory;
  std::ofstream(directory.File("password")) << "secret\n";
  std::ofstream(directory.File("wrong")) << "guess\n";
  etcd.Control("user add root:root");
  etcd.Control("user grant-role root root");
  etcd.Control("role add workers");
  etcd.Control("role grant-permission --prefix=true workers readwrite /test/");
  etcd.Control("user add baton:secret");
  etcd.Control("user grant-role baton workers");
  etcd.Control("auth enable");
  etcd.control_flags = "--user root:root";
  RegistrationOptions options = OptionsFor(etcd.options());
  options.etcd.user = "baton";
  testing::internal::CaptureStderr();
  options.etcd.password_file = directory.File("wrong");
  {
    const auto refused = Registration::Start(options, WorkerAt(7001, "d0"));
    std::this_thread::sleep_for(std::chrono::milliseconds(300));
  }
  EXPECT_THAT(testing::internal::GetCapturedStderr(),
              HasSubstr("authentication failed, invalid user ID or password"));
  options.etcd.password_file = directory.File("password");
  const auto watch = WorkerWatch::Start(options.etcd, 10, [] {});
  const auto registration = Registration::Start(options, WorkerAt(7001, "d0"));
  EXPECT_TRUE(Eventually([&] { return Found(*watch) == Names({"d0 decode"}); }));
}

TEST(RegistrationTest, OverTls) {
  const test::TempDir directory;
  const std::string key = directory.File("key.pem");
  const std::string certificate = directory.File("cert.pem");
  const std::string make =
      "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "
      "/CN=localhost -addext subjectAltName=IP:127.0.0.1 -keyout " +
      key + " -out " + certificate + " 2>/dev/null";
  ASSERT_EQ(std::system(make.c_str()), 0);
  EtcdProcess etcd({"--cert-file=" + certificate, "--key-file=" + key}, "https",
                   "--cacert=" + certificate);
  RegistrationOptions options = OptionsFor(etcd.options());
  options.etcd.tls.ca = certificate;
  ASSERT_TRUE(CheckEtcdOptions(options.etcd).ok());
  const auto registration = Registration::Start(options, WorkerAt(7001, "d0"));
  EXPECT_TRUE(Eventually([&] { return !etcd.Get(kKey).empty(); }));
}

}  // namespace
}  // namespace baton::discovery
