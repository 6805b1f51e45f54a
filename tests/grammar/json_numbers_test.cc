#include "grammar/json_numbers.h"

#include <gtest/gtest.h>

#include <cmath>

#include "grammar/lazy_dfa.h"
#include "tests/grammar/matching.h"

namespace baton::grammar {
namespace {

class Numbers {
 public:
  Numbers(const NumberBounds& bounds, bool integer) {
    Grammar grammar;
    const RuleId rule = grammar.DeclareRule();
    grammar.DefineRule(rule, BoundedNumber(bounds, integer, &grammar));
    auto automaton = Automaton::Create(grammar, rule);
    if (automaton.ok()) dfa_ = std::make_unique<LazyDfa>(*automaton);
  }
  bool empty() const { return dfa_ == nullptr; }
  bool Takes(std::string_view text) {
    int32_t state = dfa_->begin();
    for (const char c : text) {
      if (state == LazyDfa::kDead) return false;
      state = dfa_->Next(state, static_cast<uint8_t>(c));
    }
    return state != LazyDfa::kDead && dfa_->accepts(state);
  }

 private:
  std::unique_ptr<LazyDfa> dfa_;
};

// Hundredths, written in the shortest way, with a further zero, and with two digits.
std::string Text(int hundredths) {
  const int magnitude = std::abs(hundredths);
  std::string text = (hundredths < 0 ? "-" : "") + std::to_string(magnitude / 100);
  if (magnitude % 100 == 0) return text;
  text += "." + std::to_string(magnitude / 10 % 10);
  if (magnitude % 10 != 0) text += std::to_string(magnitude % 10);
  return text;
}

TEST(BoundedNumberTest, TakesExactlyWhatLiesBetween) {
  std::mt19937 random(31);
  for (int round = 0; round < 150; ++round) {
    const int scale = round % 3 == 0 ? 50 : round % 3 == 1 ? 1500 : 120'000;
    const auto draw = [&] {
      const int value = static_cast<int>(random() % (2 * static_cast<unsigned>(scale))) - scale;
      return random() % 3 == 0 ? value / 100 * 100 : value;
    };
    const int low = draw();
    const int high = low + static_cast<int>(random() % static_cast<unsigned>(scale));
    NumberBounds bounds{.low_open = random() % 2 == 0, .high_open = random() % 2 == 0};
    const bool has_low = random() % 5 != 0;
    const bool has_high = random() % 5 != 0;
    if (has_low) bounds.low = *ParseDecimal(Text(low));
    if (has_high) bounds.high = *ParseDecimal(Text(high));
    const bool integer = random() % 2 == 0;
    Numbers numbers(bounds, integer);
    bool any = false;
    for (int value = low - 300; value <= high + 300; value += scale > 2000 ? 7 : 1) {
      const bool above = !has_low || (bounds.low_open ? value > low : value >= low);
      const bool below = !has_high || (bounds.high_open ? value < high : value <= high);
      const bool inside = above && below && (!integer || value % 100 == 0);
      any |= inside;
      if (numbers.empty()) {
        ASSERT_FALSE(inside);
        continue;
      }
      ASSERT_EQ(numbers.Takes(Text(value)), inside)
          << Text(value) << " in " << Text(low) << " " << Text(high) << " " << integer
          << bounds.low_open << bounds.high_open << has_low << has_high;
      if (!integer && value % 100 != 0) {
        EXPECT_EQ(numbers.Takes(Text(value) + "0"), inside);
      }
    }
  }
}

TEST(BoundedNumberTest, HasNoOtherForms) {
  Numbers any_from_zero({.low = Decimal{}}, false);
  for (const char* refused : {"", "01", "-0", "-1", "1.", ".5", "1e3", "+1", "-"}) {
    EXPECT_FALSE(any_from_zero.Takes(refused)) << refused;
  }
  for (const char* taken : {"0", "0.0", "0.125", "1234567890123456", "10.50"}) {
    EXPECT_TRUE(any_from_zero.Takes(taken)) << taken;
  }
  EXPECT_FALSE(any_from_zero.Takes("12345678901234567"));
}

TEST(BoundedNumberTest, NothingLiesBetweenTheWrongWayRound) {
  EXPECT_TRUE(Numbers({.low = *ParseDecimal("3"), .high = *ParseDecimal("2")}, true).empty());
  EXPECT_TRUE(Numbers({.low = *ParseDecimal("2.2"), .high = *ParseDecimal("2.8")}, true).empty());
  EXPECT_TRUE(Numbers({.low = Decimal{}, .high = Decimal{}, .low_open = true}, false).empty());
}

TEST(ParseDecimalTest, StripsZerosAndRefusesTheRest) {
  EXPECT_EQ(ParseDecimal("-012.500")->whole, "12");
  EXPECT_EQ(ParseDecimal("-012.500")->fraction, "5");
  EXPECT_TRUE(ParseDecimal("-012.500")->negative);
  EXPECT_FALSE(ParseDecimal("-0.0")->negative);
  for (const char* text : {"", "-", "1e5", "12345678901234567", "0.12345678901234567", "x"}) {
    EXPECT_FALSE(ParseDecimal(text).ok()) << text;
  }
}

}  // namespace
}  // namespace baton::grammar
