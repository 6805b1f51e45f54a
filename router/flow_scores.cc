// Log probabilities of a request's prompt.

#include <fmt/format.h>

#include <utility>

#include "router/flow.h"

namespace baton::router {

// Nothing is before a prompt's first token, which so has no log probability.
void Flow::BeginPrompt(Delta* delta) {
  if (request_.sampling.prompt_logprobs < 0 || scored_tokens_ > 0) return;
  const TokenId first = request_.first_prompt_token;
  delta->prompt.push_back({first, tokenizer_->TokenText(first), 0, {}});
  scored_tokens_ = 1;
}

// Another attempt may begin anew: what was delivered is not delivered again.
void Flow::OnPromptScores(worker_link::PromptScoresEvent event, FlowActions& actions) {
  if (!awaits_scores()) return;
  Delta delta;
  delta.prompt_index = scored_tokens_;
  BeginPrompt(&delta);
  for (PromptScore& score : event.scores) {
    if (score.position < scored_tokens_) continue;
    if (score.position != scored_tokens_ || !awaits_scores()) {
      return EndWithError(
          absl::InternalError(fmt::format(
              "a worker sent the log probability of prompt token {}, but {} of {} is the next",
              score.position, scored_tokens_, request_.prompt_tokens)),
          actions);
    }
    ++scored_tokens_;
    TokenDetail& detail = delta.prompt.emplace_back();
    detail = {score.token, tokenizer_->TokenText(score.token), score.logprob, {}, score.rank};
    for (const TokenLogprob& top : score.top) {
      detail.top.push_back({top.token, tokenizer_->TokenText(top.token), top.logprob});
    }
  }
  if (!delta.prompt.empty()) actions.outputs.emplace_back(std::move(delta));
}

}  // namespace baton::router
