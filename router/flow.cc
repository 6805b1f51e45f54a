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

// What another worker may have room for.
bool Refused(const absl::Status& status) { return absl::IsResourceExhausted(status); }

constexpr int32_t kExpectedTokens = 64;  // more make the list of them grow

std::string Text(const absl::Status& status) {
  return std::string(status.message().data(), status.message().size());
}

}  // namespace

std::string_view MoveReasonName(MoveReason reason) {
  switch (reason) {
    case MoveReason::kLost:
      return "lost";
    case MoveReason::kStalled:
      return "stalled";
    case MoveReason::kFailed:
      return "failed";
    case MoveReason::kRefused:
      return "refused";
    case MoveReason::kDrained:
      return "drained";
  }
  return "";
}

FlowRequest TakeFlowRequest(GenerateInput* input) {
  FlowRequest request;
  request.sampling = std::move(input->sampling);
  request.stop = std::move(input->stop);
  request.include_stop = input->include_stop;
  request.show_special_tokens = input->show_special_tokens;
  request.in_pieces = input->in_pieces;
  request.tells_tokens = input->tells_tokens;
  request.visit = std::move(input->visit);
  request.call = std::move(input->call);
  request.choice = input->choice;
  request.resume_tokens = std::move(input->resume_tokens);
  return request;
}

Flow::Flow(FlowRequest request, const text::Tokenizer* tokenizer)
    : request_(std::move(request)),
      tokenizer_(tokenizer),
      detokenizer_(tokenizer),
      stop_matcher_(request_.stop, request_.include_stop) {
  delivered_.reserve(
      request_.resume_tokens.size() +
      static_cast<size_t>(std::clamp(request_.sampling.max_tokens, 0, kExpectedTokens)));
  Replay();
}

// What the client has is delivered already: only the text that it made must not come again.
void Flow::Replay() {
  if (request_.resume_tokens.empty()) return;
  const std::vector<TokenId>& ends = tokenizer_->end_tokens();
  for (const TokenId token : request_.resume_tokens) {
    OutputToken output;
    output.position = tokens_delivered();
    output.token = token;
    bool stopped = false;
    TextOf(output, stopped);
    delivered_.push_back(token);
    const std::vector<TokenId>& stops = request_.sampling.stop_token_ids;
    const bool end_token =
        std::find(stops.begin(), stops.end(), token) != stops.end() ||
        (!request_.sampling.ignore_eos && std::find(ends.begin(), ends.end(), token) != ends.end());
    if (stopped || end_token) {
      resumed_end_ = FinishReason::kStop;
      return;
    }
  }
  if (tokens_delivered() >= request_.sampling.max_tokens) resumed_end_ = FinishReason::kLength;
}

FlowActions Flow::OnResumed(TimePoint now) {
  FlowActions actions;
  if (resumed_end_) EndWithRest(*resumed_end_, now, actions);
  return actions;
}

void Flow::OnPlaced(FlowWorker decode, std::optional<FlowWorker> prefill,
                    std::optional<FlowWorker> donor) {
  state_ = State::kRunning;
  decode_name_ = decode.name;
  prefill_name_ = prefill ? prefill->name : decode.name;
  decode_ = std::move(decode);
  prefill_ = std::move(prefill);
  donor_ = std::move(donor);
  delivered_before_ = tokens_delivered();
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
  } else if (auto* scores = std::get_if<worker_link::PromptScoresEvent>(&event)) {
    OnPromptScores(std::move(*scores), actions);
  } else if (std::holds_alternative<PrefilledEvent>(event)) {
    if (from_prefill) OnPrefilled(actions);
  } else if (auto* finished = std::get_if<FinishedEvent>(&event)) {
    if (from_decode) OnFinished(std::move(*finished), now, actions);
  }
  return actions;
}

FlowActions Flow::OnWorkerLost(WorkerId worker, const absl::Status& why) {
  FlowActions actions;
  if (state_ != State::kRunning) return actions;
  if (decode_ && decode_->id == worker) {
    OnDecodeGone(
        MoveReason::kLost,
        absl::UnavailableError(fmt::format("decode worker '{}' was lost after {} tokens: {}",
                                           decode_name_, delivered_.size(), Text(why))),
        actions);
  } else if (donor_ && donor_->id == worker) {
    OnDonorGone(actions);
  } else if (prefill_ && prefill_->id == worker) {
    OnPrefillGone(MoveReason::kLost,
                  absl::UnavailableError(
                      fmt::format("prefill worker '{}' was lost: {}", prefill_name_, Text(why))),
                  actions);
  }
  return actions;
}

FlowActions Flow::OnWorkerStalled(WorkerId worker, const absl::Status& why) {
  FlowActions actions;
  if (state_ != State::kRunning) return actions;
  const bool decode = decode_ && decode_->id == worker;
  const bool prefill = prefill_ && prefill_->id == worker;
  const bool donor = donor_ && donor_->id == worker;
  if (decode || prefill || donor) actions.cancels.push_back({worker, attempt()});
  if (decode) {
    OnDecodeGone(
        MoveReason::kStalled,
        absl::UnavailableError(fmt::format("decode worker '{}' stalled after {} tokens: {}",
                                           decode_name_, delivered_.size(), Text(why))),
        actions);
  } else if (donor) {
    OnDonorGone(actions);
  } else if (prefill) {
    OnPrefillGone(MoveReason::kStalled,
                  absl::UnavailableError(
                      fmt::format("prefill worker '{}' stalled: {}", prefill_name_, Text(why))),
                  actions);
  }
  return actions;
}

FlowActions Flow::OnWorkerLeaving(WorkerId worker) {
  FlowActions actions;
  if (state_ != State::kRunning) return actions;
  const bool decode = decode_ && decode_->id == worker;
  const bool prefill = prefill_ && prefill_->id == worker && Fresh();
  if (decode || prefill) PlaceAgain(MoveReason::kDrained, absl::OkStatus(), actions);
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

void Flow::OnPrefilled(FlowActions& actions) {
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
        Refused(status) ? MoveReason::kRefused : MoveReason::kFailed,
        absl::Status(status.code(), fmt::format("decode worker '{}', after {} tokens: {}",
                                                decode_name_, delivered_.size(), Text(status))),
        actions);
  } else {
    OnPrefillGone(MoveReason::kFailed,
                  absl::Status(status.code(),
                               fmt::format("prefill worker '{}': {}", prefill_name_, Text(status))),
                  actions);
  }
}

void Flow::OnDecodeGone(MoveReason reason, const absl::Status& why, FlowActions& actions) {
  avoid_.push_back(decode_->id);
  decode_.reset();
  const bool elsewhere = Transient(why) || Refused(why);
  if (elsewhere && MayPlaceAgain()) return PlaceAgain(reason, why, actions);
  EndWithError(why, actions);
}

// Once the attempt has given a token, and when the request was placed again too often, the decode
// worker goes on alone: with the KV, if it is on its way, else by prefilling the prompt itself.
void Flow::OnPrefillGone(MoveReason reason, const absl::Status& why, FlowActions& actions) {
  avoid_.push_back(prefill_->id);
  prefill_.reset();
  if (donor_) actions.cancels.push_back({std::exchange(donor_, std::nullopt)->id, attempt()});
  // The decode worker may have the KV already, and then scores nothing.
  if (awaits_scores()) {
    if (MayPlaceAgain()) return PlaceAgain(reason, why, actions);
    return EndWithError(why, actions);
  }
  if (finished_) return EndIncomplete(actions);
  // FailedPrecondition: the decode worker refused the KV; it waited too long for it.
  // DeadlineExceeded: one side was silent for too long, and both have let the handoff go.
  const bool handoff_over = absl::IsFailedPrecondition(why) || absl::IsDeadlineExceeded(why);
  if (Fresh() && !handoff_over) {
    if (!Transient(why) && delivered_.empty()) return EndWithError(why, actions);
    if (Transient(why) && MayPlaceAgain()) return PlaceAgain(reason, why, actions);
  }
  actions.no_offer = decode_->id;
}

// The prefill worker computes the prefix itself.
void Flow::OnDonorGone(FlowActions& actions) {
  donor_.reset();
  if (prefill_) actions.no_offer = prefill_->id;
}

void Flow::FinishIfComplete(TimePoint now, FlowActions& actions) {
  if (!finished_ || finished_->output_tokens != tokens_delivered()) return;
  EndWithRest(finished_->reason, now, actions);
}

// The text that was held back comes first.
void Flow::EndWithRest(FinishReason reason, TimePoint now, FlowActions& actions) {
  Delta rest;
  rest.index = tokens_delivered();
  StopMatcher::Result last = stop_matcher_.Push(detokenizer_.Flush());
  rest.text = std::move(last.text);
  if (!last.stopped) rest.text += stop_matcher_.Flush();
  if (!rest.text.empty()) Give(std::move(rest), actions);
  EndWithFinish(last.stopped ? FinishReason::kStop : reason, now, actions);
}

void Flow::EndWithFinish(FinishReason reason, TimePoint now, FlowActions& actions) {
  state_ = State::kEnded;
  GiveGathered(actions);
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

// A drained worker is no failure: it costs nothing of what a request may be placed again.
void Flow::PlaceAgain(MoveReason reason, absl::Status why, FlowActions& actions) {
  CancelWorkers(actions);
  held_.clear();
  finished_.reset();
  ++epoch_;
  if (reason != MoveReason::kDrained) ++migrations_;
  if (!delivered_.empty()) ++moves_;
  state_ = State::kWaiting;
  actions.place = {reason, std::move(why)};
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
  stats.migrations = moves_;
  stats.cached_prompt_tokens = cached_prompt_tokens_;
  if (finished_) {
    stats.transport = finished_->transport;
    stats.kv_blocks_moved = finished_->kv_blocks_moved;
    stats.kv_bytes_moved = finished_->kv_bytes_moved;
    stats.handover_s = Seconds(finished_->handover);
    stats.cached_prompt_tokens = std::max(cached_prompt_tokens_, finished_->cached_prompt_tokens);
  }
  // An attempt that went on with output may have found some of that cached, too.
  stats.cached_prompt_tokens = std::min(stats.cached_prompt_tokens, request_.prompt_tokens);
  stats.total_s = Seconds(now - request_.arrival);
  if (times_.first_token) stats.ttft_s = Seconds(*times_.first_token);
  // A resume that ends in the middle of its own tokens has fewer delivered than it came with.
  const size_t resumed = std::min(request_.resume_tokens.size(), delivered_.size());
  const size_t came = delivered_.size() - resumed;
  if (came > 1 && times_.first_token) {
    const Duration streaming = *times_.last_token - request_.arrival - *times_.first_token;
    stats.mean_itl_s = Seconds(streaming) / static_cast<double>(came - 1);
  }
  return stats;
}

}  // namespace baton::router
