#include "common/status_macros.h"

#include <gtest/gtest.h>

#include <memory>

namespace baton {
namespace {

absl::StatusOr<std::unique_ptr<int>> Half(int value) {
  if (value % 2 != 0) return absl::InvalidArgumentError("odd");
  return std::make_unique<int>(value / 2);
}

absl::StatusOr<int> Quarter(int value) {
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<int> half, Half(value));
  BATON_ASSIGN_OR_RETURN(const std::unique_ptr<int> quarter, Half(*half));
  return *quarter;
}

absl::Status Check(int value) {
  BATON_RETURN_IF_ERROR(Half(value).status());
  return absl::OkStatus();
}

TEST(StatusMacros, PassValuesAndErrorsOn) {
  EXPECT_EQ(*Quarter(12), 3);
  EXPECT_EQ(Quarter(6).status().message(), "odd");
  EXPECT_TRUE(Check(2).ok());
  EXPECT_FALSE(Check(3).ok());
}

TEST(StatusMacrosDeathTest, FailedCheckSaysWhereAndWhy) {
  EXPECT_DEATH(BATON_CHECK(1 + 1 == 3, "sums are right"), "1 \\+ 1 == 3 \\(sums are right\\)");
}

}  // namespace
}  // namespace baton
