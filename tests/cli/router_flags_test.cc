#include "cli/router_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <algorithm>

namespace baton::cli {
namespace {

absl::Status Check(const char* address, bool tls, bool insecure) {
  return CheckAddress("--http", address, tls, insecure, "--tls-cert and --tls-key");
}

TEST(CheckAddress, OtherThanLoopbackNeedsTlsOrInsecure) {
  for (const char* address : {"127.0.0.1:8000", "127.1.2.3:0", "[::1]:8000", "localhost:80"}) {
    EXPECT_TRUE(Check(address, false, false).ok()) << address;
  }
  for (const char* address : {"0.0.0.0:8000", "10.0.0.1:80", "[::]:80", "example.org:80", ""}) {
    const absl::Status status = Check(address, false, false);
    EXPECT_TRUE(absl::IsPermissionDenied(status)) << address;
    EXPECT_THAT(std::string(status.message()), testing::HasSubstr("--tls-cert"));
    EXPECT_TRUE(Check(address, true, false).ok()) << address;
    EXPECT_TRUE(Check(address, false, true).ok()) << address;
  }
}

TEST(ControlFlags, ReachTheRouterThatUpStarts) {
  EXPECT_TRUE(ControlArguments({}).empty());
  ControlFlags flags;
  flags.control = "act";
  flags.ttft_slo = 2.5;
  flags.itl_slo = 0.05;
  flags.cooldown_s = 7;
  flags.least_decode = 3;
  flags.most_workers = 9;
  flags.scale = "kubernetes";
  flags.kubernetes.api = "https://10.0.0.1:6443";
  const std::vector<std::string> arguments = ControlArguments(flags);
  ControlFlags parsed;
  CLI::App app;
  AddControlFlags(&app, &parsed);
  std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());
  app.parse(reversed);
  EXPECT_EQ(ControlArguments(parsed), arguments);
  EXPECT_EQ(parsed.ttft_slo, 2.5);
  EXPECT_EQ(parsed.kubernetes.api, "https://10.0.0.1:6443");
  const auto options = ControlOptionsOf(parsed, {}, "router");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ((*options)->control.most_workers, 9);
  EXPECT_NE((*options)->executor, nullptr);
}

TEST(ControlFlags, RefusesWhatMakesNoSense) {
  EXPECT_EQ(*ControlOptionsOf({}, {}, "router"), nullptr);
  ControlFlags flags;
  flags.control = "act";
  flags.most_workers = 4;
  EXPECT_THAT(std::string(ControlOptionsOf(flags, {}, "router").status().message()),
              testing::HasSubstr("--control-scale"));
  flags.scale = "file";
  flags.replicas_file = "nowhere/replicas";
  EXPECT_TRUE(absl::IsNotFound(ControlOptionsOf(flags, {}, "router").status()));
  flags.scale = "kubernetes";
  flags.least_workers = 5;
  EXPECT_THAT(std::string(ControlOptionsOf(flags, {}, "router").status().message()),
              testing::HasSubstr("--control-least-workers 5 is more than"));
}

}  // namespace
}  // namespace baton::cli
