#include "worker_common/loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/logging.h"
#include "worker_common/kv_paths.h"

namespace baton::worker_common {
namespace {

using std::chrono::milliseconds;
using worker_link::CancelCommand;
using worker_link::Command;
using worker_link::FailedEvent;
using worker_link::LinkCommand;
using worker_link::LinkLost;
using worker_link::WorkerStatus;

// How exactly deadlines are kept, and how often a loop that only waits looks at them.
constexpr Duration kDeadlineCheck = milliseconds(20);
constexpr Duration kIdleWait = milliseconds(500);
// A status that says the same as the last one waits for kStatusInterval; news for kStatusNews.
constexpr Duration kStatusInterval = milliseconds(1000);
constexpr Duration kStatusNews = milliseconds(100);
// Changes of the caches are told together.
constexpr Duration kBlocksInterval = milliseconds(20);
constexpr Duration kStepWindow = std::chrono::minutes(2);
// A router tells both workers of a handoff at once: a request that is not here this long after its
// offer is lost.
constexpr Duration kEarlyOfferWait = std::chrono::seconds(10);

Duration TimeoutOf(const Command& request) {
  if (const auto* decode = std::get_if<worker_link::DecodeCommand>(&request)) {
    return decode->timeout;
  }
  if (const auto* serve = std::get_if<worker_link::ServePrefixCommand>(&request)) {
    return serve->timeout;
  }
  return std::get<worker_link::PrefillCommand>(request).timeout;
}

std::string TraceparentOf(const Command& request) {
  if (const auto* decode = std::get_if<worker_link::DecodeCommand>(&request)) {
    return decode->traceparent;
  }
  const auto* prefill = std::get_if<worker_link::PrefillCommand>(&request);
  return prefill == nullptr ? "" : prefill->traceparent;
}

}  // namespace

WorkerLoop::WorkerLoop(WorkerHost* host, worker_link::Role role)
    : host_(host),
      role_(role),
      clock_(SystemClock()),
      book_(host->options().queue_capacity),
      early_offers_(host->options().queue_capacity, kEarlyOfferWait),
      now_(clock_.Now()),
      next_deadline_check_(now_) {}

void WorkerLoop::Drain() {
  ending_ = true;
  host_->inputs().Wake();
}

absl::Status WorkerLoop::DrainingError() const {
  return absl::UnavailableError(fmt::format("worker {} is draining", options().name));
}

std::optional<worker_link::Role> WorkerLoop::Run() {
  const ScopedLogName log_name(options().name);
  if (!draining()) host_->duty().leaving_at = TimePoint::max();
  bool busy = false;
  bool first_turn = true;
  while (true) {
    const bool waits_for_time = book_.size() > 0 || !Quiet() || status_waits_ || blocks_wait_;
    TakeInputs(busy || first_turn ? Duration(0) : waits_for_time ? kDeadlineCheck : kIdleWait);
    first_turn = false;
    StopExpired();
    ExpireEarlyOffers();
    busy = Advance();
    if (busy) NoteStep(clock_.Now() - now_);
    TellBlocks();
    Flush();
    SeeEnding();
    ReportStatus();
    if (!draining() || book_.size() > 0 || !Quiet()) continue;
    const worker_link::Role wanted = host_->duty().role;
    if (ending() || wanted != role_) {
      LogInfo("drained");
      return ending() ? std::nullopt : std::optional(wanted);
    }
  }
}

void WorkerLoop::TakeInputs(Duration wait) {
  std::vector<Input> inputs = host_->inputs().Take(wait);
  now_ = clock_.Now();
  for (Input& input : inputs) {
    if (auto* link = std::get_if<worker_link::LinkInput>(&input)) {
      OnLink(std::move(*link));
    } else {
      OnHandoff(std::get<kv_transfer::HandoffEvent>(std::move(input)));
    }
  }
}

void WorkerLoop::OnLink(worker_link::LinkInput input) {
  if (auto* command = std::get_if<LinkCommand>(&input)) {
    OnCommand(command->link, std::move(command->command));
  } else if (const auto* opened = std::get_if<worker_link::LinkOpened>(&input)) {
    LogInfo(fmt::format("router {} connected", opened->router_name));
  } else {
    const worker_link::LinkId link = std::get<LinkLost>(input).link;
    const std::vector<Attempt> attempts = book_.OfLink(link);
    LogInfo(fmt::format("a router's link is lost with {} requests", attempts.size()));
    StopAll(attempts, absl::CancelledError("the router's link is lost"));
  }
}

void WorkerLoop::OnCommand(worker_link::LinkId link, Command command) {
  if (const auto* duty = std::get_if<worker_link::DutyCommand>(&command)) return OnDuty(*duty);
  const Attempt attempt = *AttemptOf(command);
  if (std::holds_alternative<CancelCommand>(command)) {
    const AttemptBook::Entry* entry = book_.Find(attempt);
    if (entry != nullptr && entry->link == link && !entry->answered) {
      Stop(attempt, absl::CancelledError("cancelled by the router"));
    }
    return;
  }
  if (std::holds_alternative<worker_link::NoOfferCommand>(command)) {
    const AttemptBook::Entry* entry = book_.Find(attempt);
    if (entry != nullptr && entry->link == link && !entry->answered) OnNoOffer(attempt);
    return;
  }
  const Duration timeout = TimeoutOf(command);
  const absl::Status entered =
      draining() ? DrainingError() : book_.Enter(attempt, link, now_, timeout);
  if (!entered.ok()) {
    outgoing_[link].emplace_back(FailedEvent{attempt, entered});
    return;
  }
  book_.Find(attempt)->traceparent = TraceparentOf(command);
  StopAll(book_.OlderThan(attempt),
          absl::CancelledError(fmt::format("epoch {} of the request has come", attempt.epoch)));
  Start(attempt, std::move(command));
}

void WorkerLoop::OnDuty(const worker_link::DutyCommand& duty) {
  LogInfo(fmt::format("a router wants a {} worker that takes {} work", RoleName(duty.role),
                      duty.takes_work ? "new" : "no new"));
  WorkerHost::Duty& own = host_->duty();
  own.role = duty.role;
  own.takes_work = duty.takes_work;
  own.leaving_at = draining() ? now_ + duty.grace : TimePoint::max();
}

void WorkerLoop::SeeEnding() {
  if (!ending() || std::exchange(ending_seen_, true)) return;
  WorkerHost::Duty& own = host_->duty();
  own.leaving_at = std::min(own.leaving_at, now_ + options().drain_grace);
}

void WorkerLoop::StopAll(const std::vector<Attempt>& attempts, const absl::Status& why) {
  for (const Attempt& attempt : attempts) Stop(attempt, why);
}

void WorkerLoop::StopExpired() {
  if (now_ < next_deadline_check_) return;
  next_deadline_check_ = now_ + kDeadlineCheck;
  for (const Attempt& attempt : book_.Expired(now_)) {
    const AttemptBook::Entry& entry = *book_.Find(attempt);
    Stop(attempt, absl::DeadlineExceededError(
                      fmt::format("the request was not over after {:.3f} s on worker {}",
                                  Seconds(entry.deadline - entry.received), options().name)));
  }
}

void WorkerLoop::KeepOrRefuse(kv_transfer::OfferInfo offer) {
  const Attempt attempt = offer.attempt;
  if (book_.Find(attempt) != nullptr || book_.WasEntered(attempt)) {
    handoff().Refuse(attempt, absl::FailedPreconditionError(fmt::format(
                                  "worker {} does not wait for this KV any more", options().name)));
  } else if (draining()) {
    handoff().Refuse(attempt, DrainingError());
  } else if (!early_offers_.Add(std::move(offer), now_)) {
    handoff().Refuse(attempt, absl::ResourceExhaustedError(
                                  fmt::format("{} offers wait for their requests on worker {}",
                                              early_offers_.size(), options().name)));
  }
}

void WorkerLoop::ExpireEarlyOffers() {
  for (const Attempt& attempt : early_offers_.Expire(now_)) {
    handoff().Refuse(attempt, absl::DeadlineExceededError("no request came for this offer"));
  }
  if (!draining()) return;
  for (const Attempt& attempt : early_offers_.TakeAll()) handoff().Refuse(attempt, DrainingError());
}

void WorkerLoop::Send(const Attempt& attempt, worker_link::Event event) {
  const AttemptBook::Entry* entry = book_.Find(attempt);
  if (entry == nullptr || entry->answered) return;
  outgoing_[entry->link].push_back(std::move(event));
}

void WorkerLoop::SendScores(const Attempt& attempt, engine::Sequence* sequence) {
  if (sequence->scores.empty()) return;
  Send(attempt, worker_link::PromptScoresEvent{.attempt = attempt,
                                               .scores = std::exchange(sequence->scores, {})});
}

void WorkerLoop::Answer(const Attempt& attempt, worker_link::Event event) {
  Send(attempt, std::move(event));
  if (AttemptBook::Entry* entry = book_.Find(attempt)) entry->answered = true;
}

void WorkerLoop::Fail(const Attempt& attempt, const absl::Status& why) {
  Answer(attempt, FailedEvent{attempt, why});
}

std::string WorkerLoop::NameOf(const Attempt& attempt) {
  const AttemptBook::Entry* entry = book_.Find(attempt);
  if (entry == nullptr || entry->traceparent.empty()) return ToString(attempt);
  return fmt::format("{} (trace {})", ToString(attempt), entry->traceparent);
}

void WorkerLoop::Flush() {
  for (auto& [link, events] : outgoing_) host_->server().Send(link, std::move(events));
  outgoing_.clear();
}

// Two windows, so that a long step is remembered for one at least.
void WorkerLoop::NoteStep(Duration step) {
  if (now_ - step_window_ > kStepWindow) {
    longest_step_before_ = std::exchange(longest_step_, Duration{});
    step_window_ = now_;
  }
  longest_step_ = std::max(longest_step_, step);
}

void WorkerLoop::TellBlocks() {
  const uint64_t changes = host_->journal().changes();
  blocks_wait_ = changes != blocks_told_ && now_ - blocks_told_at_ < kBlocksInterval;
  if (changes == blocks_told_ || blocks_wait_) return;
  host_->server().TellBlocks();
  blocks_told_ = changes;
  blocks_told_at_ = now_;
}

void WorkerLoop::ReportStatus() {
  const Duration age = now_ - reported_at_;
  const bool leaving = draining() && now_ >= host_->duty().leaving_at;
  const bool urgent = draining() != reported_.draining || leaving != reported_.leaving;
  // Whether there is news is found out when it may be told.
  status_waits_ = !urgent && age < kStatusNews;
  if (status_waits_) return;
  WorkerStatus status = CountWork();
  const engine::BlockCounts blocks = executor().pool().counts();
  status.role = role_;
  status.draining = draining();
  status.leaving = leaving;
  // Rounded up, so that not every step is news.
  status.longest_step = std::chrono::ceil<std::chrono::duration<int64_t, std::deci>>(
      std::max(longest_step_, longest_step_before_));
  status.blocks_free = blocks.free;
  status.blocks_held = blocks.held;
  status.blocks_cached = blocks.cached;
  status.blocks_total = blocks.total;
  status.transfers = static_cast<int32_t>(handoff().active_transfers());
  status.paths = KvPathsOf(handoff().paths());
  // Steps alone are no news.
  status.steps = reported_.steps;
  if (status == reported_ && age < kStatusInterval) return;
  status.steps = step_meter_.totals();
  status.steps.chunk_tokens = options().chunk_tokens;
  host_->Report(status);
  reported_ = std::move(status);
  reported_at_ = now_;
}

}  // namespace baton::worker_common
