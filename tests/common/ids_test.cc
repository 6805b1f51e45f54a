#include "common/ids.h"

#include <gtest/gtest.h>

#include <set>

namespace baton {
namespace {

TEST(Ids, TextForm) {
  const Attempt attempt{{0x0123456789abcdef, 1}, 3};
  EXPECT_EQ(ToString(attempt.request), "0123456789abcdef-0000000000000001");
  EXPECT_EQ(ToString(attempt), "0123456789abcdef-0000000000000001#3");
}

TEST(Ids, EpochsOfOneRequestAreOrdered) {
  const Attempt first{{7, 9}, 0}, second{{7, 9}, 1};
  EXPECT_LT(first, second);
  EXPECT_EQ(first.request, second.request);
  EXPECT_NE(first, second);
}

TEST(Ids, RandomNumbersDiffer) {
  std::set<uint64_t> seen;
  for (int i = 0; i < 1000; ++i) seen.insert(RandomU64());
  EXPECT_EQ(seen.size(), 1000u);
}

}  // namespace
}  // namespace baton
