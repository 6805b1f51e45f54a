#include "worker_common/attempt_book.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace baton::worker_common {
namespace {

using std::chrono::seconds;
using testing::ElementsAre;
using testing::IsEmpty;

Attempt At(uint64_t number, uint32_t epoch) {
  return {.request = {.high = 0, .low = number}, .epoch = epoch};
}

const TimePoint kStart{seconds(1000)};

TEST(AttemptBook, EntersOnceAndOnlyNewerEpochs) {
  AttemptBook book(10);
  EXPECT_TRUE(book.Enter(At(1, 2), 1, kStart, seconds(5)).ok());
  EXPECT_EQ(book.Enter(At(1, 2), 1, kStart, seconds(5)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(book.Enter(At(1, 1), 1, kStart, seconds(5)).code(),
            absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(book.Enter(At(1, 3), 1, kStart, seconds(5)).ok());
  EXPECT_THAT(book.OlderThan(At(1, 3)), ElementsAre(At(1, 2)));
  EXPECT_THAT(book.OlderThan(At(2, 3)), IsEmpty());
}

TEST(AttemptBook, RemembersEpochsOfWhatIsOver) {
  AttemptBook book(10);
  ASSERT_TRUE(book.Enter(At(1, 2), 1, kStart, seconds(5)).ok());
  EXPECT_FALSE(book.WasEntered(At(1, 3)));
  book.Remove(At(1, 2));
  EXPECT_EQ(book.Find(At(1, 2)), nullptr);
  EXPECT_TRUE(book.WasEntered(At(1, 2)));
  EXPECT_TRUE(book.WasEntered(At(1, 0)));
  EXPECT_FALSE(book.Enter(At(1, 2), 1, kStart, seconds(5)).ok());
}

TEST(AttemptBook, ForgetsTheOldestRequestsInTheEnd) {
  AttemptBook book(10);
  for (uint64_t i = 0; i <= AttemptBook::kRemembered; ++i) {
    ASSERT_TRUE(book.Enter(At(i, 0), 1, kStart, seconds(5)).ok());
    book.Remove(At(i, 0));
  }
  EXPECT_FALSE(book.WasEntered(At(0, 0)));
  EXPECT_TRUE(book.WasEntered(At(1, 0)));
}

TEST(AttemptBook, RefusesWhatIsTooMuchOrTooLate) {
  AttemptBook book(2);
  ASSERT_TRUE(book.Enter(At(1, 0), 1, kStart, seconds(5)).ok());
  ASSERT_TRUE(book.Enter(At(2, 0), 1, kStart, seconds(5)).ok());
  EXPECT_EQ(book.Enter(At(3, 0), 1, kStart, seconds(5)).code(),
            absl::StatusCode::kResourceExhausted);
  book.Remove(At(1, 0));
  EXPECT_EQ(book.Enter(At(3, 0), 1, kStart, seconds(0)).code(),
            absl::StatusCode::kDeadlineExceeded);
  EXPECT_TRUE(book.Enter(At(3, 0), 1, kStart, seconds(5)).ok())
      << "what was refused may come again";
}

TEST(AttemptBook, FindsTheUnansweredByLinkAndDeadline) {
  AttemptBook book(10);
  ASSERT_TRUE(book.Enter(At(1, 0), 7, kStart, seconds(1)).ok());
  ASSERT_TRUE(book.Enter(At(2, 0), 7, kStart, seconds(3)).ok());
  ASSERT_TRUE(book.Enter(At(3, 0), 8, kStart, seconds(2)).ok());
  EXPECT_THAT(book.OfLink(7), ElementsAre(At(1, 0), At(2, 0)));
  EXPECT_THAT(book.Expired(kStart), IsEmpty());
  EXPECT_THAT(book.Expired(kStart + seconds(2)), ElementsAre(At(1, 0), At(3, 0)));
  book.Find(At(1, 0))->answered = true;
  EXPECT_THAT(book.OfLink(7), ElementsAre(At(2, 0)));
  EXPECT_THAT(book.Expired(kStart + seconds(2)), ElementsAre(At(3, 0)));
}

}  // namespace
}  // namespace baton::worker_common
