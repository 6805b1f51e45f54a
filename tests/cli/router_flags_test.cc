#include "cli/router_flags.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

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

}  // namespace
}  // namespace baton::cli
