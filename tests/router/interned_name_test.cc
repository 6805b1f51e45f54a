#include "router/interned_name.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace baton::router {
namespace {

TEST(InternedNameTest, IsItsText) {
  std::vector<InternedName> names;
  for (int i = 0; i < 1000; ++i) names.emplace_back(std::to_string(i));
  for (int i = 0; i < 1000; ++i) {
    const std::string text = std::to_string(i);
    EXPECT_EQ(names[static_cast<size_t>(i)], InternedName(text));
    EXPECT_EQ(names[static_cast<size_t>(i)].text(), text);
  }
  EXPECT_FALSE(names[0] == names[1]);
  EXPECT_EQ(InternedName(), InternedName(""));
}

}  // namespace
}  // namespace baton::router
