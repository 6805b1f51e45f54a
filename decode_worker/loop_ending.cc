// How requests of a decode worker end.

#include <algorithm>

#include "decode_worker/loop.h"

namespace baton::decode_worker {

void DecodeLoop::Stop(const Attempt& attempt, const absl::Status& why) {
  Fail(attempt, why);
  if (Job* const job = Find(attempt)) Leave(job, why);
}

void DecodeLoop::Leave(Job* job, const absl::Status& why) {
  std::erase(unsettled_, job);
  if (job->stage == Stage::kReceiving) {
    job->stage = Stage::kEnding;  // its blocks may be written to until TargetDone
    handoff().CancelTarget(job->attempt);
    return;
  }
  if (job->stage == Stage::kInLine && job->by_handoff) handoff().Refuse(job->attempt, why);
  Erase(job->attempt);
}

// Output of another worker may have been all that its constraint lets it be.
void DecodeLoop::SettleEndings() {
  for (Job* const job : std::vector(unsettled_)) {
    executor().SettleEnding(&job->sequence);
    const bool settled = job->sequence.ending != engine::Sequence::Ending::kUnknown;
    if (settled || !job->sequence.failure.ok()) {
      std::erase(unsettled_, job);
      EndIfOver(job);
    }
  }
}

// Where a step gave no token.
void DecodeLoop::EndIfOver(Job* job) {
  if (!job->sequence.failure.ok()) {
    Stop(job->attempt, absl::Status(job->sequence.failure));
  } else if (const auto reason = executor().Finished(job->sequence)) {
    Finish(job, *reason);
  }
}

void DecodeLoop::Finish(Job* job, FinishReason reason) {
  const kv_transfer::TransferStats& transfer = job->transfer;
  Answer(job->attempt, worker_link::FinishedEvent{
                           .attempt = job->attempt,
                           .reason = reason,
                           .output_tokens = static_cast<int32_t>(job->sequence.output().size()),
                           .cached_prompt_tokens = job->cached_tokens,
                           .transport = transfer.transport,
                           .kv_blocks_moved = transfer.blocks_moved,
                           .kv_bytes_moved = transfer.bytes_moved,
                           .handoff = transfer.elapsed,
                           .handoff_moving = transfer.moving,
                           .handoff_exposed = transfer.exposed,
                           .handover = job->handover,
                           .queue = job->queue,
                           .steps = job->steps,
                           .preemptions = job->preemptions});
  Leave(job, absl::FailedPreconditionError("the output is complete"));
}

// Drops the job with its blocks: those that are full stay in the prefix cache.
void DecodeLoop::Erase(Attempt attempt) {
  const auto found = jobs_.find(attempt);
  if (found == jobs_.end()) return;
  Job* const job = found->second.get();
  std::erase(awaiting_offer_, job);
  std::erase(unsettled_, job);
  std::erase(running_, job);
  line_.erase(job->ticket);
  jobs_.erase(found);
  book().Remove(attempt);
}

}  // namespace baton::decode_worker
