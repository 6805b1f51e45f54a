#include "discovery/leadership.h"

#include <gtest/gtest.h>
#include <signal.h>

#include <chrono>
#include <memory>
#include <thread>

#include "tests/discovery/discovery_testing.h"
#include "tests/discovery/etcd_process.h"

namespace baton::discovery {
namespace {

constexpr char kKey[] = "/test/control";

std::unique_ptr<Leadership> Candidate(const EtcdProcess& etcd, const std::string& name,
                                      std::chrono::seconds ttl = std::chrono::seconds(1)) {
  return Leadership::Start({.etcd = etcd.options(), .key = "control", .name = name, .ttl = ttl});
}

TEST(LeadershipTest, TheFirstLeadsAndItsEndLetsTheOther) {
  const EtcdProcess etcd;
  auto first = Candidate(etcd, "r1");
  ASSERT_TRUE(Eventually([&] { return first->Leads(); }));
  const auto second = Candidate(etcd, "r2");
  ASSERT_TRUE(Eventually([&] { return second->Leader() == "r1"; }));
  EXPECT_FALSE(second->Leads());
  EXPECT_EQ(first->Leader(), "r1");
  // Longer than its lease: it is kept alive.
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  ASSERT_TRUE(Eventually([&] { return first->Leads(); }));
  EXPECT_FALSE(second->Leads());
  first.reset();
  EXPECT_TRUE(Eventually([&] { return second->Leads() && second->Leader() == "r2"; }));
}

TEST(LeadershipTest, AnEndGivesUpAtOnceWhatWouldElseLastAsLongAsTheLease) {
  const EtcdProcess etcd;
  auto first = Candidate(etcd, "r1", std::chrono::seconds(3600));
  ASSERT_TRUE(Eventually([&] { return first->Leads(); }));
  first.reset();
  EXPECT_EQ(etcd.Get(kKey), "");
  const auto second = Candidate(etcd, "r2", std::chrono::seconds(3600));
  EXPECT_TRUE(Eventually([&] { return second->Leads(); }));
}

// The lease of one that died runs out: so etcd's admin makes it run out here.
TEST(LeadershipTest, WhoLosesTheLeaseLosesTheLeadAndNeverTwoLead) {
  const EtcdProcess etcd;
  const auto first = Candidate(etcd, "r1");
  ASSERT_TRUE(Eventually([&] { return first->Leads(); }));
  const std::string lease = etcd.Control("lease list | tail -n 1");
  const auto second = Candidate(etcd, "r2");
  ASSERT_TRUE(Eventually([&] { return second->Leader() == "r1"; }));
  etcd.Control("lease revoke " + lease);
  // Whoever is first now: then it is one, and both say who.
  ASSERT_TRUE(Eventually([&] {
    return first->Leads() != second->Leads() && first->Leader() == second->Leader() &&
           first->Leader() == (first->Leads() ? "r1" : "r2");
  }));
}

TEST(LeadershipTest, WithoutEtcdNobodyLeadsOnceTheLeaseMayHaveRunOut) {
  EtcdProcess etcd;
  const auto only = Candidate(etcd, "r1");
  ASSERT_TRUE(Eventually([&] { return only->Leads(); }));
  etcd.Signal(SIGSTOP);
  EXPECT_TRUE(Eventually([&] { return !only->Leads(); }));
  etcd.Signal(SIGCONT);
  EXPECT_TRUE(Eventually([&] { return only->Leads(); }));
  etcd.Kill();
  EXPECT_TRUE(Eventually([&] { return !only->Leads() && only->Leader().empty(); }));
  etcd.Forget();
  etcd.Start();
  EXPECT_TRUE(Eventually([&] { return only->Leads(); }));
}

}  // namespace
}  // namespace baton::discovery
