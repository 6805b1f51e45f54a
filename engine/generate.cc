#include "engine/generate.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/clock.h"
#include "common/status_macros.h"

namespace baton::engine {

absl::StatusOr<GenerateResult> Generate(Executor* executor, std::vector<TokenId> prompt,
                                        const SamplingParams& sampling,
                                        const GenerateOptions& options) {
  if (options.chunk_tokens < 1) {
    return absl::InvalidArgumentError(
        fmt::format("chunk_tokens is {}, but must be at least 1", options.chunk_tokens));
  }
  const int32_t chunk_tokens = std::min(options.chunk_tokens, executor->model().max_rows());
  BATON_ASSIGN_OR_RETURN(Sequence sequence,
                         executor->NewSequence(std::move(prompt), sampling, options.salt));
  GenerateResult result;
  const TimePoint start = SystemClock().Now();
  TimePoint first_token = start;
  executor->TakeCachedPrefix(&sequence);
  result.cached_prompt_tokens = sequence.computed_tokens;
  std::optional<FinishReason> finish;
  while (!finish) {
    StepRange range{&sequence, std::min(sequence.pending(), chunk_tokens)};
    executor->FitLogits({&range, 1});
    BATON_RETURN_IF_ERROR(executor->Reserve(&sequence, range.tokens));
    const std::optional<OutputToken>& token = executor->Step({&range, 1})[0];
    result.prompt_scores.insert(result.prompt_scores.end(), sequence.scores.begin(),
                                sequence.scores.end());
    sequence.scores.clear();
    if (!token) continue;
    if (result.output.empty()) first_token = SystemClock().Now();
    result.output.push_back(*token);
    finish = executor->Finished(sequence);
    const bool go_on = !options.on_token || options.on_token(*token);
    if (!go_on && !finish) finish = FinishReason::kStop;
  }
  result.finish = *finish;
  result.prefill_s = Seconds(first_token - start);
  result.decode_s = Seconds(SystemClock().Now() - first_token);
  return result;
}

}  // namespace baton::engine
