// Tokens that come from workers, and what the client is given of them.

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <utility>

#include "router/flow.h"

namespace baton::router {
namespace {

bool IsEmpty(const Delta& delta) {
  return delta.text.empty() && delta.tokens.empty() && delta.prompt.empty();
}

// Tokens with their details that an answer in few pieces gathers: turning them to JSON takes time.
constexpr size_t kMostGathered = 128;

}  // namespace

void Flow::OnTokens(worker_link::TokensEvent event, TimePoint now, FlowActions& actions) {
  if (event.prefill) {
    cached_prompt_tokens_ = event.prefill->cached_prompt_tokens;
    if (!times_.prefill) times_.prefill = *event.prefill;
  }
  Delta delta;
  delta.index = tokens_delivered();
  bool stopped = false;
  for (OutputToken& token : event.tokens) {
    if (!stopped && held_.empty() && InTurn(token)) {  // as nearly always
      Take(std::move(token), &delta, &stopped);
    } else if (!Hold(std::move(token), actions)) {
      return;
    }
  }
  while (!stopped && !held_.empty() && InTurn(held_.begin()->second)) {
    Take(std::move(held_.extract(held_.begin()).mapped()), &delta, &stopped);
  }
  if (tokens_delivered() > delta.index) {
    if (!times_.first_token) times_.first_token = now - request_.arrival;
    times_.last_token = now;
    Give(std::move(delta), actions);
    if (stopped) EndWithFinish(FinishReason::kStop, now, actions);
  }
  if (state_ == State::kRunning) FinishIfComplete(now, actions);
}

bool Flow::Hold(OutputToken token, FlowActions& actions) {
  const int32_t next = tokens_delivered();
  if (token.position < 0 || token.position >= request_.sampling.max_tokens) {
    EndWithError(absl::InternalError(
                     fmt::format("a worker sent the token of position {}, but max_tokens is {}",
                                 token.position, request_.sampling.max_tokens)),
                 actions);
    return false;
  }
  std::optional<TokenId> twin;
  if (token.position < next) {
    twin = delivered_[static_cast<size_t>(token.position)];
  } else if (const auto held = held_.find(token.position); held != held_.end()) {
    twin = held->second.token;
  }
  if (!twin) {
    held_.emplace(token.position, std::move(token));
    return true;
  }
  if (*twin == token.token) return true;
  EndWithError(absl::InternalError(fmt::format(
                   "workers '{}' and '{}' disagree about the token of position {}: {} and {}",
                   prefill_name_, decode_name_, token.position, *twin, token.token)),
               actions);
  return false;
}

bool Flow::InTurn(const OutputToken& token) const {
  return token.position == tokens_delivered() && token.position < request_.sampling.max_tokens &&
         !awaits_scores();
}

void Flow::Take(OutputToken token, Delta* delta, bool* stopped) {
  BeginPrompt(delta);
  delta->text += TextOf(token, *stopped);
  delivered_.push_back(token.token);
  if (request_.tells_tokens) delta->tokens.push_back(Detail(token));
}

void Flow::Give(Delta delta, FlowActions& actions) {
  if (request_.in_pieces) {
    // The first one says that the answer has begun.
    if (delta.index == 0 || !IsEmpty(delta)) actions.outputs.emplace_back(std::move(delta));
    return;
  }
  if (IsEmpty(gathered_)) {
    gathered_ = std::move(delta);
  } else {
    gathered_.text += delta.text;
    std::ranges::move(delta.tokens, std::back_inserter(gathered_.tokens));
  }
  if (gathered_.tokens.size() >= kMostGathered) GiveGathered(actions);
}

void Flow::GiveGathered(FlowActions& actions) {
  if (!IsEmpty(gathered_)) actions.outputs.emplace_back(std::exchange(gathered_, {}));
}

// A stop token is part of the output's tokens but, unless asked for, not of its text. Before
// min_tokens nothing stops the answer, stop strings neither.
std::string Flow::TextOf(const OutputToken& token, bool& stopped) {
  const auto& stop_tokens = request_.sampling.stop_token_ids;
  const bool stops =
      std::find(stop_tokens.begin(), stop_tokens.end(), token.token) != stop_tokens.end();
  if (stops && !request_.include_stop) return "";
  std::string text = detokenizer_.Push(token.token);
  if (request_.show_special_tokens && tokenizer_->TokenBytes(token.token).empty()) {
    text += tokenizer_->TokenText(token.token);
  }
  if (token.position < request_.sampling.min_tokens) return text;
  StopMatcher::Result result = stop_matcher_.Push(text);
  stopped = result.stopped;
  return std::move(result.text);
}

TokenDetail Flow::Detail(const OutputToken& token) const {
  TokenDetail detail{token.token, {}, token.logprob, {}};
  if (request_.sampling.logprobs < 0) return detail;  // nobody asked what its text is
  detail.text = tokenizer_->TokenText(token.token);
  detail.top.reserve(token.top.size());
  for (const TokenLogprob& top : token.top) {
    detail.top.push_back({top.token, tokenizer_->TokenText(top.token), top.logprob});
  }
  return detail;
}

}  // namespace baton::router
