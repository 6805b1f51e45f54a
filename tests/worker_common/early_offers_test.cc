#include "worker_common/early_offers.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::worker_common {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

kv_transfer::OfferInfo Offer(uint64_t number) {
  kv_transfer::OfferInfo offer;
  offer.attempt.request.low = number;
  offer.tokens = static_cast<int32_t>(number);
  return offer;
}

TEST(EarlyOffers, GivesEachOfferOnce) {
  EarlyOffers offers(10, seconds(5));
  const TimePoint start{seconds(1)};
  EXPECT_TRUE(offers.Add(Offer(1), start));
  EXPECT_FALSE(offers.Add(Offer(1), start));
  EXPECT_TRUE(offers.Add(Offer(2), start));
  EXPECT_EQ(offers.Take(Offer(1).attempt)->tokens, 1);
  EXPECT_FALSE(offers.Take(Offer(1).attempt));
  EXPECT_EQ(offers.size(), 1u);
}

TEST(EarlyOffers, IsBoundedInNumberAndTime) {
  EarlyOffers offers(2, seconds(5));
  const TimePoint start{seconds(1)};
  EXPECT_TRUE(offers.Add(Offer(1), start));
  EXPECT_TRUE(offers.Add(Offer(2), start + seconds(1)));
  EXPECT_FALSE(offers.Add(Offer(3), start + seconds(2)));
  EXPECT_THAT(offers.Expire(start + seconds(4)), IsEmpty());
  EXPECT_THAT(offers.Expire(start + seconds(5)), ElementsAre(Offer(1).attempt));
  EXPECT_TRUE(offers.Add(Offer(3), start + seconds(5)));
  EXPECT_THAT(offers.TakeAll(), ElementsAre(Offer(2).attempt, Offer(3).attempt));
  EXPECT_EQ(offers.size(), 0u);
}

// A taken offer leaves no trace that could expire the next one of the same attempt early.
TEST(EarlyOffers, TakenOffersDoNotExpire) {
  EarlyOffers offers(2, seconds(5));
  const TimePoint start{seconds(1)};
  EXPECT_TRUE(offers.Add(Offer(1), start));
  EXPECT_TRUE(offers.Take(Offer(1).attempt));
  EXPECT_TRUE(offers.Add(Offer(1), start + seconds(4)));
  EXPECT_THAT(offers.Expire(start + seconds(6)), IsEmpty());
  EXPECT_EQ(offers.size(), 1u);
}

}  // namespace
}  // namespace baton::worker_common
