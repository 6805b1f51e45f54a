#pragma once

// The question that the design begins with: how many prefill workers does a decode worker need,
// while it keeps a given batch? No queueing here (plan.h has it), so the answer says how busy the
// prefill workers are and leaves what that means for waiting to the caller.

#include <cstdint>
#include <vector>

#include "absl/status/statusor.h"
#include "planner/cost_model.h"

namespace baton::planner {

struct RatioQuestion {
  Deployment deployment;
  double input_tokens = 0;
  double output_tokens = 0;
  double batch = 0;     // sequences of one decode worker; 0: as many as fit
  int64_t prefill = 0;  // workers; 0: the fewest that keep up
  int64_t decode = 1;
  // Measured, or as a book rounds them; 0: computed.
  double prefill_s = 0;
  double decode_step_s = 0;
};

struct RatioAnswer {
  double kv_bytes_per_token = 0;
  double weights_bytes = 0;
  int64_t batch_max = 0;
  double batch = 0;
  double context_tokens = 0;  // of a sequence in decode, as counted for memory and steps
  double prefill_s = 0;
  double decode_step_s = 0;
  double full_hbm_step_s = 0;
  double ratio = 0;           // prefill workers per decode worker
  double ratio_full_hbm = 0;  // with steps that read the whole memory, the book's rule of thumb
  int64_t prefill = 0, decode = 0;
  double prefill_utilisation = 0;  // over 1: that many prefill workers do not keep up
  double requests_per_s = 0;       // that the decode workers finish
  // Sequences per decode worker that these prefill workers can keep up with, at most `batch`.
  double batch_kept = 0;
};

// Tokens of a sequence's KV during decode: the Book counts the prompt only; else the mean over the
// answer, input + output / 2.
double ContextTokens(const Deployment& deployment, double input_tokens, double output_tokens);

// InvalidArgument with the numbers: no tokens, a batch that does not fit, weights that do not fit
// (and how many chips would hold them).
absl::StatusOr<RatioAnswer> AnswerRatio(const RatioQuestion& question);

// What a number of prefill workers gives, when the decode workers keep their batch and prompts
// arrive at random (Poisson): the ratio alone says nothing of waiting.
struct PrefillChoice {
  int64_t prefill = 0;
  double utilisation = 0;
  double ttft_p50_s = 0, ttft_p99_s = 0;  // infinite when they do not keep up
};
// From one fewer than keep up, or the question's number if that is fewer, to the first whose 99th
// percentile is within twice a prompt's prefill; at most 64.
std::vector<PrefillChoice> PrefillChoices(const RatioAnswer& answer);

// OK when the weights and at least one sequence of `context_tokens` fit.
absl::Status CheckFits(const Deployment& deployment, double context_tokens);

}  // namespace baton::planner
