#include "prefill_worker/loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "worker_common/first_token.h"

namespace baton::prefill_worker {

using kv_transfer::HandoffEvent;
using kv_transfer::OfferArrived;
using kv_transfer::SourceDone;
using worker_link::PrefillCommand;

PrefillLoop::PrefillLoop(worker_common::WorkerHost* host, kv_disk::DiskTier* disk)
    : WorkerLoop(host, worker_link::Role::kPrefill),
      limits_{.chunk_tokens = host->options().chunk_tokens, .max_batch = host->options().max_batch},
      disk_(disk) {}

PrefillCounters PrefillLoop::counters() const {
  const std::lock_guard lock(mutex_);
  return published_;
}

void PrefillLoop::Start(const Attempt& attempt, worker_link::Command command) {
  if (auto* serve = std::get_if<worker_link::ServePrefixCommand>(&command)) {
    ServePrefix(attempt, std::move(*serve));
    return;
  }
  auto* prefill = std::get_if<PrefillCommand>(&command);
  if (prefill == nullptr) {
    // A router that has not heard yet that this worker's role has changed.
    Fail(attempt, absl::UnavailableError(
                      fmt::format("worker {} prefills; it does not decode", options().name)));
    book().Remove(attempt);
    return;
  }
  auto job = std::make_unique<Job>();
  job->attempt = attempt;
  job->target_address = prefill->target_address;
  job->target_name = prefill->target_name;
  job->prefix_tokens = prefill->prefix_tokens;
  job->prefix_offer = TakeEarlyOffer(attempt);
  absl::StatusOr<engine::Sequence> sequence = CheckedSequence(std::move(*prefill));
  if (!sequence.ok()) {
    if (job->prefix_offer) handoff().Refuse(attempt, sequence.status());
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
  BATON_ASSIGN_OR_RETURN(engine::Sequence sequence,
                         executor.NewSequence(std::move(command.prompt), command.sampling,
                                              command.cache_salt, command.output_tokens));
  BATON_RETURN_IF_ERROR(CheckGoesOn(sequence));
  const int32_t wanted = executor.pool().layout().BlocksFor(tokens);
  const int32_t total = executor.pool().counts().total;
  if (wanted > total) {
    return absl::ResourceExhaustedError(
        fmt::format("prompt of {} tokens needs {} KV blocks, worker {} has {}", tokens, wanted,
                    options().name, total));
  }
  return sequence;
}

absl::Status PrefillLoop::CheckGoesOn(const engine::Sequence& sequence) const {
  if (!sequence.failure.ok()) return sequence.failure;
  if (!executor().Finished(sequence)) return absl::OkStatus();
  // The decode worker, which is asked the same, finds that too, and ends the answer.
  return absl::FailedPreconditionError("the output is complete: there is nothing to prefill");
}

bool PrefillLoop::Advance() {
  TakeReads();
  ExpireFetching();
  StartWaiting();
  if (!computing_.empty()) ComputeStep();
  {
    const std::lock_guard lock(mutex_);
    published_ = counters_;
  }
  return !computing_.empty();
}

// What is being read is probably not computed.
int32_t PrefillLoop::ToCompute(const Job& job) const {
  const int32_t reading = job.stage == Stage::kReading
                              ? job.blocks_reading * executor().pool().layout().block_tokens
                              : 0;
  return job.for_other_worker ? 0 : job.sequence.pending() - reading;
}

std::vector<int32_t> PrefillLoop::PendingOf(std::span<Job* const> jobs) const {
  std::vector<int32_t> pending;
  for (const Job* job : jobs) pending.push_back(ToCompute(*job));
  return pending;
}

std::optional<size_t> PrefillLoop::NextToStart() const {
  if (waiting_.empty()) return std::nullopt;
  std::vector<Job*> started = computing_;
  started.insert(started.end(), fetching_.begin(), fetching_.end());
  const std::vector<int32_t> pending = PendingOf(started);
  if (MayStart(pending, ToCompute(*waiting_.front()), limits_)) return 0;
  for (size_t i = 1; i < waiting_.size(); ++i) {
    if (MayPass(pending, ToCompute(*waiting_[i]), limits_)) return i;
  }
  return std::nullopt;
}

void PrefillLoop::StartWaiting() {
  while (const std::optional<size_t> next = NextToStart()) {
    Job* const job = waiting_[*next];
    if (!TakeBlocks(job)) return;
    waiting_.erase(waiting_.begin() + static_cast<std::ptrdiff_t>(*next));
    job->started = now();
    const bool scores = job->sequence.wants_scores();
    if (job->prefix_tokens > job->sequence.computed_tokens && !scores) {
      AwaitPrefix(job);
    } else {
      if (job->prefix_offer) {
        handoff().Refuse(job->attempt, absl::FailedPreconditionError("no prefix is wanted"));
        job->prefix_offer.reset();
      }
      if (scores) {
        BeginComputing(job);
      } else {
        ReadOrCompute(job);
      }
    }
  }
}

void PrefillLoop::BeginComputing(Job* job) {
  if (const absl::Status offered = OfferBlocks(job); !offered.ok()) {
    Fail(job->attempt, offered);
    Erase(job->attempt);
    return;
  }
  job->stage = Stage::kComputing;
  job->computing = SystemClock().Now();
  job->cached_tokens = job->sequence.computed_tokens;
  counters_.cached_tokens += job->cached_tokens;
  computing_.push_back(job);
  AnnounceBlocks(job, job->cached_tokens);
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
  offer.tokens = static_cast<int32_t>(sequence.tokens.size());
  offer.block_hashes = ChainFullBlocks(sequence.chain_root, sequence.tokens,
                                       executor().pool().layout().block_tokens);
  offer.source_name = options().name;
  const std::span<const int32_t> blocks = sequence.blocks.blocks();
  return handoff().Offer(offer, job->target_address, {blocks.begin(), blocks.end()});
}

void PrefillLoop::ComputeStep() {
  std::vector<engine::StepRange> ranges;
  std::vector<Job*> jobs;
  for (const engine::PlannedRange& planned : PlanChunks(PendingOf(computing_), limits_)) {
    Job* const job = computing_[static_cast<size_t>(planned.sequence)];
    jobs.push_back(job);
    ranges.push_back({.sequence = &job->sequence, .tokens = planned.tokens});
  }
  executor().FitLogits(ranges);
  for (const engine::StepRange& range : ranges) counters_.prompt_tokens += range.tokens;
  const TimePoint begin = SystemClock().Now();
  // The target takes them while the layers above, and then the logits, are computed.
  const int32_t all_layers = executor().pool().layout().layers;
  const std::function<void(int32_t)> kv_stored = [&](int32_t layers) {
    for (size_t i = 0; i < jobs.size(); ++i) {
      const int32_t tokens = jobs[i]->sequence.computed_tokens + ranges[i].tokens;
      if (layers == all_layers) {
        AnnounceBlocks(jobs[i], tokens);
      } else {
        AnnounceLayers(*jobs[i], tokens, layers);
      }
    }
  };
  step_meter().Begin(ranges);
  const auto results = executor().Step(ranges, &kv_stored);
  const Duration took = SystemClock().Now() - begin;
  step_meter().End(took);
  ++counters_.steps;
  const TimePoint end = begin + took;
  counters_.step_s += Seconds(took);
  for (size_t i = 0; i < jobs.size(); ++i) {
    if (++jobs[i]->chunks == 1) jobs[i]->first_chunk = end - jobs[i]->computing;
    SendScores(jobs[i]->attempt, &jobs[i]->sequence);
    if (results[i]) {
      FinishPrefill(jobs[i], *results[i]);
    } else if (const absl::Status over = CheckGoesOn(jobs[i]->sequence); !over.ok()) {
      Stop(jobs[i]->attempt, over);
      continue;
    }
    SaveBlocks(jobs[i]);
  }
}

// Of which these tokens are the last. A block that is not full waits, but for the prompt's last.
int32_t PrefillLoop::CompleteBlocks(const Job& job, int32_t tokens) const {
  const kernels::KvLayout& layout = executor().pool().layout();
  const bool all = static_cast<size_t>(tokens) == job.sequence.tokens.size();
  return all ? layout.BlocksFor(tokens) : tokens / layout.block_tokens;
}

// The KV of so many tokens is in the slab.
void PrefillLoop::AnnounceBlocks(Job* job, int32_t tokens) {
  const int32_t complete = CompleteBlocks(*job, tokens);
  if (complete == job->blocks_announced) return;
  job->blocks_announced = complete;
  handoff().BlocksReady(job->attempt, complete);
}

// The lowest layers of these tokens' KV are in the slab, and all of the tokens before them.
void PrefillLoop::AnnounceLayers(const Job& job, int32_t tokens, int32_t layers) {
  const int32_t begun = CompleteBlocks(job, tokens);
  if (begun > job.blocks_announced) handoff().LayersReady(job.attempt, begun, layers);
}

void PrefillLoop::FinishPrefill(Job* job, OutputToken token) {
  handoff().Commit(job->attempt, worker_common::EncodeFirstToken(token));
  const worker_link::PrefillTimes times{.cached_prompt_tokens = job->cached_tokens,
                                        .chunks = job->chunks,
                                        .queue = job->started - book().Find(job->attempt)->received,
                                        .fetch = job->computing - job->started,
                                        .first_chunk = job->first_chunk,
                                        .compute = SystemClock().Now() - job->computing};
  Send(job->attempt, worker_link::TokensEvent{
                         .attempt = job->attempt, .tokens = {std::move(token)}, .prefill = times});
  job->stage = Stage::kHandingOver;
  std::erase(computing_, job);
  ++counters_.prompts;
}

void PrefillLoop::OnHandoff(HandoffEvent event) {
  if (const auto* done = std::get_if<SourceDone>(&event)) {
    OnSourceDone(*done);
  } else if (auto* offer = std::get_if<OfferArrived>(&event)) {
    OnOffer(std::move(offer->offer));
  } else {
    OnTargetDone(std::get<kv_transfer::TargetDone>(event));
  }
}

void PrefillLoop::OnSourceDone(const SourceDone& done) {
  const auto found = jobs_.find(done.attempt);
  if (found == jobs_.end()) return;
  Job& job = *found->second;
  if (job.stage == Stage::kServing && done.status.ok()) {
    ++counters_.prefixes_served;
    Answer(done.attempt, worker_link::PrefilledEvent{.attempt = done.attempt});
  } else if (job.stage == Stage::kHandingOver && done.status.ok()) {
    ++counters_.handoffs;
    Answer(done.attempt, worker_link::PrefilledEvent{.attempt = done.attempt});
  } else if (job.stage != Stage::kEnding) {
    const absl::Status why =
        done.status.ok() ? absl::InternalError("the target released a prompt that still computes")
                         : done.status;
    ++counters_.handoffs_failed;
    LogWarning(fmt::format("handoff of {} to {} failed: {}", NameOf(done.attempt), job.target_name,
                           why.ToString()));
    Fail(done.attempt, why);
  }
  Erase(done.attempt);
}

void PrefillLoop::Stop(const Attempt& attempt, const absl::Status& why) {
  Fail(attempt, why);
  const auto found = jobs_.find(attempt);
  if (found == jobs_.end()) return;
  Job& job = *found->second;
  if (job.stage == Stage::kWaiting || job.stage == Stage::kAwaitingPrefix ||
      job.stage == Stage::kReading) {
    if (job.prefix_offer) handoff().Refuse(attempt, why);
    Erase(attempt);
    return;
  }
  const bool fetching = job.stage == Stage::kFetching;
  job.stage = Stage::kEnding;
  std::erase(computing_, &job);
  std::erase(fetching_, &job);
  if (fetching) {
    handoff().CancelTarget(attempt);
  } else {
    handoff().CancelSource(attempt, why);
  }
}

// Drops the job with its blocks: those that are full stay in the prefix cache.
void PrefillLoop::Erase(Attempt attempt) {
  const auto found = jobs_.find(attempt);
  if (found == jobs_.end()) return;
  Job* const job = found->second.get();
  EndDiskWork(job);
  std::erase(waiting_, job);
  std::erase(fetching_, job);
  std::erase(computing_, job);
  jobs_.erase(found);
  book().Remove(attempt);
}

double PrefillLoop::PrefillTokensPerSecond() const {
  return counters_.step_s > 0 ? static_cast<double>(counters_.prompt_tokens) / counters_.step_s : 0;
}

worker_link::WorkerStatus PrefillLoop::CountWork() const {
  worker_link::WorkerStatus status;
  status.waiting = static_cast<int32_t>(waiting_.size());
  status.running = static_cast<int32_t>(jobs_.size() - waiting_.size());
  for (const Job* job : waiting_) status.prompt_tokens_queued += ToCompute(*job);
  for (const Job* job : fetching_) status.prompt_tokens_queued += ToCompute(*job);
  for (const Job* job : computing_) status.prompt_tokens_queued += ToCompute(*job);
  status.prefill_tokens_per_s = PrefillTokensPerSecond();
  status.kv_bytes_per_s = kv_bytes_per_s_;
  status.disk = CountDisk();
  status.kv = {.checksum_mismatches = counters_.checksum_mismatches,
               .prefixes_fetched = counters_.prefixes_fetched,
               .prefixes_not_offered = counters_.prefixes_not_offered,
               .prefixes_refused = counters_.prefixes_refused,
               .prefixes_failed = counters_.prefixes_failed,
               .prefix_tokens_fetched = counters_.prefix_tokens_fetched,
               .prefix_bytes_fetched = counters_.prefix_bytes_fetched};
  return status;
}

}  // namespace baton::prefill_worker
