#pragma once

// How long answers become that still go on. Pure.

#include <span>
#include <vector>

namespace baton::planner {

struct AnswerSoFar {
  double tokens = 0;
  bool ended = false;
};

// What answers that go on are expected to get in the end. They are longer than they are now, and
// tell so: survival by length is estimated from `answers`, ended or not (Kaplan and Meier,
// "Nonparametric estimation from incomplete observations" (1958)), up to the length that enough of
// them have reached. Beyond that it is as in `before`, lengths of other answers that ended; where
// these know no such length, an answer gets as much again as it has, and at least that while most
// go on: of those that came with them only the short ones can have ended. So a change to longer
// answers shows before the first of them has ended.
class AnswerLengths {
 public:
  AnswerLengths(std::span<const AnswerSoFar> answers, std::span<const double> before);

  // In the end, of one that has `tokens` and goes on.
  double Expected(double tokens) const;

 private:
  struct Step {
    double length = 0;
    double alive = 0;  // share that gets more than that
    double more = 0;   // tokens beyond, on average over all
  };
  double MoreBeyond(double tokens) const;

  std::vector<double> before_;  // ascending
  std::vector<Step> steps_;     // likewise
};

}  // namespace baton::planner
