#include "kv_transfer/offer_fence.h"

#include <gtest/gtest.h>

namespace baton::kv_transfer {
namespace {

Attempt Of(uint64_t request, uint32_t epoch) {
  return {.request = {.high = 1, .low = request}, .epoch = epoch};
}

TEST(OfferFenceTest, AdmitsEachEpochOnceAndNoneOlder) {
  OfferFence fence;
  EXPECT_EQ(fence.Newest(Of(1, 1).request), std::nullopt);
  EXPECT_TRUE(fence.Admit(Of(1, 2)));
  EXPECT_FALSE(fence.Admit(Of(1, 2)));
  EXPECT_FALSE(fence.Admit(Of(1, 1)));
  EXPECT_TRUE(fence.Admit(Of(1, 5)));
  EXPECT_FALSE(fence.Admit(Of(1, 4)));
  EXPECT_EQ(fence.Newest(Of(1, 1).request), 5u);
  EXPECT_TRUE(fence.Admit(Of(2, 1))) << "another request";
}

TEST(OfferFenceTest, RemembersHowTheNewestEpochEnded) {
  OfferFence fence;
  const auto full = absl::ResourceExhaustedError("full");
  fence.SetEnd(Of(1, 1), full);
  EXPECT_TRUE(fence.EndOf(Of(1, 1)).ok()) << "it was never offered";
  fence.Admit(Of(1, 1));
  fence.SetEnd(Of(1, 1), full);
  EXPECT_EQ(fence.EndOf(Of(1, 1)), full);
  fence.Admit(Of(1, 2));
  EXPECT_TRUE(fence.EndOf(Of(1, 1)).ok());
  EXPECT_TRUE(fence.EndOf(Of(1, 2)).ok());
  fence.SetEnd(Of(1, 1), full);
  EXPECT_TRUE(fence.EndOf(Of(1, 2)).ok()) << "an older epoch's end is not the newer one's";
}

TEST(OfferFenceTest, HoweverManyRequestsComeItForgetsTheOldest) {
  OfferFence fence;
  for (uint64_t request = 0; request < OfferFence::kRemembered + 100; ++request) {
    EXPECT_TRUE(fence.Admit(Of(request, 1)));
    EXPECT_TRUE(fence.Admit(Of(request, 2))) << "an epoch takes no place of its own";
  }
  EXPECT_EQ(fence.Newest(Of(99, 1).request), std::nullopt);
  EXPECT_EQ(fence.Newest(Of(100, 1).request), 2u);
}

}  // namespace
}  // namespace baton::kv_transfer
