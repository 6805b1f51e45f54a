#include "cli/router_flags.h"

#include <gtest/gtest.h>

namespace baton::cli {
namespace {

TEST(CheckLoopback, OtherAddressesNeedInsecure) {
  for (const char* address : {"127.0.0.1:8000", "127.1.2.3:0", "[::1]:8000", "localhost:80"}) {
    EXPECT_TRUE(CheckLoopback(address, false).ok()) << address;
  }
  for (const char* address : {"0.0.0.0:8000", "10.0.0.1:80", "[::]:80", "example.org:80", ""}) {
    EXPECT_EQ(CheckLoopback(address, false).code(), absl::StatusCode::kPermissionDenied) << address;
    EXPECT_TRUE(CheckLoopback(address, true).ok()) << address;
  }
}

}  // namespace
}  // namespace baton::cli
