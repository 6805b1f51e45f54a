#pragma once

// What the two transports at the ends of a lane (nccl_transport.h) say to each other, beside the
// messages of handoffs and in order with them. Checked like those: messages.h.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"

namespace baton::kv_transfer {

inline constexpr size_t kMaxLanePayloadBytes = 64 << 20;
inline constexpr uint32_t kMaxDataHeaderBytes = 1'024;
inline constexpr uint32_t kMaxLaneParts = 64;  // of a piece

// Target to source: open your end, which sends.
struct LaneOpen {
  std::string id;  // Gpu::NewLaneId
  bool operator==(const LaneOpen&) const = default;
};
// Source to target: the next piece is on its way, receive it. Its parts lie one behind the other,
// each bytes [offset, offset + bytes) of a payload. The first piece of a lane opens it, and is of
// no payload.
struct LanePart {
  uint32_t bytes = 0;
  uint64_t offset = 0;
  uint64_t payload_bytes = 0;
  std::string header;  // of the payload, with its first part
  bool operator==(const LanePart&) const = default;
};
struct LanePiece {
  uint64_t number = 0;          // from 0
  std::vector<LanePart> parts;  // at least one, at most GpuLane::kSlotBytes in all
  size_t bytes() const;
  bool operator==(const LanePiece&) const = default;
};
// Target to source: this many pieces are out of staging memory.
struct LaneTaken {
  uint64_t count = 0;
  bool operator==(const LaneTaken&) const = default;
};
// Either way: the lane is over.
struct LaneDown {
  std::string why;
  bool operator==(const LaneDown&) const = default;
};

struct LaneMessage {
  uint64_t sender = 0;  // incarnations
  uint64_t receiver = 0;
  uint64_t lane = 0;  // the target's number for it
  std::variant<LaneOpen, LanePiece, LaneTaken, LaneDown> body;
  bool operator==(const LaneMessage&) const = default;
};

std::string Encode(const LaneMessage& message);
// Whether this is a message for a transport with lanes, not for a handoff; maybe a damaged one.
bool IsLaneMessage(std::span<const std::byte> bytes);
absl::StatusOr<LaneMessage> DecodeLaneMessage(std::span<const std::byte> bytes);

}  // namespace baton::kv_transfer
