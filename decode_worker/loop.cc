#include "decode_worker/loop.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "worker_common/first_token.h"

namespace baton::decode_worker {

using kv_transfer::OfferInfo;
using kv_transfer::TargetDone;
using worker_link::DecodeCommand;

DecodeLoop::DecodeLoop(worker_common::WorkerHost* host)
    : WorkerLoop(host, worker_link::Role::kDecode),
      limits_{.chunk_tokens = host->options().chunk_tokens,
              .max_batch = host->options().max_batch} {}

DecodeCounters DecodeLoop::counters() const {
  const std::lock_guard lock(mutex_);
  return published_;
}

DecodeLoop::Job* DecodeLoop::Find(const Attempt& attempt) {
  const auto found = jobs_.find(attempt);
  return found == jobs_.end() ? nullptr : found->second.get();
}

void DecodeLoop::Start(const Attempt& attempt, worker_link::Command command) {
  auto* const decode = std::get_if<DecodeCommand>(&command);
  std::optional<OfferInfo> offer = TakeEarlyOffer(attempt);
  absl::Status status;
  auto job = std::make_unique<Job>();
  if (decode == nullptr) {
    // A router that has not heard yet that this worker's role has changed.
    status = absl::UnavailableError(
        fmt::format("worker {} decodes; it does not prefill for others", options().name));
  } else {
    absl::StatusOr<engine::Sequence> sequence = executor().NewSequence(
        std::move(decode->prompt), decode->sampling, decode->cache_salt, decode->output_tokens);
    status = sequence.ok() ? CheckFits(*sequence) : sequence.status();
    if (status.ok()) {
      job->sequence = *std::move(sequence);
      job->cache_salt = std::move(decode->cache_salt);
      // Whoever computes the prompt scores it.
      if (decode->handoff) job->sequence.scored_tokens = job->sequence.prompt_tokens;
    }
  }
  if (!status.ok()) {
    if (offer) handoff().Refuse(attempt, status);
    Fail(attempt, status);
    book().Remove(attempt);
    return;
  }
  job->attempt = attempt;
  job->ticket = ++last_ticket_;
  job->by_handoff = decode->handoff;
  job->offer_deadline = now() + options().offer_wait;
  Job* const started = job.get();
  jobs_.emplace(attempt, std::move(job));
  if (const auto reason = executor().Finished(started->sequence)) {
    // The worker before was lost between the last token and saying so.
    if (offer) handoff().Refuse(attempt, absl::FailedPreconditionError("the output is complete"));
    Finish(started, *reason);
    return;
  }
  if (started->sequence.ending == engine::Sequence::Ending::kUnknown) {
    unsettled_.push_back(started);
  }
  if (!started->by_handoff) {
    if (offer) handoff().Refuse(attempt, absl::FailedPreconditionError("no KV is wanted"));
    EnterLine(started);
  } else if (offer) {
    TakeOffer(started, *offer);
  } else {
    awaiting_offer_.push_back(started);
  }
}

bool DecodeLoop::Advance() {
  SettleEndings();
  ExpireOffers();
  AdmitFromLine();
  if (!running_.empty()) ComputeStep();
  {
    const std::lock_guard lock(mutex_);
    published_ = counters_;
  }
  return !running_.empty();
}

// ---- handoff ----

void DecodeLoop::OnHandoff(kv_transfer::HandoffEvent event) {
  if (auto* offer = std::get_if<kv_transfer::OfferArrived>(&event)) {
    OnOffer(std::move(offer->offer));
  } else if (auto* done = std::get_if<TargetDone>(&event)) {
    OnTargetDone(std::move(*done));
  }
}

void DecodeLoop::OnOffer(OfferInfo offer) {
  Job* const job = Find(offer.attempt);
  if (job != nullptr && job->stage == Stage::kAwaitingOffer) {
    std::erase(awaiting_offer_, job);
    TakeOffer(job, offer);
  } else {
    KeepOrRefuse(std::move(offer));
  }
}

void DecodeLoop::OnNoOffer(const Attempt& attempt) {
  Job* const job = Find(attempt);
  if (job == nullptr || job->stage != Stage::kAwaitingOffer) return;
  std::erase(awaiting_offer_, job);
  ++counters_.offers_missed;
  FallBackToPrefill(job, absl::UnavailableError("the prefill worker is gone"));
}

void DecodeLoop::TakeOffer(Job* job, const OfferInfo& offer) {
  engine::Sequence& sequence = job->sequence;
  const auto& own = executor().pool().layout();
  // The source's hashes are of its own layout; what comes is then cached by hashes of ours.
  const auto expected = ChainFullBlocks(executor().ChainRootFor(job->cache_salt, offer.layout),
                                        sequence.tokens, offer.layout.block_tokens);
  const auto tokens = static_cast<int32_t>(sequence.tokens.size());
  if (offer.tokens == tokens && offer.block_hashes == expected) {
    if (offer.layout.dtype != own.dtype) {
      sequence.chain_root = executor().ConvertedChainRootFor(job->cache_salt, offer.layout.dtype);
      sequence.publish_output = false;
    }
    sequence.hashes = ChainFullBlocks(sequence.chain_root, sequence.tokens, own.block_tokens);
    job->converted = offer.layout != own;
    EnterLine(job);
    return;
  }
  const absl::Status why = absl::InvalidArgumentError(
      fmt::format("{} offers KV of another prompt: {} tokens, {} are wanted", offer.source_name,
                  offer.tokens, tokens));
  handoff().Refuse(job->attempt, why);
  ++counters_.offers_missed;
  FallBackToPrefill(job, why);
}

void DecodeLoop::OnTargetDone(TargetDone done) {
  Job* const job = Find(done.attempt);
  if (job == nullptr) return;
  --receiving_;
  if (absl::IsDataLoss(done.status)) ++counters_.checksum_mismatches;
  if (job->stage == Stage::kEnding) {
    Erase(done.attempt);
    return;
  }
  const absl::Status taken = done.status.ok() ? TakeFirstToken(job, done) : done.status;
  if (taken.ok()) return;
  ++counters_.handoffs_failed;
  DropBlocks(&job->sequence);
  FallBackToPrefill(job, taken);
}

// The KV of prompt and earlier output is here: goes on from the next token, which came with it.
absl::Status DecodeLoop::TakeFirstToken(Job* job, const TargetDone& done) {
  BATON_ASSIGN_OR_RETURN(
      OutputToken token,
      worker_common::DecodeFirstToken(done.commit_payload, executor().model().config().vocab));
  ++counters_.handoffs;
  if (job->converted && done.stats.blocks_moved > 0) ++counters_.handoffs_converted;
  job->transfer = done.stats;
  engine::Sequence& sequence = job->sequence;
  token.position = static_cast<int32_t>(sequence.output().size());
  sequence.computed_tokens = static_cast<int32_t>(sequence.tokens.size());
  executor().PublishFullBlocks(&sequence);
  sequence.AppendOutput(token.token);
  if (sequence.constraint != nullptr) sequence.constraint->Ready(sequence.output());
  JoinBatch(job);
  TakeToken(job, token);
  return absl::OkStatus();
}

void DecodeLoop::ExpireOffers() {
  while (!awaiting_offer_.empty() && awaiting_offer_.front()->offer_deadline <= now()) {
    Job* const job = awaiting_offer_.front();
    awaiting_offer_.pop_front();
    ++counters_.offers_missed;
    FallBackToPrefill(job, absl::DeadlineExceededError(fmt::format("no offer came in {:.3f} s",
                                                                   Seconds(options().offer_wait))));
  }
}

void DecodeLoop::FallBackToPrefill(Job* job, const absl::Status& why) {
  ++counters_.prefill_fallbacks;
  LogWarning(fmt::format("no KV by handoff for {}, prefilling {} tokens here: {}",
                         NameOf(job->attempt), job->sequence.tokens.size(), why.ToString()));
  job->sequence.hashes.clear();
  job->sequence.scored_tokens = 1;  // by whom else, nobody knows
  PrefillHere(job);
}

// All of it: what was computed in another number format is not gone on with.
void DecodeLoop::PrefillHere(Job* job) {
  job->by_handoff = false;
  job->sequence.chain_root = executor().ChainRootFor(job->cache_salt);
  job->sequence.publish_output = true;
  EnterLine(job);
}

// ---- blocks ----

absl::Status DecodeLoop::CheckFits(const engine::Sequence& sequence) const {
  const engine::BlockPool& pool = executor().pool();
  const auto tokens = static_cast<int64_t>(sequence.tokens.size());
  const int32_t wanted = pool.layout().BlocksFor(tokens + 1);
  const int32_t total = pool.counts().total;
  if (wanted <= total) return absl::OkStatus();
  return absl::ResourceExhaustedError(
      fmt::format("a sequence of {} tokens needs {} KV blocks for the next one, worker {} has {}",
                  tokens, wanted, options().name, total));
}

void DecodeLoop::EnterLine(Job* job) {
  job->stage = Stage::kInLine;
  line_.emplace(job->ticket, job);
}

void DecodeLoop::AdmitFromLine() {
  while (!line_.empty()) {
    Job* const job = line_.begin()->second;
    if (const absl::Status fits = CheckFits(job->sequence); !fits.ok()) {
      Fail(job->attempt, fits);
      Erase(job->attempt);
      continue;
    }
    const engine::BlockCounts counts = executor().pool().counts();
    const Blocked now_blocked{job->ticket, counts.free + counts.cached, running_.size(),
                              receiving_};
    if (now_blocked == blocked_) return;
    if (!Admit(job)) {
      blocked_ = now_blocked;
      return;
    }
    line_.erase(job->ticket);
    if (job->by_handoff) {
      Grant(job);
    } else {
      JoinBatch(job);
    }
  }
}

// Takes all blocks for the sequence and its next token, those that are cached among them; or none.
bool DecodeLoop::Admit(Job* job) {
  engine::Sequence& sequence = job->sequence;
  engine::BlockPool& pool = executor().pool();
  if (job->by_handoff) {
    sequence.blocks = pool.Match(sequence.hashes);
  } else {
    executor().TakeCachedPrefix(&sequence);
  }
  const int32_t matched = sequence.blocks.size();
  const auto tokens = static_cast<int64_t>(sequence.tokens.size());
  const int32_t wanted = pool.layout().BlocksFor(tokens + 1) - matched;
  const engine::BlockCounts counts = pool.counts();
  const auto others = static_cast<int32_t>(running_.size()) + receiving_;
  if (!MayJoin(wanted, counts.free + counts.cached, others) ||
      !pool.Extend(&sequence.blocks, wanted).ok()) {
    if (job->by_handoff) {
      sequence.blocks.Clear();
    } else {
      DropBlocks(&sequence);
    }
    return false;
  }
  if (!job->admitted) {
    job->cached_tokens = matched * pool.layout().block_tokens;
    job->queue = SystemClock().Now() - book().Find(job->attempt)->received;
  }
  job->admitted = true;
  if (job->by_handoff) sequence.hashes.resize(static_cast<size_t>(matched));
  return true;
}

void DecodeLoop::Grant(Job* job) {
  const engine::Sequence& sequence = job->sequence;
  const auto matched = static_cast<int32_t>(sequence.hashes.size());
  const int32_t prompt_blocks =
      executor().pool().layout().BlocksFor(static_cast<int64_t>(sequence.tokens.size()));
  const std::span<const int32_t> blocks = sequence.blocks.blocks();
  const auto wanted =
      blocks.subspan(static_cast<size_t>(matched), static_cast<size_t>(prompt_blocks - matched));
  job->stage = Stage::kReceiving;
  ++receiving_;
  handoff().Grant(job->attempt, matched, {wanted.begin(), wanted.end()});
}

void DecodeLoop::JoinBatch(Job* job) {
  job->stage = Stage::kRunning;
  const auto younger = [job](const Job* other) { return other->ticket > job->ticket; };
  running_.insert(std::find_if(running_.begin(), running_.end(), younger), job);
}

void DecodeLoop::DropBlocks(engine::Sequence* sequence) {
  sequence->blocks.Clear();
  sequence->hashes.clear();
  sequence->computed_tokens = 0;
}

// A block for the next token. False when the job itself was the youngest and had to give way.
bool DecodeLoop::ReserveByPreempting(Job* job) {
  while (!executor().Reserve(&job->sequence, 1).ok()) {
    Job* const victim = running_.back();
    Preempt(victim);
    if (victim == job) return false;
  }
  return true;
}

void DecodeLoop::Preempt(Job* job) {
  ++counters_.preemptions;
  ++job->preemptions;
  LogInfo(fmt::format("{} gives {} KV blocks to older requests, {} tokens will be computed again",
                      NameOf(job->attempt), job->sequence.blocks.size(),
                      job->sequence.computed_tokens));
  std::erase(running_, job);
  DropBlocks(&job->sequence);
  PrefillHere(job);
}

// ---- compute ----

void DecodeLoop::ComputeStep() {
  std::vector<RunningView> views;
  for (const Job* job : running_) {
    views.push_back({.pending = job->sequence.pending(),
                     .decoding = job->sequence.decoding(),
                     .served_step = job->served_step});
  }
  std::vector<std::pair<Job*, int32_t>> planned;
  for (const engine::PlannedRange& range : PlanBatch(views, limits_)) {
    planned.emplace_back(running_[static_cast<size_t>(range.sequence)], range.tokens);
  }
  for (const auto& [job, tokens] : planned) {
    const bool preempted = job->stage != Stage::kRunning;
    if (!preempted && job->sequence.decoding()) ReserveByPreempting(job);
  }
  std::erase_if(planned, [](const auto& one) { return one.first->stage != Stage::kRunning; });
  if (planned.empty()) return;

  std::vector<engine::StepRange> ranges;
  int64_t prefill_tokens = 0;
  for (const auto& [job, tokens] : planned) {
    ranges.push_back({.sequence = &job->sequence, .tokens = tokens});
  }
  executor().FitLogits(ranges);
  for (size_t i = 0; i < ranges.size(); ++i) {
    Job* const job = planned[i].first;
    if (job->sequence.decoding()) continue;
    prefill_tokens += ranges[i].tokens;
    if (++job->chunks == 1) job->computing = now();
  }
  const TimePoint begin = SystemClock().Now();
  for (const auto& [job, tokens] : planned) {
    const bool first = job->by_handoff && job->handover == Duration{};
    if (first) job->handover = begin - job->transfer.committed_at;
  }
  step_meter().Begin(ranges);
  const auto results = executor().Step(ranges);
  const TimePoint end = SystemClock().Now();
  step_meter().End(end - begin);
  const double step_s = Seconds(end - begin);
  ++counters_.steps;
  counters_.step_s += step_s;
  counters_.prefill_tokens += prefill_tokens;
  if (prefill_tokens > 0) counters_.prefill_step_s += step_s;
  for (size_t i = 0; i < planned.size(); ++i) {
    Job* const job = planned[i].first;
    job->served_step = counters_.steps;
    if (job->chunks == 1 && job->first_chunk == Duration{}) job->first_chunk = end - job->computing;
    SendScores(job->attempt, &job->sequence);
    if (results[i]) {
      ++job->steps;
      TakeToken(job, *results[i]);
    } else if (job->sequence.constraint != nullptr) {
      EndIfOver(job);
    }
  }
}

void DecodeLoop::TakeToken(Job* job, const OutputToken& token) {
  ++counters_.output_tokens;
  worker_link::TokensEvent event{.attempt = job->attempt, .tokens = {token}, .prefill = {}};
  if (!std::exchange(job->token_sent, true) && job->chunks > 0) {
    event.prefill = PrefillTimesOf(*job);
  }
  Send(job->attempt, std::move(event));
  if (const auto reason = executor().Finished(job->sequence)) Finish(job, *reason);
}

worker_link::WorkerStatus DecodeLoop::CountWork() const {
  worker_link::WorkerStatus status;
  status.running = static_cast<int32_t>(running_.size()) + receiving_;
  status.waiting = static_cast<int32_t>(line_.size() + awaiting_offer_.size());
  for (const auto& [ticket, job] : line_) {
    if (!job->by_handoff) status.prompt_tokens_queued += job->sequence.pending();
  }
  for (const Job* job : running_) {
    if (!job->sequence.decoding()) status.prompt_tokens_queued += job->sequence.pending();
  }
  status.preemptions = counters_.preemptions;
  if (counters_.prefill_step_s > 0) {
    status.prefill_tokens_per_s =
        static_cast<double>(counters_.prefill_tokens) / counters_.prefill_step_s;
  }
  status.kv = {.handoffs = counters_.handoffs,
               .handoffs_failed = counters_.handoffs_failed,
               .handoffs_converted = counters_.handoffs_converted,
               .checksum_mismatches = counters_.checksum_mismatches};
  return status;
}

}  // namespace baton::decode_worker
