#include "worker_link/outbox.h"

#include <utility>

#include "worker_link/convert.h"

namespace baton::worker_link {
namespace {

// Events join the last waiting message up to this size: far below kMaxMessageBytes, far above one
// step's tokens.
constexpr size_t kBatchBytes = size_t{1} << 20;

}  // namespace

bool Outbox::PushEvents(const std::vector<Event>& events) {
  v1::WireEvents wire;
  for (const Event& event : events) AppendEvent(event, &wire);
  const size_t bytes = wire.ByteSizeLong();
  if (bytes == 0) return true;
  if (batches_.empty() || batches_.back().bytes + bytes > kBatchBytes) batches_.emplace_back();
  Batch& batch = batches_.back();
  batch.message.mutable_events()->MergeFrom(wire);
  batch.bytes += bytes;
  waiting_bytes_ += bytes;
  return waiting_bytes_ <= kMaxWaitingBytes;
}

bool Outbox::Take(v1::WorkerMessage* message) {
  if (!batches_.empty()) {
    *message = std::move(batches_.front().message);
    waiting_bytes_ -= batches_.front().bytes;
    batches_.pop_front();
    return true;
  }
  if (!status_) return false;
  message->Clear();
  ToWire(*status_, message->mutable_status());
  status_.reset();
  return true;
}

}  // namespace baton::worker_link
