#include "engine/random.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::engine {
namespace {

using testing::ElementsAre;

// The known answers of the authors' Random123 library.
TEST(Philox, GivesTheKnownAnswers) {
  EXPECT_THAT(Philox4x32({0, 0, 0, 0}, {0, 0}),
              ElementsAre(0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8));
  EXPECT_THAT(Philox4x32({~0u, ~0u, ~0u, ~0u}, {~0u, ~0u}),
              ElementsAre(0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd));
  EXPECT_THAT(
      Philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}, {0xa4093822, 0x299f31d0}),
      ElementsAre(0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1));
}

TEST(UniformAt, IsUniformAndNeverOne) {
  double sum = 0, sum_of_squares = 0;
  constexpr int kDraws = 100000;
  for (int i = 0; i < kDraws; ++i) {
    const double u = UniformAt(42, static_cast<uint64_t>(i));
    ASSERT_GE(u, 0);
    ASSERT_LT(u, 1);
    sum += u;
    sum_of_squares += u * u;
  }
  EXPECT_NEAR(sum / kDraws, 0.5, 0.005);  // five standard errors
  EXPECT_NEAR(sum_of_squares / kDraws, 1.0 / 3, 0.005);
}

TEST(UniformAt, SeedAndPositionBothCount) {
  EXPECT_NE(UniformAt(1, 0), UniformAt(0, 1));
  EXPECT_NE(UniformAt(1, 0), UniformAt(uint64_t{1} << 32, 0));
  EXPECT_NE(UniformAt(0, 1), UniformAt(0, uint64_t{1} << 32));
}

}  // namespace
}  // namespace baton::engine
