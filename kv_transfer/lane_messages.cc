#include "kv_transfer/lane_messages.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>

#include "kv_transfer/byte_codec.h"
#include "kv_transfer/gpu_lane.h"
#include "kv_transfer/messages.h"

namespace baton::kv_transfer {
namespace {

constexpr uint32_t kLaneMagic = 0x4C4B5442;  // "BTKL"
constexpr uint8_t kLaneVersion = 1;

void Put(ByteWriter& out, const LaneOpen& open) { out.PutText(open.id); }
void Get(ByteReader& in, LaneOpen& open) { open.id = in.GetText(kMaxLaneIdBytes); }

constexpr size_t kPartBytes = 2 * sizeof(uint32_t) + 2 * sizeof(uint64_t);

void Put(ByteWriter& out, const LanePiece& piece) {
  out.Put(piece.number);
  out.Put(static_cast<uint32_t>(piece.parts.size()));
  for (const LanePart& part : piece.parts) {
    out.Put(part.bytes);
    out.Put(part.offset);
    out.Put(part.payload_bytes);
    out.PutText(part.header);
  }
}
void Get(ByteReader& in, LanePiece& piece) {
  piece.number = in.Get<uint64_t>();
  piece.parts.resize(in.GetCount(kMaxLaneParts, kPartBytes));
  for (LanePart& part : piece.parts) {
    part.bytes = in.Get<uint32_t>();
    part.offset = in.Get<uint64_t>();
    part.payload_bytes = in.Get<uint64_t>();
    part.header = in.GetText(kMaxDataHeaderBytes);
    const bool whole = part.payload_bytes <= kMaxLanePayloadBytes &&
                       part.offset <= part.payload_bytes &&
                       part.bytes <= part.payload_bytes - part.offset;
    if (part.bytes < 1 || !whole) in.Fail();
  }
  if (piece.parts.empty() || piece.bytes() > GpuLane::kSlotBytes) in.Fail();
}

void Put(ByteWriter& out, const LaneTaken& taken) { out.Put(taken.count); }
void Get(ByteReader& in, LaneTaken& taken) { taken.count = in.Get<uint64_t>(); }

void Put(ByteWriter& out, const LaneDown& down) {
  out.PutText(std::string_view(down.why).substr(0, kMaxWhyBytes));
}
void Get(ByteReader& in, LaneDown& down) { down.why = in.GetText(kMaxWhyBytes); }

}  // namespace

size_t LanePiece::bytes() const {
  size_t bytes = 0;
  for (const LanePart& part : parts) bytes += part.bytes;
  return bytes;
}

std::string Encode(const LaneMessage& message) {
  ByteWriter out;
  out.Put(kLaneMagic);
  out.Put(kLaneVersion);
  out.Put(static_cast<uint8_t>(message.body.index()));
  out.Put(message.sender);
  out.Put(message.receiver);
  out.Put(message.lane);
  std::visit([&out](const auto& body) { Put(out, body); }, message.body);
  return std::move(out).Seal();
}

bool IsLaneMessage(std::span<const std::byte> bytes) {
  uint32_t magic = 0;
  if (bytes.size() < sizeof magic) return false;
  std::memcpy(&magic, bytes.data(), sizeof magic);
  return magic == kLaneMagic;
}

absl::StatusOr<LaneMessage> DecodeLaneMessage(std::span<const std::byte> bytes) {
  ByteReader in(Unseal(bytes));
  const auto magic = in.Get<uint32_t>();
  const auto version = in.Get<uint8_t>();
  const auto type = in.Get<uint8_t>();
  LaneMessage message;
  message.sender = in.Get<uint64_t>();
  message.receiver = in.Get<uint64_t>();
  message.lane = in.Get<uint64_t>();
  switch (type) {
    case 0:
      Get(in, message.body.emplace<LaneOpen>());
      break;
    case 1:
      Get(in, message.body.emplace<LanePiece>());
      break;
    case 2:
      Get(in, message.body.emplace<LaneTaken>());
      break;
    case 3:
      Get(in, message.body.emplace<LaneDown>());
      break;
    default:
      in.Fail();
  }
  if (!in.complete() || magic != kLaneMagic || version != kLaneVersion) {
    return absl::InvalidArgumentError(fmt::format(
        "{} bytes are no sound message about a lane, of version {}", bytes.size(), kLaneVersion));
  }
  return message;
}

}  // namespace baton::kv_transfer
