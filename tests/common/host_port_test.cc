#include "common/host_port.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(HostPortTest, TakesNamesAndBothKindsOfAddresses) {
  for (const char* const sound :
       {"10.0.0.1:80", "localhost:1", "[::1]:65535", "a-b.c_d.svc:7000", "[fe80::1.2.3.4]:9"}) {
    const auto parsed = ParseHostPort(sound);
    ASSERT_TRUE(parsed.ok()) << sound;
    EXPECT_EQ(parsed->ToString(), sound);
  }
  EXPECT_EQ(ParseHostPort("[::1]:80")->host, "[::1]");
  EXPECT_EQ(ParseHostPort("[::1]:80")->port, 80);
}

TEST(HostPortTest, RefusesAllElse) {
  for (const char* const unsound :
       {"", "a", ":80", "a:", "a:0", "a:65536", "a:-1", "a:+1", "a:8 ", "a:80:90", "::1:80",
        "unix:socket", "dns:///a:80", "a b:80", "[]:80", "[::1:80", "a/b:80", "a%25:80"}) {
    EXPECT_EQ(CheckHostPort(unsound).code(), absl::StatusCode::kInvalidArgument) << unsound;
  }
  EXPECT_TRUE(CheckHostPort(std::string(253, 'a') + ":80").ok());
  EXPECT_FALSE(CheckHostPort(std::string(254, 'a') + ":80").ok());
}

}  // namespace
}  // namespace baton
