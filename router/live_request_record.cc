// The part of LiveRequest that tells how far it has come.

#include <utility>

#include "router/http_error.h"
#include "router/key_gate.h"
#include "router/live_request.h"

namespace baton::router {

void LiveRequest::NoteEndLocked(absl::Status status, std::string_view finish_reason) {
  ended_ = context_.clock->Now();
  ending_ = std::move(status);
  finish_reason_ = finish_reason;
}

RequestRecord LiveRequest::Record(TimePoint now) const {
  const std::lock_guard lock(mutex_);
  return RecordLocked(now);
}

RequestRecord LiveRequest::RecordLocked(TimePoint now) const {
  const FlowRequest& request = flow_.request();
  const FlowTimes& times = flow_.times();
  RequestStats stats = flow_.Stats(now);
  RequestRecord record;
  record.call = request.call;
  record.id = std::move(stats.request_id);
  record.choice = request.choice;
  if (request.visit != nullptr) {
    record.key = request.visit->key().name;
    record.tenant = request.visit->key().tenant;
  }
  record.model = context_.model_name;
  if (flow_.ended()) {
    record.status = ending_;
    record.http_status = ending_.ok()                 ? 200
                         : absl::IsCancelled(ending_) ? RequestRecord::kClientGone
                                                      : ToHttpError(ending_).status;
    record.finish_reason = finish_reason_;
  } else if (!started_) {
    record.state = "queued";
  } else if (flow_.waiting()) {
    record.state = "waiting";
  } else {
    record.state = flow_.tokens_delivered() == 0 ? "prefill" : "decode";
  }
  record.input_tokens = request.prompt_tokens;
  record.cached_tokens =
      times.prefill ? times.prefill->cached_prompt_tokens : stats.cached_prompt_tokens;
  record.output_tokens = flow_.tokens_delivered();
  record.max_tokens = request.sampling.max_tokens;
  record.prefill_worker = std::move(stats.prefill_worker);
  record.decode_worker = std::move(stats.decode_worker);
  record.transport = std::move(stats.transport);
  record.kv_bytes = stats.kv_bytes_moved;
  record.migrations = stats.migrations;
  record.itl_s = stats.mean_itl_s;
  record.moves = moves_;
  if (times.prefill) record.prefill_chunks = times.prefill->chunks;
  if (times.finished) {
    record.decode_steps = times.finished->steps;
    record.preemptions = times.finished->preemptions;
  }
  record.stages = StagesOf(times, request.arrival, request.tokenized, placed_,
                           record.prefill_worker != record.decode_worker);
  record.stages.Set(Stage::kEnded, now - request.arrival);
  return record;
}

}  // namespace baton::router
