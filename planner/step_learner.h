#pragma once

// The cost model as measured: what a step takes, learned from what workers report of theirs.
//
// A step's seconds are a sum, as in cost_model.h: something for the step, another thing for one of
// prompts alone, for each token of a prompt, for each pair of such a token with one before it
// (attention), for each sequence that gets a token, and for each token of their contexts (reading
// KV). The six coefficients are found by recursive least squares with exponential forgetting
// (Ljung, "System Identification" (1999), chapter 11): sums over some steps are as linear as single
// steps, so workers report sums.

#include <array>
#include <cstdint>

#include "planner/cost_model.h"

namespace baton::planner {

// Over the steps between two reports of a worker.
struct StepSums {
  double steps = 0;
  double prompt_steps = 0;  // of these, with prompts alone
  double seconds = 0;
  double prompt_tokens = 0;
  double prompt_pairs = 0;  // of a prompt's token with each before it and itself
  double sequences = 0;     // that got a token
  double context_tokens = 0;

  StepSums operator-(const StepSums& before) const;
};

// Of a load as the learner counts it.
StepSums SumsOf(const StepLoad& load);

// Seconds of each thing that a step is made of.
struct StepCoefficients {
  double step = 0;         // one with sequences that get a token
  double prompt_step = 0;  // one with prompts alone
  double prompt_token = 0, prompt_pair = 0;
  double sequence = 0, context_token = 0;

  double Seconds(const StepLoad& load) const;  // above 0
  double Seconds(const StepSums& sums) const;  // of all these steps together
};

// Not thread-safe. A few hundred bytes.
class StepLearner {
 public:
  static constexpr size_t kTerms = 6;

  // Ignores what no steps can be: no steps, negative or infinite numbers.
  void Add(const StepSums& sums);

  int64_t reports() const { return reports_; }
  double Seconds(const StepLoad& load) const;
  double Seconds(const StepSums& sums) const;  // of all these steps together
  // Half of the interval in which 95% of such steps are, if errors are normal.
  double Interval(const StepLoad& load) const;
  // The same for the mean of many such steps.
  double MeanInterval(const StepLoad& load) const;
  // What is learned so far.
  StepCoefficients coefficients() const;

 private:
  using Vector = std::array<double, kTerms>;
  static Vector TermsOf(const StepSums& sums);
  Vector Gain(const Vector& terms) const;  // covariance * terms
  double Spread(const StepLoad& load) const;

  Vector coefficients_{};
  std::array<Vector, kTerms> covariance_ = Prior();
  static std::array<Vector, kTerms> Prior();
  double noise_ = 0;  // variance of a step
  int64_t reports_ = 0;
};

}  // namespace baton::planner
