#include "router/key_gate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <thread>

#include "router/error_code.h"
#include "tests/common/temp_dir.h"
#include "tests/router/scripted_dispatcher.h"

namespace baton::router {
namespace {

using testing::HasSubstr;

ApiKey Key(const std::string& secret, const std::string& tenant = "acme") {
  ApiKey key;
  key.name = "of-" + secret;
  key.tenant = tenant;
  key.digest = DigestOf(secret);
  return key;
}

class KeyGateTest : public testing::Test {
 protected:
  void Open(const std::vector<ApiKey>& keys) {
    Write(keys);
    auto gate = KeyGate::Create({.keys_file = path_, .file_poll = std::chrono::milliseconds(5)});
    ASSERT_TRUE(gate.ok()) << gate.status();
    gate_ = *std::move(gate);
  }
  void Write(const std::vector<ApiKey>& keys) { ASSERT_TRUE(WriteApiKeys(path_, keys).ok()); }
  absl::Status Enter(const std::string& authorization) {
    return gate_->Enter(authorization, SystemClock().Now()).status();
  }
  bool Eventually(const std::function<bool()>& done) {
    const TimePoint end = SystemClock().Now() + std::chrono::seconds(20);
    while (!done()) {
      if (SystemClock().Now() > end) return false;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
    return true;
  }

  const test::TempDir directory_;
  const std::string path_ = directory_.File("keys.yaml");
  std::unique_ptr<KeyGate> gate_;
};

TEST_F(KeyGateTest, WithoutAFileItIsOpen) {
  auto gate = KeyGate::Create({});
  ASSERT_TRUE(gate.ok());
  EXPECT_TRUE((*gate)->Check("").ok());
  const auto visit = (*gate)->Enter("", SystemClock().Now());
  ASSERT_TRUE(visit.ok());
  EXPECT_EQ(*visit, nullptr);
  EXPECT_EQ((*gate)->MetricsText(), "");
}

TEST_F(KeyGateTest, OnlyKnownKeysComeIn) {
  Open({Key("sesame")});
  EXPECT_TRUE(Enter("Bearer sesame").ok());
  EXPECT_TRUE(Enter("bearer  sesame ").ok());
  for (const char* wrong : {"", "sesame", "Bearer", "Bearer ", "Basic sesame", "Bearer sesam",
                            "Bearer sesamee", "Bearer SESAME"}) {
    const absl::Status status = Enter(wrong);
    EXPECT_TRUE(absl::IsUnauthenticated(status)) << wrong << ": " << status;
    EXPECT_EQ(ErrorCode(status), kInvalidApiKey);
  }
  EXPECT_TRUE(absl::IsUnauthenticated(Enter("Bearer " + std::string(1 << 20, 'x'))));
}

TEST_F(KeyGateTest, ARevokedKeyIsForbidden) {
  ApiKey key = Key("sesame");
  key.revoked = true;
  Open({key});
  EXPECT_TRUE(absl::IsPermissionDenied(Enter("Bearer sesame")));
}

TEST_F(KeyGateTest, AVisitHoldsItsPlaceUntilItsEnd) {
  ApiKey key = Key("sesame");
  key.limits.concurrent_requests = 1;
  Open({key});
  auto visit = gate_->Enter("Bearer sesame", SystemClock().Now());
  ASSERT_TRUE(visit.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(Enter("Bearer sesame")));
  (*visit)->Charge(70, SystemClock().Now());
  EXPECT_THAT(gate_->MetricsText(),
              HasSubstr("baton_key_tokens_total{key=\"of-sesame\",tenant=\"acme\"} 70"));
  visit->reset();
  EXPECT_TRUE(Enter("Bearer sesame").ok());
}

TEST_F(KeyGateTest, SaltsOfTenantsNeverMeet) {
  Open({Key("one", "a"), Key("two", "ab"), Key("three", "a")});
  const auto salt = [&](const char* authorization, const char* own) {
    return (*gate_->Enter(authorization, SystemClock().Now()))->CacheSalt(own);
  };
  EXPECT_EQ(salt("Bearer one", "x"), salt("Bearer three", "x"));
  EXPECT_NE(salt("Bearer one", "x"), salt("Bearer one", "y"));
  EXPECT_NE(salt("Bearer one", "b:x"), salt("Bearer two", "x"));
  EXPECT_NE(salt("Bearer one", ""), salt("Bearer two", ""));
}

TEST_F(KeyGateTest, AChangedFileCountsAndAnUnsoundOneDoesNot) {
  Open({Key("old")});
  Write({Key("new")});
  EXPECT_TRUE(Eventually([&] { return Enter("Bearer new").ok(); }));
  EXPECT_FALSE(Enter("Bearer old").ok());
  std::ofstream(path_) << "keys: 7";
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(Enter("Bearer new").ok());
}

TEST_F(KeyGateTest, WhatWasUsedOutlivesAChangeOfTheFile) {
  ApiKey key = Key("sesame");
  key.limits.tokens_per_day = 100;
  Open({key});
  (*gate_->Enter("Bearer sesame", SystemClock().Now()))->Charge(100'000, SystemClock().Now());
  Write({key, Key("other")});
  EXPECT_TRUE(Eventually([&] { return Enter("Bearer other").ok(); }));
  EXPECT_TRUE(absl::IsResourceExhausted(Enter("Bearer sesame")));
}

TEST_F(KeyGateTest, StrangersDoNotLearnOfTheLoad) {
  Open({Key("sesame")});
  ScriptedDispatcher dispatcher;
  dispatcher.set_room(absl::ResourceExhaustedError("full"));
  EXPECT_TRUE(absl::IsUnauthenticated(ComeIn(gate_.get(), dispatcher, "").status()));
  EXPECT_TRUE(absl::IsResourceExhausted(ComeIn(gate_.get(), dispatcher, "Bearer sesame").status()));
  EXPECT_THAT(gate_->MetricsText(),
              HasSubstr("baton_key_requests_total{key=\"of-sesame\",tenant=\"acme\"} 0"));
  EXPECT_TRUE(absl::IsResourceExhausted(ComeIn(nullptr, dispatcher, "").status()));
}

TEST_F(KeyGateTest, AFileThatCannotBeReadIsAnErrorAtTheStart) {
  EXPECT_TRUE(absl::IsNotFound(KeyGate::Create({.keys_file = path_}).status()));
}

}  // namespace
}  // namespace baton::router
