#pragma once

// One prompt to its answer, alone on an executor: what `baton run` does, and what every answer of a
// cluster is compared with.

#include <functional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/sampling.h"
#include "engine/executor.h"

namespace baton::engine {

struct GenerateOptions {
  int32_t chunk_tokens = 256;  // most prompt tokens of a step; at least 1
  std::string salt = "";       // tenant, for the prefix cache
  // Called after each token; false ends the answer there (FinishReason::kStop).
  std::function<bool(const OutputToken&)> on_token = nullptr;
};

struct GenerateResult {
  std::vector<OutputToken> output;
  std::vector<PromptScore> prompt_scores;  // where sampling.prompt_logprobs asks for them
  FinishReason finish = FinishReason::kLength;
  int32_t cached_prompt_tokens = 0;
  double prefill_s = 0;  // until the first token
  double decode_s = 0;   // from there to the last
};

// Blocks until the end. InvalidArgument as Executor::NewSequence; ResourceExhausted when the pool
// cannot hold the sequence.
absl::StatusOr<GenerateResult> Generate(Executor* executor, std::vector<TokenId> prompt,
                                        const SamplingParams& sampling,
                                        const GenerateOptions& options);

}  // namespace baton::engine
