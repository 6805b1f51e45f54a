#include "prefill_worker/loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "worker_common/first_token.h"

namespace baton::prefill_worker {

using kv_transfer::HandoffEvent;
using kv_transfer::OfferArrived;
using kv_transfer::SourceDone;
using worker_link::PrefillCommand;

PrefillLoop::PrefillLoop(worker_common::WorkerHost* host)
    : WorkerLoop(host),
      limits_{.chunk_tokens = host->options().chunk_tokens,
              .max_batch = host->options().max_batch} {}

PrefillCounters PrefillLoop::counters() const {
  const std::lock_guard lock(mutex_);
  return published_;
}

void PrefillLoop::Start(const Attempt& attempt, worker_link::Command command) {
  auto* prefill = std::get_if<PrefillCommand>(&command);
  if (prefill == nullptr) {
    Fail(attempt, absl::InvalidArgumentError(
                      fmt::format("worker {} prefills; it does not decode", options().name)));
    book().Remove(attempt);
    return;
  }
  auto job = std::make_unique<Job>();
  job->attempt = attempt;
  job->target_address = prefill->target_address;
  job->target_name = prefill->target_name;
  absl::StatusOr<engine::Sequence> sequence = CheckedSequence(std::move(*prefill));
  if (!sequence.ok()) {
    Fail(attempt, sequence.status());
    book().Remove(attempt);
    return;
  }
  job->sequence = *std::move(sequence);
  waiting_.push_back(job.get());
  jobs_.emplace(attempt, std::move(job));
}

absl::StatusOr<engine::Sequence> PrefillLoop::CheckedSequence(PrefillCommand command) const {
  engine::Executor& executor = this->executor();
  const auto tokens = static_cast<int64_t>(command.prompt.size());
  BATON_ASSIGN_OR_RETURN(
      engine::Sequence sequence,
      executor.NewSequence(std::move(command.prompt), command.sampling, command.cache_salt));
  const int32_t wanted = executor.pool().layout().BlocksFor(tokens);
  const int32_t total = executor.pool().counts().total;
  if (wanted > total) {
    return absl::ResourceExhaustedError(
        fmt::format("prompt of {} tokens needs {} KV blocks, worker {} has {}", tokens, wanted,
                    options().name, total));
  }
  return sequence;
}

bool PrefillLoop::Advance() {
  StartWaiting();
  if (!computing_.empty()) ComputeStep();
  {
    const std::lock_guard lock(mutex_);
    published_ = counters_;
  }
  return !computing_.empty();
}

std::vector<int32_t> PrefillLoop::PendingOfComputing() const {
  std::vector<int32_t> pending;
  for (const Job* job : computing_) pending.push_back(job->sequence.pending());
  return pending;
}

void PrefillLoop::StartWaiting() {
  while (!waiting_.empty() && MayStart(PendingOfComputing(), limits_)) {
    Job* const job = waiting_.front();
    if (!TakeBlocks(job)) return;
    waiting_.pop_front();
    if (const absl::Status offered = OfferBlocks(job); !offered.ok()) {
      Fail(job->attempt, offered);
      Erase(job->attempt);
      continue;
    }
    job->stage = Stage::kComputing;
    job->started = now();
    job->cached_tokens = job->sequence.computed_tokens;
    counters_.cached_tokens += job->cached_tokens;
    computing_.push_back(job);
    AnnounceBlocks(job);
  }
}

// All blocks of the prompt, those of a cached prefix among them; or none, when not all can be had.
bool PrefillLoop::TakeBlocks(Job* job) {
  engine::Sequence& sequence = job->sequence;
  executor().TakeCachedPrefix(&sequence);
  if (executor().Reserve(&sequence, sequence.pending()).ok()) return true;
  sequence.blocks.Clear();
  sequence.hashes.clear();
  sequence.computed_tokens = 0;
  return false;
}

absl::Status PrefillLoop::OfferBlocks(Job* job) {
  const engine::Sequence& sequence = job->sequence;
  kv_transfer::OfferInfo offer;
  offer.attempt = job->attempt;
  offer.tokens = sequence.prompt_tokens;
  offer.block_hashes = ChainFullBlocks(sequence.chain_root, sequence.tokens,
                                       executor().pool().layout().block_tokens);
  offer.source_name = options().name;
  const std::span<const int32_t> blocks = sequence.blocks.blocks();
  return handoff().Offer(offer, job->target_address, {blocks.begin(), blocks.end()});
}

void PrefillLoop::ComputeStep() {
  std::vector<engine::StepRange> ranges;
  std::vector<Job*> jobs;
  for (const engine::PlannedRange& planned : PlanChunks(PendingOfComputing(), limits_)) {
    Job* const job = computing_[static_cast<size_t>(planned.sequence)];
    jobs.push_back(job);
    ranges.push_back({.sequence = &job->sequence, .tokens = planned.tokens});
    counters_.prompt_tokens += planned.tokens;
  }
  const TimePoint begin = SystemClock().Now();
  const auto results = executor().Step(ranges);
  ++counters_.steps;
  counters_.step_s += Seconds(SystemClock().Now() - begin);
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (results[i]) {
      FinishPrefill(jobs[i], *results[i]);
    } else {
      AnnounceBlocks(jobs[i]);
    }
  }
}

void PrefillLoop::AnnounceBlocks(Job* job) {
  const int32_t full = job->sequence.computed_tokens / executor().pool().layout().block_tokens;
  if (full == job->blocks_announced) return;
  job->blocks_announced = full;
  handoff().BlocksReady(job->attempt, full);
}

void PrefillLoop::FinishPrefill(Job* job, const OutputToken& token) {
  handoff().Commit(job->attempt, worker_common::EncodeFirstToken(token));
  Send(job->attempt, worker_link::TokensEvent{.attempt = job->attempt, .tokens = {token}});
  job->stage = Stage::kHandingOver;
  job->prefilled = SystemClock().Now();
  std::erase(computing_, job);
  ++counters_.prompts;
}

void PrefillLoop::OnHandoff(HandoffEvent event) {
  if (const auto* done = std::get_if<SourceDone>(&event)) {
    OnSourceDone(*done);
  } else if (const auto* offer = std::get_if<OfferArrived>(&event)) {
    handoff().Refuse(offer->offer.attempt,
                     absl::FailedPreconditionError(
                         fmt::format("worker {} prefills; it takes no KV", options().name)));
  }
}

void PrefillLoop::OnSourceDone(const SourceDone& done) {
  const auto found = jobs_.find(done.attempt);
  if (found == jobs_.end()) return;
  Job& job = *found->second;
  const worker_common::AttemptBook::Entry* entry = book().Find(done.attempt);
  if (job.stage == Stage::kHandingOver && done.status.ok()) {
    ++counters_.handoffs;
    Answer(done.attempt, worker_link::PrefilledEvent{.attempt = done.attempt,
                                                     .cached_prompt_tokens = job.cached_tokens,
                                                     .queue = job.started - entry->received,
                                                     .prefill = job.prefilled - job.started});
  } else if (job.stage != Stage::kEnding) {
    const absl::Status why =
        done.status.ok() ? absl::InternalError("the target released a prompt that still computes")
                         : done.status;
    ++counters_.handoffs_failed;
    LogWarning(fmt::format("{}: handoff of {} to {} failed: {}", options().name,
                           ToString(done.attempt), job.target_name, why.ToString()));
    Fail(done.attempt, why);
  }
  Erase(done.attempt);
}

void PrefillLoop::Stop(const Attempt& attempt, const absl::Status& why) {
  Fail(attempt, why);
  const auto found = jobs_.find(attempt);
  if (found == jobs_.end()) return;
  Job& job = *found->second;
  if (job.stage == Stage::kWaiting) {
    Erase(attempt);
    return;
  }
  job.stage = Stage::kEnding;
  std::erase(computing_, &job);
  handoff().CancelSource(attempt, why);
}

// Drops the job with its blocks: those that are full stay in the prefix cache.
void PrefillLoop::Erase(Attempt attempt) {
  const auto found = jobs_.find(attempt);
  if (found == jobs_.end()) return;
  std::erase(waiting_, found->second.get());
  std::erase(computing_, found->second.get());
  jobs_.erase(found);
  book().Remove(attempt);
}

worker_link::WorkerStatus PrefillLoop::CountWork() const {
  worker_link::WorkerStatus status;
  status.waiting = static_cast<int32_t>(waiting_.size());
  status.running = static_cast<int32_t>(jobs_.size() - waiting_.size());
  for (const Job* job : waiting_) status.prompt_tokens_queued += job->sequence.pending();
  for (const Job* job : computing_) status.prompt_tokens_queued += job->sequence.pending();
  return status;
}

}  // namespace baton::prefill_worker
