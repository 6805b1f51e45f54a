#include "router/stop_matcher.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <ostream>
#include <random>
#include <string>
#include <vector>

namespace baton::router {
namespace {

struct Matched {
  std::string text;
  bool stopped = false;
  bool operator==(const Matched&) const = default;
};
std::ostream& operator<<(std::ostream& out, const Matched& matched) {
  return out << '"' << matched.text << "\", stopped " << matched.stopped;
}

// The definition: at the first byte that completes a stop string, cut at the longest that it
// completes.
Matched Naive(const std::string& text, const std::vector<std::string>& stops) {
  for (size_t end = 1; end <= text.size(); ++end) {
    size_t longest = 0;
    for (const std::string& stop : stops) {
      if (text.substr(0, end).ends_with(stop)) longest = std::max(longest, stop.size());
    }
    if (longest > 0) return {text.substr(0, end - longest), true};
  }
  return {text, false};
}

Matched Streamed(const std::vector<std::string>& pieces, const std::vector<std::string>& stops) {
  StopMatcher matcher(stops);
  Matched all;
  for (const std::string& piece : pieces) {
    StopMatcher::Result result = matcher.Push(piece);
    all.text += result.text;
    if (result.stopped) {
      all.stopped = true;
      return all;
    }
  }
  all.text += matcher.Flush();
  return all;
}

TEST(StopMatcherTest, WithoutStopStringsNothingIsHeldBack) {
  StopMatcher matcher({});
  EXPECT_EQ(matcher.Push("abc").text, "abc");
  EXPECT_EQ(matcher.Flush(), "");
}

TEST(StopMatcherTest, StopStringAcrossPiecesIsNeverDelivered) {
  EXPECT_EQ(Streamed({"one", " ##", "# two"}, {"###"}), (Matched{"one ", true}));
}

TEST(StopMatcherTest, HoldsBackOnlyWhatMayBeginAStopString) {
  StopMatcher matcher({"END", "N!"});
  EXPECT_EQ(matcher.Push("the E").text, "the ");
  EXPECT_EQ(matcher.Push("N").text, "");
  EXPECT_EQ(matcher.Push("x").text, "ENx");
  EXPECT_EQ(matcher.Push("EN").text, "");
  EXPECT_EQ(matcher.Flush(), "EN");
}

TEST(StopMatcherTest, FirstCompletedWinsAndOfThoseTheLongest) {
  EXPECT_EQ(Streamed({"abcd"}, {"abcd", "bc"}), (Matched{"a", true}));
  EXPECT_EQ(Streamed({"xabc"}, {"bc", "abc"}), (Matched{"x", true}));
}

TEST(StopMatcherTest, SelfOverlappingStopString) {
  EXPECT_EQ(Streamed({"aab", "aab", "aaab"}, {"aabaaa"}), (Matched{"aab", true}));
}

TEST(StopMatcherTest, AgreesWithTheNaiveDefinition) {
  const uint64_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937_64 random(seed);
  const auto below = [&random](uint64_t n) { return random() % n; };
  const auto word = [&](size_t bytes) {
    std::string text;
    for (size_t i = 0; i < bytes; ++i) text.push_back(static_cast<char>('a' + below(2)));
    return text;
  };
  int stopped = 0;
  for (int round = 0; round < 20000; ++round) {
    std::vector<std::string> stops;
    for (size_t n = below(4); n > 0; --n) stops.push_back(word(1 + below(7)));
    std::vector<std::string> pieces;
    std::string text;
    for (size_t n = below(12); n > 0; --n) pieces.push_back(word(below(5)));
    for (const std::string& piece : pieces) text += piece;
    const Matched expected = Naive(text, stops);
    stopped += expected.stopped ? 1 : 0;
    ASSERT_EQ(Streamed(pieces, stops), expected) << "round " << round << " text " << text;
  }
  EXPECT_GT(stopped, 1000);
  EXPECT_LT(stopped, 19000);
}

TEST(StopMatcherTest, HoldsNoMoreThanTheLongestStopString) {
  StopMatcher matcher({std::string(256, 'a') + "b"});
  size_t delivered = 0;
  for (int i = 0; i < 10000; ++i) delivered += matcher.Push("a").text.size();
  EXPECT_EQ(delivered, 10000u - 256u);
}

}  // namespace
}  // namespace baton::router
