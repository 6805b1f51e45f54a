// The part of PrefillLoop that keeps KV on disk and goes on with what is there.

#include <algorithm>

#include "prefill_worker/loop.h"

namespace baton::prefill_worker {
namespace {

// The least time that a read may take before what is missing is computed; beyond it, as long as
// computing all of it takes.
constexpr Duration kReadWait = std::chrono::seconds(2);

}  // namespace

// The prompt has all its blocks; those of its computed tokens are filled.
void PrefillLoop::ReadOrCompute(Job* job) {
  const engine::Sequence& sequence = job->sequence;
  const auto filled = static_cast<int32_t>(sequence.hashes.size());
  if (!StartReading(job, sequence.blocks.size() - filled)) BeginComputing(job);
}

// Reads what the disk has of the prompt after what the pool has, up to so many blocks. False when
// that is nothing, or computing it is faster.
bool PrefillLoop::StartReading(Job* job, int32_t most_blocks) {
  if (disk_ == nullptr) return false;
  engine::Sequence& sequence = job->sequence;
  engine::BlockPool& pool = executor().pool();
  const kernels::KvLayout& layout = pool.layout();
  const size_t filled = sequence.hashes.size();
  // One token stays pending: its logits are needed.
  const std::vector<BlockHash> chain = ChainFullBlocks(
      sequence.chain_root, std::span(sequence.tokens).first(sequence.tokens.size() - 1),
      layout.block_tokens);
  const int32_t blocks = std::min(disk_->CountMatch(chain, filled), most_blocks);
  const DiskRead read{.tokens = blocks * layout.block_tokens,
                      .kv_bytes_per_token = layout.bytes_per_token(),
                      .bytes_before = disk_->bytes_to_read(),
                      .disk_bytes_per_s = disk_->status().bytes_per_s,
                      .prefill_tokens_per_s = PrefillTokensPerSecond()};
  if (blocks == 0) return false;
  if (!WorthReading(read)) {
    disk_->MeasureAgain();
    return false;
  }
  const auto needed = static_cast<int32_t>(filled) + blocks;
  if (!pool.Extend(&sequence.blocks, std::max(0, needed - sequence.blocks.size())).ok()) {
    return false;
  }
  std::vector<std::span<std::byte>> into;
  for (auto i = static_cast<int32_t>(filled); i < needed; ++i) {
    into.push_back(BlockBytes(*job, i));
  }
  job->stage = Stage::kReading;
  job->blocks_reading = blocks;
  job->prefix_deadline = now() + std::max(kReadWait, FromSeconds(ComputeSeconds(read).value_or(0)));
  job->read = disk_->StartRead(chain, filled, std::move(into));
  fetching_.push_back(job);
  return true;
}

void PrefillLoop::TakeReads() {
  if (disk_ == nullptr) return;
  for (const kv_disk::DiskTier::Finished& finished : disk_->TakeFinished()) {
    const auto found = std::ranges::find_if(fetching_, [&](const Job* job) {
      return job->stage == Stage::kReading && job->read == finished.id;
    });
    if (found != fetching_.end()) EndReading(*found, finished.blocks);
  }
}

// So many blocks came: goes on with those.
void PrefillLoop::EndReading(Job* job, int32_t blocks) {
  const int32_t tokens = blocks * executor().pool().layout().block_tokens;
  counters_.disk_tokens += tokens;
  job->sequence.computed_tokens += tokens;
  executor().PublishFullBlocks(&job->sequence);
  std::erase(fetching_, job);
  if (job->for_other_worker) {
    OfferPrefix(job);
  } else {
    BeginComputing(job);
  }
}

// What is full by now. In the order of the chain: a block without those before it is of no use.
void PrefillLoop::SaveBlocks(Job* job) {
  if (disk_ == nullptr) return;
  const std::vector<BlockHash>& chain = job->sequence.hashes;
  while (job->blocks_saved < static_cast<int32_t>(chain.size()) &&
         disk_->Save(chain, static_cast<size_t>(job->blocks_saved),
                     BlockBytes(*job, job->blocks_saved))) {
    ++job->blocks_saved;
  }
}

// The job's blocks are about to go.
void PrefillLoop::EndDiskWork(Job* job) {
  if (disk_ == nullptr) return;
  if (job->stage == Stage::kReading) disk_->CancelRead(job->read);
  SaveBlocks(job);
  disk_->CountDropped(static_cast<int64_t>(job->sequence.hashes.size()) - job->blocks_saved);
}

std::span<std::byte> PrefillLoop::BlockBytes(const Job& job, int32_t index) const {
  engine::BlockPool& pool = executor().pool();
  const auto block = static_cast<size_t>(job.sequence.blocks.blocks()[index]);
  const auto bytes = static_cast<size_t>(pool.layout().block_bytes());
  return {pool.slab() + block * bytes, bytes};
}

worker_link::DiskCacheStatus PrefillLoop::CountDisk() const {
  if (disk_ == nullptr) return {};
  const kv_disk::DiskTierStatus status = disk_->status();
  return {.on = status.on,
          .blocks = status.blocks,
          .blocks_total = status.blocks_total,
          .blocks_hit = status.blocks_hit,
          .blocks_missed = status.blocks_missed,
          .blocks_read = status.blocks_read,
          .blocks_written = status.blocks_written,
          .blocks_dropped = status.blocks_dropped,
          .blocks_evicted = status.blocks_evicted,
          .blocks_damaged = status.blocks_damaged,
          .bytes_per_s = status.bytes_per_s};
}

}  // namespace baton::prefill_worker
