#include "planner/answer_lengths.h"

#include <algorithm>
#include <cstddef>
#include <iterator>

namespace baton::planner {
namespace {

constexpr size_t kEnoughAnswers = 8;  // that have reached a length, to tell how many end there
constexpr double kMost = 0.5;

}  // namespace

AnswerLengths::AnswerLengths(std::span<const AnswerSoFar> answers, std::span<const double> before)
    : before_(before.begin(), before.end()) {
  std::ranges::sort(before_);
  std::vector<AnswerSoFar> sorted(answers.begin(), answers.end());
  std::ranges::sort(sorted, {}, &AnswerSoFar::tokens);
  const size_t known = sorted.size() < kEnoughAnswers ? 0 : sorted.size() - kEnoughAnswers + 1;
  double alive = 1;
  for (size_t i = 0; i < known;) {
    const double length = sorted[i].tokens;
    const auto at_risk = static_cast<double>(sorted.size() - i);
    double ends = 0;
    for (; i < sorted.size() && sorted[i].tokens == length; ++i) ends += sorted[i].ended ? 1 : 0;
    alive *= 1 - ends / at_risk;
    steps_.push_back({.length = length, .alive = alive});
  }
  if (steps_.empty()) return;
  const Step& last = steps_.back();
  double more = MoreBeyond(last.length);
  if (last.alive > kMost) more = std::max(more, last.length);
  more *= last.alive;
  for (size_t i = steps_.size(); i-- > 0;) {
    if (i + 1 < steps_.size()) more += steps_[i].alive * (steps_[i + 1].length - steps_[i].length);
    steps_[i].more = more;
  }
}

double AnswerLengths::Expected(double tokens) const {
  const auto next = std::ranges::upper_bound(steps_, tokens, {}, &Step::length);
  if (next == steps_.end()) return tokens + MoreBeyond(tokens);
  const double alive = next == steps_.begin() ? 1 : std::prev(next)->alive;
  if (alive <= 0) return tokens + MoreBeyond(tokens);
  return next->length + next->more / alive;
}

double AnswerLengths::MoreBeyond(double tokens) const {
  const auto first = std::ranges::upper_bound(before_, tokens);
  if (first == before_.end()) return tokens;
  double sum = 0;
  for (auto it = first; it != before_.end(); ++it) sum += *it - tokens;
  return sum / static_cast<double>(before_.end() - first);
}

}  // namespace baton::planner
