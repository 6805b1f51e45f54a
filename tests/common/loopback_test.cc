#include "common/loopback.h"

#include <gtest/gtest.h>

namespace baton {
namespace {

TEST(LoopbackTest, OnlyThisMachinesAddresses) {
  for (const char* address : {"127.0.0.1:8000", "127.1.2.3:0", "[::1]:8000", "localhost:80"}) {
    EXPECT_TRUE(IsLoopback(address)) << address;
  }
  for (const char* address : {"0.0.0.0:80", "10.0.0.1:80", "[::]:80", "example.org:80",
                              "localhost.example.org:80", "1270.0.0.1:80", ""}) {
    EXPECT_FALSE(IsLoopback(address)) << address;
  }
}

}  // namespace
}  // namespace baton
