#include "router/session_memory.h"

#include <gtest/gtest.h>

namespace baton::router {
namespace {

TEST(SessionMemoryTest, ForgetsTheLeastRecentlyUsed) {
  SessionMemory memory(2);
  memory.Remember(1, {std::nullopt, 10});
  memory.Remember(2, {7, 11});
  memory.Remember(1, {std::nullopt, 12});
  memory.Remember(3, {8, 13});
  EXPECT_EQ(memory.size(), 2u);
  EXPECT_EQ(memory.Find(1).decode, 12u);
  EXPECT_EQ(memory.Find(1).prefill, std::nullopt);
  EXPECT_EQ(memory.Find(2).decode, std::nullopt);
  EXPECT_EQ(memory.Find(3).prefill, 8u);
}

TEST(SessionKeyTest, SessionsAreTheirTenants) {
  EXPECT_EQ(SessionKey("a", "s"), SessionKey("a", "s"));
  EXPECT_NE(SessionKey("a", "s"), SessionKey("b", "s"));
  EXPECT_NE(SessionKey("a", "s"), SessionKey("a", "t"));
  EXPECT_NE(SessionKey("", "as"), SessionKey("a", "s"));
}

}  // namespace
}  // namespace baton::router
