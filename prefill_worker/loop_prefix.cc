// The part of PrefillLoop that exchanges cached prefixes with other prefill workers.

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "common/logging.h"
#include "common/sampling.h"
#include "common/status_macros.h"
#include "prefill_worker/loop.h"

namespace baton::prefill_worker {
namespace {

// A donor answers between two of its steps, or the router says that it will not.
constexpr Duration kPrefixWait = std::chrono::seconds(2);
constexpr double kRateMemory = 0.75;  // weight of what was measured before the last transfer

}  // namespace

using kv_transfer::OfferInfo;
using kv_transfer::TargetDone;

// ---- as the donor ----

void PrefillLoop::ServePrefix(const Attempt& attempt, worker_link::ServePrefixCommand command) {
  absl::StatusOr<engine::Sequence> sequence =
      executor().NewSequence(std::move(command.prompt), SamplingParams{}, command.cache_salt);
  if (!sequence.ok()) {
    Fail(attempt, sequence.status());
    book().Remove(attempt);
    return;
  }
  auto made = std::make_unique<Job>();
  Job* const job = made.get();
  job->attempt = attempt;
  job->for_other_worker = true;
  job->target_address = std::move(command.target_address);
  job->target_name = std::move(command.target_name);
  job->sequence = *std::move(sequence);
  jobs_.emplace(attempt, std::move(made));
  // The last token stays for the other worker: its logits are needed.
  executor().TakeCachedPrefix(&job->sequence);
  const engine::BlockCounts counts = executor().pool().counts();
  if (!StartReading(job, counts.free + counts.cached)) OfferPrefix(job);
}

// What is in the pool of the prompt's prefix, offered and committed.
void PrefillLoop::OfferPrefix(Job* job) {
  const engine::Sequence& sequence = job->sequence;
  const size_t blocks = sequence.hashes.size();
  absl::Status offered = absl::NotFoundError("none of this prompt's KV is cached");
  if (blocks > 0) {
    const std::span<const int32_t> held = sequence.blocks.blocks().first(blocks);
    offered = handoff().Offer({.attempt = job->attempt,
                               .tokens = sequence.computed_tokens,
                               .block_hashes = sequence.hashes,
                               .source_name = options().name},
                              job->target_address, {held.begin(), held.end()});
  }
  if (!offered.ok()) {
    Fail(job->attempt, offered);
    Erase(job->attempt);
    return;
  }
  job->stage = Stage::kServing;
  handoff().Commit(job->attempt, "");
}

// ---- as the one that asked ----

void PrefillLoop::OnOffer(OfferInfo offer) {
  const auto found = jobs_.find(offer.attempt);
  Job* const job = found == jobs_.end() ? nullptr : found->second.get();
  if (job != nullptr && job->prefix_tokens > 0 && job->stage == Stage::kWaiting) {
    job->prefix_offer = std::move(offer);
  } else if (job != nullptr && job->stage == Stage::kAwaitingPrefix) {
    job->prefix_offer = std::move(offer);
    TakePrefixOffer(job);
  } else {
    KeepOrRefuse(std::move(offer));
  }
}

void PrefillLoop::OnNoOffer(const Attempt& attempt) {
  const auto found = jobs_.find(attempt);
  if (found == jobs_.end() || found->second->prefix_offer) return;
  Job* const job = found->second.get();
  if (job->stage == Stage::kAwaitingPrefix) {
    ++counters_.prefixes_not_offered;
    EndFetching(job);
  } else if (job->stage == Stage::kWaiting && job->prefix_tokens > 0) {
    job->prefix_tokens = 0;  // there is nothing to wait for when its turn comes
    ++counters_.prefixes_not_offered;
  }
}

// With all blocks of the prompt, of which those of the local cache are filled.
void PrefillLoop::AwaitPrefix(Job* job) {
  job->stage = Stage::kAwaitingPrefix;
  job->prefix_deadline = now() + kPrefixWait;
  fetching_.push_back(job);
  if (job->prefix_offer) TakePrefixOffer(job);
}

void PrefillLoop::TakePrefixOffer(Job* job) {
  const OfferInfo offer = *std::exchange(job->prefix_offer, std::nullopt);
  const absl::Status fits = CheckPrefixOffer(*job, offer);
  if (!fits.ok()) {
    handoff().Refuse(job->attempt, fits);
    ++counters_.prefixes_refused;
    EndFetching(job);
    return;
  }
  const auto held = static_cast<size_t>(job->sequence.hashes.size());
  const std::span<const int32_t> wanted =
      job->sequence.blocks.blocks().subspan(held, offer.block_hashes.size() - held);
  job->stage = Stage::kFetching;
  handoff().Grant(job->attempt, static_cast<int32_t>(held), {wanted.begin(), wanted.end()});
}

absl::Status PrefillLoop::CheckPrefixOffer(const Job& job, const OfferInfo& offer) const {
  const engine::Sequence& sequence = job.sequence;
  const int32_t block_tokens = executor().pool().layout().block_tokens;
  const auto offered = static_cast<int64_t>(offer.block_hashes.size());
  const auto tokens = static_cast<int32_t>(sequence.tokens.size());
  if (offer.tokens >= tokens || offer.tokens != offered * block_tokens ||
      offer.block_hashes !=
          ChainFullBlocks(sequence.chain_root,
                          std::span(sequence.tokens).first(static_cast<size_t>(offer.tokens)),
                          block_tokens)) {
    return absl::InvalidArgumentError(
        fmt::format("{} offers KV of another prompt: {} tokens in {} blocks, the prompt has {}",
                    offer.source_name, offer.tokens, offered, tokens));
  }
  if (offered <= static_cast<int64_t>(sequence.hashes.size())) {
    return absl::FailedPreconditionError(fmt::format("worker {} has {} of these {} blocks itself",
                                                     options().name, sequence.hashes.size(),
                                                     offered));
  }
  return absl::OkStatus();
}

void PrefillLoop::OnTargetDone(const TargetDone& done) {
  const auto found = jobs_.find(done.attempt);
  if (found == jobs_.end()) return;
  Job* const job = found->second.get();
  if (absl::IsDataLoss(done.status)) ++counters_.checksum_mismatches;
  if (job->stage == Stage::kEnding) {
    Erase(done.attempt);
    return;
  }
  if (!done.status.ok()) {
    LogWarning(fmt::format("no prefix by handoff for {}: {}", NameOf(done.attempt),
                           done.status.ToString()));
    ++counters_.prefixes_failed;
    EndFetching(job);
    return;
  }
  const kv_transfer::TransferStats& stats = done.stats;
  const int32_t block_tokens = executor().pool().layout().block_tokens;
  ++counters_.prefixes_fetched;
  counters_.prefix_tokens_fetched += stats.blocks_moved * block_tokens;
  counters_.prefix_bytes_fetched += stats.bytes_moved;
  if (stats.elapsed > Duration{}) {
    const double rate = static_cast<double>(stats.bytes_moved) / Seconds(stats.elapsed);
    kv_bytes_per_s_ =
        kv_bytes_per_s_ == 0 ? rate : kRateMemory * kv_bytes_per_s_ + (1 - kRateMemory) * rate;
  }
  job->sequence.computed_tokens = stats.blocks_total * block_tokens;
  executor().PublishFullBlocks(&job->sequence);
  EndFetching(job);
}

// With or without a prefix.
void PrefillLoop::EndFetching(Job* job) {
  std::erase(fetching_, job);
  ReadOrCompute(job);
}

// Offers that did not come, and reads from disk that take too long.
void PrefillLoop::ExpireFetching() {
  const std::vector<Job*> fetching = fetching_;
  for (Job* const job : fetching) {
    if (job->prefix_deadline > now()) continue;
    if (job->stage == Stage::kAwaitingPrefix) {
      ++counters_.prefixes_not_offered;
      EndFetching(job);
    } else if (job->stage == Stage::kReading) {
      ++counters_.disk_reads_late;
      EndReading(job, disk_->CancelRead(job->read));
    }
  }
}

}  // namespace baton::prefill_worker
