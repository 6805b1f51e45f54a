#pragma once

// The two ends of a lane, over a GpuLane each: what is cut into pieces here comes together there.
// They keep the lane's rules (nccl_transport.h) and its deadlines; whoever holds them carries the
// messages, and aborts the lane when an end reports an error. Not thread-safe; nothing blocks.

#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock.h"
#include "kv_transfer/gpu_lane.h"
#include "kv_transfer/lane_messages.h"
#include "kv_transfer/nccl_transport.h"
#include "kv_transfer/transport.h"

namespace baton::kv_transfer {

// When something that should move must have moved, at the latest.
class LaneDeadline {
 public:
  LaneDeadline(const LaneTimes& times, TimePoint now) : times_(times), last_moved_(now) {}
  // DeadlineExceeded when `waiting` for longer than allowed since something `moved`.
  absl::Status Check(bool waiting, bool moved, TimePoint now);
  void Opened() { opened_ = true; }

 private:
  const LaneTimes times_;
  TimePoint last_moved_;
  bool opened_ = false;
};

class LaneSender {
 public:
  LaneSender(std::unique_ptr<GpuLane> lane, const LaneTimes& times, TimePoint now);

  // To be sent behind what was given before; `payload` is read until its tag is sent.
  void Add(std::string header, std::span<const std::byte> payload, uint64_t tag);
  absl::Status OnTaken(const LaneTaken& taken);

  struct Out {
    std::vector<LanePiece> announce;
    std::vector<uint64_t> sent;  // tags
  };
  // What came of it is added to `out`. True when something moved. After an error: Abandon.
  absl::StatusOr<bool> Step(TimePoint now, Out& out);
  bool idle() const {
    return opened() && waiting_.empty() && last_pieces_.empty() && started_ == taken_;
  }
  bool opened() const { return taken_ > 0; }

  // Gives up: of what was added, nothing of `unread` was begun, and `reading` is read until the
  // lane is destroyed.
  struct Remains {
    std::unique_ptr<GpuLane> lane;
    std::vector<uint64_t> unread, reading;
  };
  Remains Abandon() &&;

 private:
  struct Outgoing {
    std::string header;
    std::span<const std::byte> payload;
    uint64_t tag = 0;
    size_t begun = 0;  // bytes
  };
  // Of as many payloads as have room in it: small ones would cost NCCL as much as large ones.
  void StartPiece();

  std::unique_ptr<GpuLane> lane_;
  LaneDeadline deadline_;
  GpuLane::Progress progress_;
  std::deque<Outgoing> waiting_;
  std::deque<LanePiece> unannounced_;                      // started
  std::deque<std::pair<uint64_t, uint64_t>> last_pieces_;  // of payloads, with their tags
  uint64_t started_ = 0, announced_ = 0, taken_ = 0;
  uint64_t steps_ = 0;  // of pieces, as of the last Step
};

class LaneReceiver {
 public:
  LaneReceiver(std::unique_ptr<GpuLane> lane, const LaneTimes& times, TimePoint now)
      : lane_(std::move(lane)), deadline_(times, now) {}

  // InvalidArgument when the piece is not the one that can come next.
  absl::Status OnPiece(const LanePiece& piece);
  // Hands on what has come, and adds up in taken(). True when something moved.
  absl::StatusOr<bool> Step(TimePoint now, TransportEvents& events);
  uint64_t taken() const { return taken_; }
  bool idle() const { return opened() && pieces_.empty(); }
  bool opened() const { return taken_ > 0; }

  std::unique_ptr<GpuLane> Abandon() && { return std::move(lane_); }

 private:
  void HandOn(const LanePart& part, std::span<const std::byte> bytes, TransportEvents& events);

  std::unique_ptr<GpuLane> lane_;
  LaneDeadline deadline_;
  GpuLane::Progress progress_;
  std::deque<LanePiece> pieces_;  // announced, not here
  uint64_t announced_ = 0, taken_ = 0;
  uint64_t steps_ = 0;         // of pieces, as of the last Step
  uint64_t payload_left_ = 0;  // of the payload that is being announced
  // The payload that is coming, where it takes several parts.
  std::string header_;
  bool wanted_ = false;
  std::vector<std::byte> payload_;
};

}  // namespace baton::kv_transfer
