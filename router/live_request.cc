#include "router/live_request.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/logging.h"
#include "router/key_gate.h"
#include "router/telemetry.h"

namespace baton::router {
namespace {

constexpr std::string_view kMovingTenant = "\nmoving";  // no tenant's name has a line's end

}  // namespace

using worker_link::CancelCommand;
using worker_link::DecodeCommand;
using worker_link::NoOfferCommand;
using worker_link::PrefillCommand;
using worker_link::ServePrefixCommand;

LiveRequest::LiveRequest(const LiveContext* context, FlowRequest request,
                         std::vector<TokenId> prompt, std::string cache_salt,
                         const text::Tokenizer* tokenizer, ResponseSink sink, TimePoint deadline)
    : context_(*context),
      handle_(request.id.low),
      deadline_(deadline),
      prompt_(std::move(prompt)),
      cache_salt_(std::move(cache_salt)),
      flow_(std::move(request), tokenizer),
      sink_(std::move(sink)),
      wait_until_(flow_.request().arrival + context->worker_wait),
      measured_tokens_(flow_.tokens_delivered()) {}

absl::Status LiveRequest::Start() {
  ResponseSink over;  // destroyed without the lock
  std::unique_lock lock(mutex_);
  started_ = true;
  PlaceFirstLocked();
  if (!flow_.ended()) return absl::OkStatus();
  if (!std::holds_alternative<absl::Status>(outbox_.back())) {
    Deliver(std::move(lock));
    return absl::OkStatus();
  }
  reported_ = true;
  over = std::exchange(sink_, {});
  return std::get<absl::Status>(std::exchange(outbox_, {}).back());
}

void LiveRequest::Begin() {
  std::unique_lock lock(mutex_);
  if (flow_.ended()) return;
  const TimePoint now = context_.clock->Now();
  if (std::exchange(in_line_, false)) {
    wait_until_ = now + context_.worker_wait;
    TakeTurnLocked();
    return Deliver(std::move(lock));
  }
  if (std::exchange(started_, true)) return;
  context_.metrics->OnLeftQueue(now - flow_.request().arrival);
  wait_until_ = now + context_.worker_wait;
  PlaceFirstLocked();
  Deliver(std::move(lock));
}

void LiveRequest::TakeTurnLocked() {
  const std::optional<WorkerId> from = std::exchange(moving_from_, std::nullopt);
  if (flow_.waiting()) return PlaceLocked();
  if (!from || !flow_.decode() || flow_.decode()->id != *from || !MayLeaveLocked(*from)) return;
  has_turn_ = true;
  ApplyLocked(flow_.OnWorkerLeaving(*from));
  has_turn_ = false;
}

void LiveRequest::PlaceFirstLocked() {
  ApplyLocked(flow_.OnResumed(context_.clock->Now()));
  if (!flow_.ended()) PlaceLocked();
  waiting_ = flow_.waiting();
}

void LiveRequest::OnEvent(WorkerId from, worker_link::Event event, TimePoint now) {
  std::unique_lock lock(mutex_);
  // What came while the placement was under way came after it.
  ApplyLocked(flow_.OnEvent(from, std::move(event), std::max(now, placed_.last)));
  Deliver(std::move(lock));
}

void LiveRequest::OnWorkerLost(WorkerId worker, const absl::Status& why) {
  std::unique_lock lock(mutex_);
  ApplyLocked(flow_.OnWorkerLost(worker, why));
  Deliver(std::move(lock));
}

void LiveRequest::OnWorkerStalled(WorkerId worker, const absl::Status& why) {
  std::unique_lock lock(mutex_);
  if (MayLeaveLocked(worker)) ApplyLocked(flow_.OnWorkerStalled(worker, why));
  Deliver(std::move(lock));
}

void LiveRequest::OnWorkerLeaving(WorkerId worker) {
  std::unique_lock lock(mutex_);
  if (MayLeaveLocked(worker)) {
    // What decodes there goes on until the fleet can take it.
    const bool decodes = flow_.decode() && flow_.decode()->id == worker;
    if (decodes && !in_line_) in_line_ = context_.must_wait(PlaceInLineLocked());
    if (decodes && in_line_) {
      moving_from_ = worker;
    } else {
      ApplyLocked(flow_.OnWorkerLeaving(worker));
    }
  }
  Deliver(std::move(lock));
}

bool LiveRequest::MayLeaveLocked(WorkerId worker) const {
  if (!flow_.decode() || flow_.decode()->id != worker) return true;
  const int32_t tokens = static_cast<int32_t>(prompt_.size()) + flow_.tokens_delivered();
  return context_.registry->HasPlaceBeside(worker, tokens);
}

void LiveRequest::OnTick(TimePoint now) {
  std::unique_lock lock(mutex_);
  if (!started_ || flow_.ended()) return;
  if (now >= deadline_) {
    ApplyLocked(flow_.OnError(absl::DeadlineExceededError(
        fmt::format("the request took longer than {} s; {} tokens were delivered",
                    Seconds(deadline_ - flow_.request().arrival), flow_.tokens_delivered()))));
  } else if (flow_.waiting() && !in_line_) {
    PlaceLocked();
    if (flow_.waiting() && now >= wait_until_) {
      ApplyLocked(flow_.OnError(
          absl::UnavailableError(fmt::format("{}{}, also after waiting {} s", why_again_,
                                             why_waiting_, Seconds(context_.worker_wait)))));
    }
  }
  Deliver(std::move(lock));
}

void LiveRequest::Fail(absl::Status status) {
  std::unique_lock lock(mutex_);
  ApplyLocked(flow_.OnError(std::move(status)));
  Deliver(std::move(lock));
}

void LiveRequest::Cancel() {
  std::unique_lock lock(mutex_);
  if (!flow_.ended()) {
    context_.metrics->OnCancelled();
    NoteEndLocked(absl::CancelledError("the client is gone"), "");
  }
  ApplyLocked(flow_.OnCancel());
  outbox_next_ = outbox_.size();
  Deliver(std::move(lock));
}

void LiveRequest::PlaceLocked(bool only_others) {
  PlacementRequest request;
  request.prompt_tokens = static_cast<int32_t>(prompt_.size()) + flow_.tokens_delivered();
  request.local_prefill_tokens = context_.local_prefill_tokens;
  request.local_uncached_tokens = context_.local_uncached_tokens;
  request.avoid = flow_.avoid();
  request.only_others = only_others;
  const std::vector<TokenId> tokens =
      flow_.tokens_delivered() == 0 ? std::vector<TokenId>() : AttemptPromptLocked();
  const std::span<const TokenId> prompt = tokens.empty() ? prompt_ : tokens;
  const std::vector<uint64_t> keys = PrefixKeys(cache_salt_, prompt);
  const PromptNames names{prompt, cache_salt_, keys, flow_.request().session};
  // A worker that takes nothing is avoided at once; two such in a row: wait for the next tick.
  for (int i = 0; i < 2 && flow_.waiting(); ++i) {
    auto assigned = context_.registry->Assign(request, names);
    if (const auto* refusal = std::get_if<Refusal>(&assigned)) {
      return only_others ? void() : RefusedLocked(*refusal);
    }
    const auto& assignment = std::get<Registry::Assignment>(assigned);
    decode_share_ = assignment.decode;
    if (assignment.prefill) prefill_share_ = assignment.prefill->share;
    const std::optional<WorkerId> takes_nothing = SendLocked(assignment);
    if (!takes_nothing) {
      std::optional<FlowWorker> prefill;
      if (assignment.prefill) {
        prefill = {assignment.prefill->share.worker, assignment.prefill->name};
      }
      std::optional<FlowWorker> donor;
      if (assignment.donor && AskDonorLocked(assignment)) {
        donor = {assignment.donor->prefix.worker, assignment.donor->name};
      }
      flow_.OnPlaced({assignment.decode.worker, assignment.decode_name}, std::move(prefill),
                     std::move(donor));
      placed_.last = context_.clock->Now();
      if (placed_.first == TimePoint{}) placed_.first = placed_.last;
      waiting_ = false;
      return;
    }
    request.avoid.push_back(*takes_nothing);
    ReleaseLocked();
  }
  why_waiting_ = "the chosen workers take no commands";
}

void LiveRequest::PlaceAgainLocked(const FlowActions::Place& place) {
  const TimePoint now = context_.clock->Now();
  if (!place.why.ok() && !context_.may_place_again(now)) {
    return ApplyLocked(flow_.OnError(absl::UnavailableError(
        fmt::format("{}; so many requests were placed again lately that no more are",
                    std::string(place.why.message())))));
  }
  LogInfo(fmt::format("request {} goes on elsewhere after {} tokens: {}",
                      ToString(flow_.attempt().request), flow_.tokens_delivered(),
                      place.why.ok() ? "its worker drains" : std::string(place.why.message())));
  context_.metrics->OnPlacedAgain(MoveReasonName(place.reason), flow_.tokens_delivered() > 0);
  if (moves_.size() < RequestRecord::kMaxMoves) {
    moves_.push_back({now - flow_.request().arrival, place.reason, flow_.tokens_delivered(),
                      std::string(place.why.message())});
  }
  if (!place.why.ok()) why_again_ = std::string(place.why.message()) + "; ";
  wait_until_ = now + context_.worker_wait;
  const bool refused = place.reason == MoveReason::kRefused;
  // Many streams of one worker move at once: the fleet takes them at its pace.
  if (!refused && !has_turn_) in_line_ = in_line_ || context_.must_wait(PlaceInLineLocked());
  if (!refused && in_line_) return;
  PlaceLocked(/*only_others=*/refused);
  // Nobody else has room: that is the answer.
  if (refused && flow_.waiting()) ApplyLocked(flow_.OnError(place.why));
}

QueuedRequest LiveRequest::PlaceInLineLocked() const {
  QueuedRequest place;
  place.handle = handle_;
  if (const auto& visit = flow_.request().visit) {
    place.tenant = visit->key().tenant;
    place.priority = visit->key().priority;
  }
  place.tenant += kMovingTenant;
  place.tokens = static_cast<int64_t>(prompt_.size()) + flow_.tokens_delivered();
  place.deadline = deadline_;
  return place;
}

std::vector<TokenId> LiveRequest::AttemptPromptLocked() const {
  std::vector<TokenId> prompt;
  prompt.reserve(prompt_.size() + flow_.delivered().size());
  prompt = prompt_;
  prompt.insert(prompt.end(), flow_.delivered().begin(), flow_.delivered().end());
  return prompt;
}

std::optional<WorkerId> LiveRequest::SendLocked(const Registry::Assignment& assignment) {
  Registry& registry = *context_.registry;
  DecodeCommand decode;
  decode.attempt = flow_.attempt();
  decode.prompt = AttemptPromptLocked();
  decode.output_tokens = flow_.tokens_delivered();
  decode.sampling = flow_.request().sampling;
  if (!flow_.awaits_scores()) decode.sampling.prompt_logprobs = -1;
  decode.cache_salt = cache_salt_;
  decode.handoff = assignment.prefill.has_value();
  decode.timeout = deadline_ - context_.clock->Now();
  const CallTrace& trace = flow_.request().call->trace;
  if (trace.sampled) decode.traceparent = Traceparent(trace);

  PrefillCommand prefill;
  if (assignment.prefill) {
    prefill.attempt = decode.attempt;
    prefill.prompt = decode.prompt;
    prefill.output_tokens = decode.output_tokens;
    prefill.sampling = decode.sampling;
    prefill.cache_salt = decode.cache_salt;
    prefill.target_address = assignment.prefill->target_address;
    prefill.target_name = assignment.decode_name;
    prefill.timeout = decode.timeout;
    prefill.traceparent = decode.traceparent;
    if (assignment.donor) prefill.prefix_tokens = assignment.donor->prefix.tokens;
  }
  if (!registry.Send(assignment.decode.worker, std::move(decode))) return assignment.decode.worker;
  if (!assignment.prefill) return std::nullopt;
  const WorkerId prefill_worker = assignment.prefill->share.worker;
  if (registry.Send(prefill_worker, std::move(prefill))) return std::nullopt;
  registry.Send(assignment.decode.worker, CancelCommand{flow_.attempt()});
  flow_.SkipAttempt();
  return prefill_worker;
}

bool LiveRequest::AskDonorLocked(const Registry::Assignment& assignment) {
  ServePrefixCommand serve;
  serve.attempt = flow_.attempt();
  serve.prompt = AttemptPromptLocked();
  serve.cache_salt = cache_salt_;
  serve.target_address = assignment.prefill->own_address;
  serve.target_name = assignment.prefill->name;
  serve.timeout = deadline_ - context_.clock->Now();
  if (context_.registry->Send(assignment.donor->prefix.worker, std::move(serve))) return true;
  context_.registry->Send(assignment.prefill->share.worker, NoOfferCommand{flow_.attempt()});
  return false;
}

void LiveRequest::RefusedLocked(const Refusal& refusal) {
  why_waiting_ = refusal.text;
  if (refusal.reason == RefusalReason::kPromptTooLarge && flow_.tokens_delivered() == 0) {
    ApplyLocked(flow_.OnError(absl::InvalidArgumentError(refusal.text)));
  } else if (context_.worker_wait <= Duration::zero()) {
    ApplyLocked(flow_.OnError(absl::UnavailableError(refusal.text)));
  }
}

void LiveRequest::ApplyLocked(FlowActions actions) {
  for (const FlowActions::CancelAttempt& cancel : actions.cancels) {
    context_.registry->Send(cancel.worker, CancelCommand{cancel.attempt});
  }
  if (actions.no_offer) {
    context_.registry->Send(*actions.no_offer, NoOfferCommand{flow_.attempt()});
  }
  MeasureTokensLocked();
  for (Output& output : actions.outputs) {
    MeasureEndLocked(output);
    outbox_.push_back(std::move(output));
  }
  ReleaseLocked();
  waiting_ = flow_.waiting();
  if (actions.place) PlaceAgainLocked(*actions.place);
}

// Gives back the shares of workers whose part is over.
void LiveRequest::ReleaseLocked() {
  if (decode_share_ && !flow_.decode()) {
    context_.registry->Release(*std::exchange(decode_share_, std::nullopt));
  }
  if (prefill_share_ && !flow_.prefill()) {
    context_.registry->Release(*std::exchange(prefill_share_, std::nullopt));
  }
}

void LiveRequest::MeasureTokensLocked() {
  const int32_t delivered = flow_.tokens_delivered();
  int32_t tokens = delivered - std::exchange(measured_tokens_, delivered);
  if (tokens <= 0) return;
  const TimePoint now = *flow_.times().last_token;
  if (context_.watch != nullptr) context_.watch->OnTokens(handle_, delivered);
  if (const auto& visit = flow_.request().visit) visit->Charge(tokens, now);
  if (!last_token_) {
    NoteFirstTokenLocked();
    context_.metrics->OnFirstToken(*flow_.times().first_token);
    last_token_ = now;
    --tokens;
  }
  if (tokens > 0) context_.metrics->OnMoreTokens(now - *last_token_, static_cast<size_t>(tokens));
  last_token_ = now;
}

void LiveRequest::MeasureEndLocked(const Output& output) {
  if (const auto* finish = std::get_if<Finish>(&output)) {
    const Duration waited =
        placed_.first == TimePoint{} ? Duration{} : placed_.first - flow_.request().tokenized;
    context_.metrics->OnFinish(*finish, flow_.times(), waited);
    if (context_.watch != nullptr) {
      context_.watch->OnFinish(handle_, finish->output_tokens, finish->stats.cached_prompt_tokens);
    }
    NoteEndLocked(absl::OkStatus(), finish->reason == FinishReason::kStop ? "stop" : "length");
  } else if (const auto* status = std::get_if<absl::Status>(&output)) {
    context_.metrics->OnError(*status);
    NoteEndLocked(*status, "");
  }
}

void LiveRequest::Deliver(std::unique_lock<std::mutex> lock) {
  if (delivering_) return;
  delivering_ = true;
  while (outbox_next_ < outbox_.size()) {
    Output output = std::move(outbox_[outbox_next_++]);
    lock.unlock();
    Call(std::move(output));
    lock.lock();
  }
  outbox_.clear();  // its memory is the next ones'
  outbox_next_ = 0;
  delivering_ = false;
  if (!flow_.ended() || reported_) return;
  reported_ = true;
  const ResponseSink over = std::exchange(sink_, {});  // destroyed without the lock
  std::optional<RequestRecord> record;
  if (context_.telemetry != nullptr) record = RecordLocked(ended_);
  lock.unlock();
  if (record) context_.telemetry->Ended(*std::move(record));
  if (context_.watch != nullptr) context_.watch->OnGone(handle_);
  context_.on_ended(handle_);
}

void LiveRequest::Call(Output output) const {
  if (auto* delta = std::get_if<Delta>(&output)) {
    sink_.on_delta(std::move(*delta));
  } else if (auto* finish = std::get_if<Finish>(&output)) {
    sink_.on_finish(std::move(*finish));
  } else {
    sink_.on_error(std::move(std::get<absl::Status>(output)));
  }
}

}  // namespace baton::router
