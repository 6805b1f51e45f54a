#include "kv_transfer/lane_ends.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "common/status_macros.h"
#include "kv_transfer/byte_codec.h"

namespace baton::kv_transfer {

absl::Status LaneDeadline::Check(bool waiting, bool moved, TimePoint now) {
  // Connecting shows no progress that could be told from none: the whole of it has one bound.
  if (opened_ && (moved || !waiting)) last_moved_ = now;
  const Duration limit = opened_ ? times_.data_timeout : times_.open_timeout;
  if (now - last_moved_ < limit) return absl::OkStatus();
  return absl::DeadlineExceededError(
      opened_ ? fmt::format("nothing moved for {:.1f} s, though something was under way",
                            Seconds(limit))
              : fmt::format("it did not open within {:.1f} s", Seconds(limit)));
}

// ---- source ----

LaneSender::LaneSender(std::unique_ptr<GpuLane> lane, const LaneTimes& times, TimePoint now)
    : lane_(std::move(lane)), deadline_(times, now) {
  static const std::vector<std::byte> zeros(GpuLane::kSlotBytes);
  lane_->Send({zeros});
  unannounced_.push_back(
      {.number = started_++,
       .parts = {
           {.bytes = GpuLane::kSlotBytes, .offset = 0, .payload_bytes = GpuLane::kSlotBytes}}});
}

void LaneSender::Add(std::string header, std::span<const std::byte> payload, uint64_t tag) {
  waiting_.push_back({.header = std::move(header), .payload = payload, .tag = tag});
}

absl::Status LaneSender::OnTaken(const LaneTaken& taken) {
  if (taken.count < taken_ || taken.count > announced_) {
    return absl::InvalidArgumentError(
        fmt::format("the target has taken {} pieces, {} before, of {} that were announced",
                    taken.count, taken_, announced_));
  }
  taken_ = taken.count;
  return absl::OkStatus();
}

void LaneSender::StartPiece() {
  LanePiece piece{.number = started_++, .parts = {}};
  std::vector<std::span<const std::byte>> parts;
  size_t room = GpuLane::kSlotBytes;
  while (!waiting_.empty() && parts.size() < kMaxLaneParts) {
    Outgoing& next = waiting_.front();
    const size_t left = next.payload.size() - next.begun;
    // What has room in a piece is not cut: it can be handed on from where it lies.
    if (room == 0 || (left > room && left <= GpuLane::kSlotBytes)) break;
    const size_t bytes = std::min(left, room);
    parts.push_back(next.payload.subspan(next.begun, bytes));
    piece.parts.push_back({.bytes = static_cast<uint32_t>(bytes),
                           .offset = next.begun,
                           .payload_bytes = next.payload.size(),
                           .header = next.begun == 0 ? std::move(next.header) : ""});
    room -= bytes;
    next.begun += bytes;
    if (next.begun < next.payload.size()) continue;
    last_pieces_.emplace_back(piece.number, next.tag);
    waiting_.pop_front();
  }
  lane_->Send(std::move(parts));
  unannounced_.push_back(std::move(piece));
}

absl::StatusOr<bool> LaneSender::Step(TimePoint now, Out& out) {
  // A slot is free again when it is read no more here, and out of the same slot there.
  const auto slot_is_free = [this] {
    return started_ < std::min(progress_.done, taken_) + GpuLane::kSlots;
  };
  while (opened() && slot_is_free() && !waiting_.empty()) StartPiece();
  BATON_ASSIGN_OR_RETURN(progress_, lane_->Poll());
  for (; announced_ < progress_.posted; ++announced_) {
    out.announce.push_back(std::move(unannounced_.front()));
    unannounced_.pop_front();
  }
  while (!last_pieces_.empty() && last_pieces_.front().first < progress_.done) {
    out.sent.push_back(last_pieces_.front().second);
    last_pieces_.pop_front();
  }
  const uint64_t steps = started_ + announced_ + progress_.done + taken_;
  const bool moved = steps != std::exchange(steps_, steps);
  if (opened()) deadline_.Opened();
  BATON_RETURN_IF_ERROR(deadline_.Check(!idle(), moved, now));
  return moved;
}

LaneSender::Remains LaneSender::Abandon() && {
  Remains remains{.lane = std::move(lane_), .unread = {}, .reading = {}};
  for (const auto& [piece, tag] : last_pieces_) remains.reading.push_back(tag);
  for (const Outgoing& outgoing : waiting_) {
    (outgoing.begun > 0 ? remains.reading : remains.unread).push_back(outgoing.tag);
  }
  return remains;
}

// ---- target ----

absl::Status LaneReceiver::OnPiece(const LanePiece& piece) {
  bool follows = piece.number == announced_ && announced_ < taken_ + GpuLane::kSlots;
  uint64_t left = payload_left_;
  for (const LanePart& part : piece.parts) {
    const uint64_t from_here = part.payload_bytes - part.offset;
    follows = follows && (part.offset == 0 ? left == 0 : left == from_here);
    left = from_here - part.bytes;
  }
  if (!follows) {
    return absl::InvalidArgumentError(fmt::format(
        "piece {} of {} bytes, the first at {} of a payload, was announced when {} were, of which "
        "{} are taken, and {} bytes of a payload were missing",
        piece.number, piece.bytes(), piece.parts.front().offset, announced_, taken_,
        payload_left_));
  }
  payload_left_ = left;
  ++announced_;
  lane_->Receive(piece.bytes());
  pieces_.push_back(piece);
  return absl::OkStatus();
}

absl::StatusOr<bool> LaneReceiver::Step(TimePoint now, TransportEvents& events) {
  BATON_ASSIGN_OR_RETURN(progress_, lane_->Poll());
  const uint64_t before = taken_;
  while (!pieces_.empty() && taken_ < progress_.done) {
    const LanePiece piece = std::move(pieces_.front());
    pieces_.pop_front();
    std::span<const std::byte> bytes = lane_->Received(piece.number);
    for (const LanePart& part : piece.parts) {
      if (piece.number > 0) HandOn(part, bytes.first(part.bytes), events);
      bytes = bytes.subspan(part.bytes);
    }
    ++taken_;
  }
  if (opened()) deadline_.Opened();
  // An idle lane is not stepped: what was announced since is movement, too.
  const uint64_t steps = announced_ + taken_;
  const bool moved = steps != std::exchange(steps_, steps);
  BATON_RETURN_IF_ERROR(deadline_.Check(!idle(), moved, now));
  return taken_ != before;
}

void LaneReceiver::HandOn(const LanePart& part, std::span<const std::byte> bytes,
                          TransportEvents& events) {
  if (part.offset == 0) {
    header_ = part.header;
    wanted_ = events.WantsData(AsBytes(header_), part.payload_bytes);
    if (wanted_ && part.bytes == part.payload_bytes) {
      return events.OnData(AsBytes(header_), bytes);
    }
    payload_.resize(wanted_ ? part.payload_bytes : 0);
  }
  if (!wanted_) return;
  std::memcpy(payload_.data() + part.offset, bytes.data(), bytes.size());
  if (part.offset + part.bytes == part.payload_bytes) {
    events.OnData(AsBytes(header_), payload_);
  }
}

}  // namespace baton::kv_transfer
