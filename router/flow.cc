#include "router/flow.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace baton::router {
namespace {

using worker_link::Event;
using worker_link::FailedEvent;
using worker_link::FinishedEvent;
using worker_link::PrefilledEvent;
using worker_link::TokensEvent;

Attempt AttemptOf(const Event& event) {
  return std::visit([](const auto& one) { return one.attempt; }, event);
}

// Failures that another attempt may not meet. Overload is not one: it is the client's to retry.
bool Transient(const absl::Status& status) {
  return absl::IsUnavailable(status) || absl::IsAborted(status) || absl::IsDataLoss(status);
}

std::string Text(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

}  // namespace

Flow::Flow(FlowRequest request, const text::Tokenizer* tokenizer)
    : request_(std::move(request)),
      tokenizer_(tokenizer),
      detokenizer_(tokenizer),
      stop_matcher_(request_.stop) {}

void Flow::OnPlaced(FlowWorker decode, std::optional<FlowWorker> prefill,
                    std::optional<FlowWorker> donor) {
  state_ = State::kRunning;
  decode_name_ = decode.name;
  prefill_name_ = prefill ? prefill->name : decode.name;
  decode_ = std::move(decode);
  prefill_ = std::move(prefill);
  donor_ = std::move(donor);
}

FlowActions Flow::OnEvent(WorkerId from, Event event, TimePoint now) {
  FlowActions actions;
  const bool from_decode = decode_ && decode_->id == from;
  const bool from_prefill = prefill_ && prefill_->id == from;
  if (state_ != State::kRunning || AttemptOf(event) != attempt()) return actions;
  if (donor_ && donor_->id == from) {
    if (std::holds_alternative<FailedEvent>(event)) OnDonorGone(actions);
    if (std::holds_alternative<PrefilledEvent>(event)) donor_.reset();
    return actions;
  }
  if (!from_decode && !from_prefill) return actions;
  if (auto* tokens = std::get_if<TokensEvent>(&event)) {
    OnTokens(std::move(*tokens), now, actions);
  } else if (auto* failed = std::get_if<FailedEvent>(&event)) {
    OnFailed(from, failed->status, actions);
  } else if (auto* prefilled = std::get_if<PrefilledEvent>(&event)) {
    if (from_prefill) OnPrefilled(*prefilled, actions);
  } else if (auto* finished = std::get_if<FinishedEvent>(&event)) {
    if (from_decode) OnFinished(std::move(*finished), now, actions);
  }
  return actions;
}

FlowActions Flow::OnWorkerLost(WorkerId worker, const absl::Status& why) {
  FlowActions actions;
  if (state_ != State::kRunning) return actions;
  if (decode_ && decode_->id == worker) {
    decode_.reset();
    OnDecodeGone(
        absl::UnavailableError(fmt::format("decode worker '{}' was lost after {} tokens: {}",
                                           decode_name_, delivered_.size(), Text(why))),
        actions);
  } else if (donor_ && donor_->id == worker) {
    OnDonorGone(actions);
  } else if (prefill_ && prefill_->id == worker) {
    OnPrefillGone(absl::UnavailableError(
                      fmt::format("prefill worker '{}' was lost: {}", prefill_name_, Text(why))),
                  actions);
  }
  return actions;
}

FlowActions Flow::OnError(absl::Status status) {
  FlowActions actions;
  if (state_ != State::kEnded) EndWithError(std::move(status), actions);
  return actions;
}

FlowActions Flow::OnCancel() {
  FlowActions actions;
  if (state_ == State::kEnded) return actions;
  state_ = State::kEnded;
  CancelWorkers(actions);
  return actions;
}

void Flow::OnTokens(TokensEvent event, TimePoint now, FlowActions& actions) {
  for (OutputToken& token : event.tokens) {
    if (!Hold(std::move(token), actions)) return;
  }
  DeliverHeld(now, actions);
  if (state_ == State::kRunning) FinishIfComplete(now, actions);
}

void Flow::OnPrefilled(const PrefilledEvent& event, FlowActions& actions) {
  times_.prefill_queue = event.queue;
  cached_prompt_tokens_ = event.cached_prompt_tokens;
  prefill_.reset();
  if (finished_) EndIncomplete(actions);
}

void Flow::OnFinished(FinishedEvent event, TimePoint now, FlowActions& actions) {
  decode_.reset();
  finished_ = std::move(event);
  FinishIfComplete(now, actions);
  // Token 0 may still be on its way from the prefill worker; nobody else has tokens left.
  if (state_ == State::kRunning && !prefill_) EndIncomplete(actions);
}

void Flow::OnFailed(WorkerId from, const absl::Status& status, FlowActions& actions) {
  if (decode_ && decode_->id == from) {
    OnDecodeGone(
        absl::Status(status.code(), fmt::format("decode worker '{}', after {} tokens: {}",
                                                decode_name_, delivered_.size(), Text(status))),
        actions);
  } else {
    OnPrefillGone(absl::Status(status.code(),
                               fmt::format("prefill worker '{}': {}", prefill_name_, Text(status))),
                  actions);
  }
}

void Flow::OnDecodeGone(const absl::Status& why, FlowActions& actions) {
  const std::optional<WorkerId> failed = decode_ ? std::optional(decode_->id) : std::nullopt;
  decode_.reset();
  if (Transient(why) && MayPlaceAgain()) return PlaceAgain(failed, actions);
  EndWithError(why, actions);
}

// Once a token is out, and when the request was placed again already, the decode worker goes on
// alone: with the KV, if it is on its way, else by prefilling the prompt itself.
void Flow::OnPrefillGone(const absl::Status& why, FlowActions& actions) {
  const WorkerId failed = prefill_->id;
  prefill_.reset();
  if (donor_) actions.cancels.push_back({std::exchange(donor_, std::nullopt)->id, attempt()});
  if (finished_) return EndIncomplete(actions);
  // FailedPrecondition: the decode worker refused the KV; it waited too long for it.
  // DeadlineExceeded: one side was silent for too long, and both have let the handoff go.
  const bool handoff_over = absl::IsFailedPrecondition(why) || absl::IsDeadlineExceeded(why);
  if (delivered_.empty() && !handoff_over) {
    if (!Transient(why)) return EndWithError(why, actions);
    if (MayPlaceAgain()) return PlaceAgain(failed, actions);
  }
  actions.no_offer = decode_->id;
}

// The prefill worker computes the prefix itself.
void Flow::OnDonorGone(FlowActions& actions) {
  donor_.reset();
  if (prefill_) actions.no_offer = prefill_->id;
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

void Flow::DeliverHeld(TimePoint now, FlowActions& actions) {
  Delta delta;
  delta.index = tokens_delivered();
  bool stopped = false;
  while (!stopped && !held_.empty() && held_.begin()->first == tokens_delivered()) {
    OutputToken token = std::move(held_.extract(held_.begin()).mapped());
    delta.text += TextOf(token, stopped);
    delivered_.push_back(token.token);
    delta.tokens.push_back(Detail(std::move(token)));
  }
  if (delta.tokens.empty()) return;
  if (!times_.first_token) times_.first_token = now - request_.arrival;
  times_.last_token = now;
  actions.outputs.emplace_back(std::move(delta));
  if (stopped) EndWithFinish(FinishReason::kStop, now, actions);
}

// A stop token is part of the output's tokens but not of its text. Before min_tokens nothing stops
// the answer, stop strings neither.
std::string Flow::TextOf(const OutputToken& token, bool& stopped) {
  const auto& stop_tokens = request_.sampling.stop_token_ids;
  if (std::find(stop_tokens.begin(), stop_tokens.end(), token.token) != stop_tokens.end())
    return "";
  std::string text = detokenizer_.Push(token.token);
  if (token.position < request_.sampling.min_tokens) return text;
  StopMatcher::Result result = stop_matcher_.Push(text);
  stopped = result.stopped;
  return std::move(result.text);
}

TokenDetail Flow::Detail(OutputToken token) const {
  TokenDetail detail{token.token, {}, token.logprob, {}};
  if (request_.sampling.logprobs < 0) return detail;  // nobody asked what its text is
  detail.text = tokenizer_->TokenText(token.token);
  detail.top.reserve(token.top.size());
  for (const TokenLogprob& top : token.top) {
    detail.top.push_back({top.token, tokenizer_->TokenText(top.token), top.logprob});
  }
  return detail;
}

void Flow::FinishIfComplete(TimePoint now, FlowActions& actions) {
  if (!finished_ || finished_->output_tokens != tokens_delivered()) return;
  Delta rest;
  rest.index = tokens_delivered();
  StopMatcher::Result last = stop_matcher_.Push(detokenizer_.Flush());
  rest.text = std::move(last.text);
  if (!last.stopped) rest.text += stop_matcher_.Flush();
  if (!rest.text.empty()) actions.outputs.emplace_back(std::move(rest));
  EndWithFinish(last.stopped ? FinishReason::kStop : finished_->reason, now, actions);
}

void Flow::EndWithFinish(FinishReason reason, TimePoint now, FlowActions& actions) {
  state_ = State::kEnded;
  actions.outputs.emplace_back(
      Finish{reason, request_.prompt_tokens, tokens_delivered(), Stats(now)});
  times_.finished = finished_;
  CancelWorkers(actions);
}

void Flow::EndIncomplete(FlowActions& actions) {
  EndWithError(absl::InternalError(
                   fmt::format("decode worker '{}' finished after {} tokens, but {} came in order",
                               decode_name_, finished_->output_tokens, delivered_.size())),
               actions);
}

void Flow::EndWithError(absl::Status status, FlowActions& actions) {
  state_ = State::kEnded;
  actions.outputs.emplace_back(std::move(status));
  CancelWorkers(actions);
}

bool Flow::MayPlaceAgain() const { return delivered_.empty() && replacements_ < kMaxReplacements; }

void Flow::PlaceAgain(std::optional<WorkerId> avoid, FlowActions& actions) {
  CancelWorkers(actions);
  held_.clear();
  finished_.reset();
  ++epoch_;
  ++replacements_;
  state_ = State::kWaiting;
  actions.place = true;
  actions.avoid = avoid;
}

void Flow::CancelWorkers(FlowActions& actions) {
  if (decode_) actions.cancels.push_back({decode_->id, attempt()});
  if (prefill_) actions.cancels.push_back({prefill_->id, attempt()});
  if (donor_) actions.cancels.push_back({donor_->id, attempt()});
  decode_.reset();
  prefill_.reset();
  donor_.reset();
}

RequestStats Flow::Stats(TimePoint now) const {
  RequestStats stats;
  stats.request_id = ToString(request_.id);
  stats.prefill_worker = prefill_name_;
  stats.decode_worker = decode_name_;
  stats.cached_prompt_tokens = cached_prompt_tokens_;
  if (finished_) {
    stats.transport = finished_->transport;
    stats.kv_blocks_moved = finished_->kv_blocks_moved;
    stats.kv_bytes_moved = finished_->kv_bytes_moved;
    stats.handover_s = Seconds(finished_->handover);
    stats.cached_prompt_tokens = std::max(cached_prompt_tokens_, finished_->cached_prompt_tokens);
  }
  stats.total_s = Seconds(now - request_.arrival);
  if (times_.first_token) stats.ttft_s = Seconds(*times_.first_token);
  if (tokens_delivered() > 1) {
    const Duration streaming = *times_.last_token - request_.arrival - *times_.first_token;
    stats.mean_itl_s = Seconds(streaming) / (tokens_delivered() - 1);
  }
  return stats;
}

}  // namespace baton::router
