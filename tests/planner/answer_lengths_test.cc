#include "planner/answer_lengths.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

namespace baton::planner {
namespace {

TEST(AnswerLengths, FewGoByThoseOfBefore) {
  const std::vector<AnswerSoFar> answers = {{.tokens = 0}, {.tokens = 30}, {.tokens = 200}};
  const AnswerLengths lengths(answers, std::vector<double>{40, 10, 100});
  EXPECT_EQ(lengths.Expected(0), 50);     // all
  EXPECT_EQ(lengths.Expected(30), 70);    // those above 30
  EXPECT_EQ(lengths.Expected(200), 400);  // none is: as much again
}

TEST(AnswerLengths, ManyThatGoOnAreLongerThanAllThatEndedBefore) {
  std::vector<AnswerSoFar> answers;
  for (int i = 0; i <= 100; ++i) answers.push_back({.tokens = static_cast<double>(2 * i)});
  const AnswerLengths lengths(answers, std::vector<double>(64, 40.0));
  // Eight have 186 or more, and none ended below.
  EXPECT_EQ(lengths.Expected(0), 372);
  EXPECT_EQ(lengths.Expected(100), 372);
  EXPECT_EQ(lengths.Expected(200), 400);
}

TEST(AnswerLengths, WhereManyEndFewGoOn) {
  std::vector<AnswerSoFar> answers;
  for (int i = 0; i < 90; ++i) answers.push_back({.tokens = 20, .ended = true});
  for (int i = 0; i < 10; ++i) answers.push_back({.tokens = 100, .ended = false});
  const AnswerLengths lengths(answers, std::vector<double>(64, 500.0));
  EXPECT_NEAR(lengths.Expected(0), 0.9 * 20 + 0.1 * 500, 1e-9);
  EXPECT_NEAR(lengths.Expected(50), 500, 1e-9);
}

// As in a worker at any time: of a random stream, those that came within a window, each as far as
// it is.
TEST(AnswerLengths, TheMeanIsRightInASteadyState) {
  std::mt19937_64 random(7);
  std::exponential_distribution<double> length(1.0 / 300);
  std::vector<AnswerSoFar> answers;
  std::vector<double> before;
  for (int i = 0; i < 400; ++i) before.push_back(std::ceil(length(random)));
  for (int i = 0; i < 4000; ++i) {
    const double age = 0.1 * i;  // tokens since it came: 0 to 400
    const double whole = std::ceil(length(random));
    answers.push_back({.tokens = std::min(whole, std::floor(age)), .ended = whole <= age});
  }
  const AnswerLengths lengths(answers, before);
  double sum = 0;
  for (const AnswerSoFar& answer : answers) {
    sum += answer.ended ? answer.tokens : lengths.Expected(answer.tokens);
  }
  EXPECT_NEAR(sum / 4000, 300, 20);
}

TEST(AnswerLengths, OfNothingIsNothingKnown) { EXPECT_EQ(AnswerLengths({}, {}).Expected(7), 14); }

}  // namespace
}  // namespace baton::planner
