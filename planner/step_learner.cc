#include "planner/step_learner.h"

#include <algorithm>
#include <cmath>

namespace baton::planner {
namespace {

constexpr double kForget = 0.998;       // of each report: half is forgotten after 350
constexpr double kPriorVariance = 1e4;  // of coefficients in these units
constexpr double kNoiseForget = 0.98;
constexpr double kSmallestStepS = 1e-6;
// Units in which usual steps have terms of about one.
constexpr double kTokens = 256, kPairs = 256e3, kSequences = 16, kContext = 16e3;

bool Sound(double value) { return std::isfinite(value) && value >= 0; }

}  // namespace

StepSums StepSums::operator-(const StepSums& before) const {
  return {.steps = steps - before.steps,
          .prompt_steps = prompt_steps - before.prompt_steps,
          .seconds = seconds - before.seconds,
          .prompt_tokens = prompt_tokens - before.prompt_tokens,
          .prompt_pairs = prompt_pairs - before.prompt_pairs,
          .sequences = sequences - before.sequences,
          .context_tokens = context_tokens - before.context_tokens};
}

StepSums SumsOf(const StepLoad& load) {
  StepSums sums{.steps = 1,
                .prompt_steps = load.batch > 0 ? 0.0 : 1.0,
                .sequences = load.batch,
                .context_tokens = load.context_tokens};
  for (const PromptRange& prompt : load.prompts) {
    sums.prompt_tokens += prompt.tokens;
    sums.prompt_pairs += prompt.tokens * (prompt.before_tokens + (prompt.tokens + 1) / 2);
  }
  return sums;
}

StepLearner::Vector StepLearner::TermsOf(const StepSums& sums) {
  return {sums.steps - sums.prompt_steps, sums.prompt_steps,
          sums.prompt_tokens / kTokens,   sums.prompt_pairs / kPairs,
          sums.sequences / kSequences,    sums.context_tokens / kContext};
}

std::array<StepLearner::Vector, StepLearner::kTerms> StepLearner::Prior() {
  std::array<Vector, kTerms> prior{};
  for (size_t i = 0; i < kTerms; ++i) prior[i][i] = kPriorVariance;
  return prior;
}

StepLearner::Vector StepLearner::Gain(const Vector& terms) const {
  Vector gain{};
  for (size_t i = 0; i < kTerms; ++i) {
    for (size_t k = 0; k < kTerms; ++k) gain[i] += covariance_[i][k] * terms[k];
  }
  return gain;
}

void StepLearner::Add(const StepSums& sums) {
  if (!(sums.steps >= 1) || !Sound(sums.steps) || !Sound(sums.seconds) ||
      !Sound(sums.prompt_steps) || sums.prompt_steps > sums.steps || !Sound(sums.prompt_tokens) ||
      !Sound(sums.prompt_pairs) || !Sound(sums.sequences) || !Sound(sums.context_tokens)) {
    return;
  }
  // A sum over n steps has n times their variance: divided by the root, each report counts alike.
  const double root = std::sqrt(sums.steps);
  Vector terms = TermsOf(sums);
  for (double& term : terms) term /= root;
  const Vector gain = Gain(terms);
  double spread = 0, expected = 0;
  for (size_t i = 0; i < kTerms; ++i) {
    spread += terms[i] * gain[i];
    expected += terms[i] * coefficients_[i];
  }
  const double error = sums.seconds / root - expected;
  const double weight = 1 / (kForget + spread);
  for (size_t i = 0; i < kTerms; ++i) coefficients_[i] += gain[i] * weight * error;
  for (size_t i = 0; i < kTerms; ++i) {
    for (size_t k = 0; k < kTerms; ++k) covariance_[i][k] -= gain[i] * gain[k] * weight;
  }
  // What reports say nothing of is not forgotten without bound.
  bool forgets = true;
  for (size_t i = 0; i < kTerms; ++i) {
    forgets = forgets && covariance_[i][i] / kForget <= kPriorVariance;
  }
  if (forgets) {
    for (Vector& row : covariance_) {
      for (double& value : row) value /= kForget;
    }
  }
  ++reports_;
  if (reports_ <= static_cast<int64_t>(kTerms)) return;  // it may pass through all of these
  const double surprise = error * error / (1 + spread);
  const double keep = std::min(kNoiseForget, 1 - 1.0 / static_cast<double>(reports_ - kTerms));
  noise_ = keep * noise_ + (1 - keep) * surprise;
}

double StepLearner::Seconds(const StepLoad& load) const { return coefficients().Seconds(load); }

double StepLearner::Seconds(const StepSums& sums) const { return coefficients().Seconds(sums); }

// Variance of the estimate for such a step, in variances of a step.
double StepLearner::Spread(const StepLoad& load) const {
  const Vector terms = TermsOf(SumsOf(load));
  const Vector gain = Gain(terms);
  double spread = 0;
  for (size_t i = 0; i < kTerms; ++i) spread += terms[i] * gain[i];
  return std::max(0.0, spread);
}

double StepLearner::Interval(const StepLoad& load) const {
  return 1.96 * std::sqrt(noise_ * (1 + Spread(load)));
}

double StepLearner::MeanInterval(const StepLoad& load) const {
  return 1.96 * std::sqrt(noise_ * Spread(load));
}

StepCoefficients StepLearner::coefficients() const {
  return {.step = coefficients_[0],
          .prompt_step = coefficients_[1],
          .prompt_token = coefficients_[2] / kTokens,
          .prompt_pair = coefficients_[3] / kPairs,
          .sequence = coefficients_[4] / kSequences,
          .context_token = coefficients_[5] / kContext};
}

double StepCoefficients::Seconds(const StepLoad& load) const { return Seconds(SumsOf(load)); }

double StepCoefficients::Seconds(const StepSums& sums) const {
  const double seconds = step * (sums.steps - sums.prompt_steps) + prompt_step * sums.prompt_steps +
                         prompt_token * sums.prompt_tokens + prompt_pair * sums.prompt_pairs +
                         sequence * sums.sequences + context_token * sums.context_tokens;
  return std::max(seconds, kSmallestStepS);
}

}  // namespace baton::planner
