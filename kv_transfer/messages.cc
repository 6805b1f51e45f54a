#include "kv_transfer/messages.h"

#include <fmt/format.h>

#include <cstring>

#include "kv_transfer/byte_codec.h"

namespace baton::kv_transfer {
namespace {

constexpr uint32_t kMessageMagic = 0x564B5442;  // "BTKV"
constexpr uint8_t kMessageVersion = 3;
constexpr uint8_t kDataType = 0xDA;  // a DataHeader; messages have their place in MessageBody
constexpr size_t kReadyPieceBytes = 2 * sizeof(int32_t) + sizeof(uint64_t);
constexpr size_t kRunBytes = 2 * sizeof(int32_t);

void PutStatus(ByteWriter& out, const absl::Status& status) {
  out.Put(static_cast<uint8_t>(status.code()));
  const absl::string_view text = status.message();
  out.PutText({text.data(), std::min<size_t>(text.size(), kMaxWhyBytes)});
}

absl::Status GetStatus(ByteReader& in) {
  const auto code = in.Get<uint8_t>();
  const std::string text = in.GetText(kMaxWhyBytes);
  if (code == 0 && !text.empty()) in.Fail();  // "all is well, because ..."
  constexpr auto kLast = static_cast<uint8_t>(absl::StatusCode::kUnauthenticated);
  return absl::Status(code <= kLast ? absl::StatusCode{code} : absl::StatusCode::kUnknown, text);
}

bool GetFlag(ByteReader& in) { return in.Get<uint8_t>() != 0; }

void Put(ByteWriter& out, DataWay way) { out.Put(static_cast<uint8_t>(way)); }
void Get(ByteReader& in, DataWay& way) {
  const auto value = in.Get<uint8_t>();
  if (value > static_cast<uint8_t>(DataWay::kLane)) in.Fail();
  way = in.ok() ? DataWay{value} : DataWay::kWire;
}

void Put(ByteWriter& out, const OfferMessage& offer) {
  out.Put(offer.tokens);
  out.Put(offer.block_count);
  out.Put(offer.slices);
  out.Put(offer.lease_ms);
  out.Put(static_cast<uint32_t>(offer.block_hashes.size()));
  for (const BlockHash& hash : offer.block_hashes) {
    out.PutRaw({reinterpret_cast<const char*>(hash.data()), hash.size()});
  }
  out.PutText(offer.source_name);
  out.PutText(offer.source_address);
}
void Get(ByteReader& in, OfferMessage& offer) {
  offer.tokens = in.GetInRange(1, INT32_MAX);
  offer.block_count = in.GetInRange(1, kMaxBlocksPerTransfer);
  offer.slices = in.GetInRange(1, kMaxSlices);
  offer.lease_ms = in.Get<uint32_t>();
  offer.block_hashes.resize(
      in.GetCount(static_cast<uint32_t>(offer.block_count), sizeof(BlockHash)));
  for (BlockHash& hash : offer.block_hashes) {
    std::memcpy(hash.data(), in.GetRaw(hash.size()).data(), hash.size());
  }
  offer.source_name = in.GetText(kMaxNameBytes);
  offer.source_address = in.GetText(kMaxAddressBytes);
}

void Put(ByteWriter& out, const GrantMessage& grant) {
  out.Put(grant.first_block_wanted);
  out.Put(grant.heartbeat_ms);
}
void Get(ByteReader& in, GrantMessage& grant) {
  grant.first_block_wanted = in.GetInRange(0, kMaxBlocksPerTransfer);
  grant.heartbeat_ms = in.Get<uint32_t>();
}

void Put(ByteWriter& out, const ReadyMessage& ready) {
  out.Put(static_cast<uint32_t>(ready.pieces.size()));
  for (const ReadyPiece& piece : ready.pieces) {
    out.Put(piece.index);
    out.Put(piece.source_piece);
    out.Put(piece.checksum);
  }
  out.Put(static_cast<uint8_t>(ready.last));
  out.PutText(ready.commit_payload);
}
void Get(ByteReader& in, ReadyMessage& ready) {
  ready.pieces.resize(in.GetCount(kMaxReadyPieces, kReadyPieceBytes));
  for (ReadyPiece& piece : ready.pieces) {
    piece.index = in.GetInRange(0, kMaxPiecesPerTransfer - 1);
    piece.source_piece = in.GetInRange(0, INT32_MAX);
    piece.checksum = in.Get<uint64_t>();
  }
  ready.last = GetFlag(in);
  ready.commit_payload = in.GetText(kMaxCommitPayloadBytes);
}

void Put(ByteWriter& out, const PieceRun& run) {
  out.Put(run.first);
  out.Put(run.count);
}
void Get(ByteReader& in, PieceRun& run) {
  run.first = in.GetInRange(0, kMaxPiecesPerTransfer);
  run.count = in.GetInRange(1, kMaxPiecesPerTransfer);
}

void Put(ByteWriter& out, const PullMessage& pull) {
  out.Put(static_cast<uint32_t>(pull.runs.size()));
  for (const PieceRun& run : pull.runs) Put(out, run);
  Put(out, pull.way);
}
void Get(ByteReader& in, PullMessage& pull) {
  pull.runs.resize(in.GetCount(kMaxPullRuns, kRunBytes));
  for (PieceRun& run : pull.runs) Get(in, run);
  Get(in, pull.way);
}

void Put(ByteWriter& out, const SourceHeartbeat& heartbeat) {
  out.Put(heartbeat.pieces_announced);
  out.Put(static_cast<uint8_t>(heartbeat.committed));
}
void Get(ByteReader& in, SourceHeartbeat& heartbeat) {
  heartbeat.pieces_announced = in.GetInRange(0, kMaxPiecesPerTransfer);
  heartbeat.committed = GetFlag(in);
}

void Put(ByteWriter&, const TargetHeartbeat&) {}
void Get(ByteReader&, TargetHeartbeat&) {}

void Put(ByteWriter& out, const ReleaseMessage& release) { PutStatus(out, release.status); }
void Get(ByteReader& in, ReleaseMessage& release) { release.status = GetStatus(in); }

void Put(ByteWriter& out, const CancelMessage& cancel) { PutStatus(out, cancel.why); }
void Get(ByteReader& in, CancelMessage& cancel) { cancel.why = GetStatus(in); }

void Put(ByteWriter& out, const ProbeMessage& probe) {
  out.Put(probe.runs);
  out.Put(probe.run_bytes);
  Put(out, probe.way);
}
void Get(ByteReader& in, ProbeMessage& probe) {
  probe.runs = in.GetInRange(1, kMaxProbeRuns);
  probe.run_bytes = in.GetInRange(1, kMaxProbeBytes / probe.runs);
  Get(in, probe.way);
}

void PutEnvelope(ByteWriter& out, uint8_t type, uint64_t sender, uint64_t receiver,
                 const Attempt& attempt) {
  out.Put(kMessageMagic);
  out.Put(kMessageVersion);
  out.Put(type);
  out.Put(sender);
  out.Put(receiver);
  out.Put(attempt.request.high);
  out.Put(attempt.request.low);
  out.Put(attempt.epoch);
}

// What the envelope says, into `message` (a Message or a DataHeader); gives the type.
template <typename T>
absl::StatusOr<uint8_t> GetEnvelope(ByteReader& in, T& message) {
  const auto magic = in.Get<uint32_t>();
  const auto version = in.Get<uint8_t>();
  if (!in.ok() || magic != kMessageMagic) {
    return absl::InvalidArgumentError("not a handoff message, or damaged on its way");
  }
  if (version != kMessageVersion) {
    return absl::InvalidArgumentError(fmt::format(
        "handoff message of version {}, this side speaks {}", version, kMessageVersion));
  }
  const auto type = in.Get<uint8_t>();
  message.sender = in.Get<uint64_t>();
  message.receiver = in.Get<uint64_t>();
  message.attempt.request.high = in.Get<uint64_t>();
  message.attempt.request.low = in.Get<uint64_t>();
  message.attempt.epoch = in.Get<uint32_t>();
  return type;
}

// Reads the alternative of MessageBody that `type` is the index of.
template <size_t kIndex = 0>
bool GetBody(ByteReader& in, uint8_t type, MessageBody& body) {
  if constexpr (kIndex < std::variant_size_v<MessageBody>) {
    if (type != kIndex) return GetBody<kIndex + 1>(in, type, body);
    Get(in, body.emplace<kIndex>());
    return true;
  }
  return false;
}

}  // namespace

std::string Encode(const Message& message) {
  ByteWriter out;
  PutEnvelope(out, static_cast<uint8_t>(message.body.index()), message.sender, message.receiver,
              message.attempt);
  std::visit([&out](const auto& body) { Put(out, body); }, message.body);
  return std::move(out).Seal();
}

absl::StatusOr<Message> Decode(std::span<const std::byte> bytes) {
  if (bytes.size() > kMaxMessageBytes) {
    return absl::InvalidArgumentError(fmt::format(
        "handoff message of {} bytes, at most {} are taken", bytes.size(), kMaxMessageBytes));
  }
  ByteReader in(Unseal(bytes));
  Message message;
  const absl::StatusOr<uint8_t> type = GetEnvelope(in, message);
  if (!type.ok()) return type.status();
  if (!GetBody(in, *type, message.body)) {
    return absl::InvalidArgumentError(fmt::format("handoff message of unknown type {}", *type));
  }
  if (!in.complete()) {
    return absl::InvalidArgumentError(fmt::format(
        "handoff message of type {} with {} bytes does not fit its own counts and bounds", *type,
        bytes.size()));
  }
  return message;
}

std::string EncodeDataHeader(const DataHeader& header) {
  ByteWriter out;
  PutEnvelope(out, kDataType, header.sender, header.receiver, header.attempt);
  Put(out, header.run);
  return std::move(out).Seal();
}

absl::StatusOr<DataHeader> DecodeDataHeader(std::span<const std::byte> bytes) {
  ByteReader in(Unseal(bytes));
  DataHeader header;
  const absl::StatusOr<uint8_t> type = GetEnvelope(in, header);
  if (!type.ok()) return type.status();
  Get(in, header.run);
  if (*type != kDataType || !in.complete()) {
    return absl::InvalidArgumentError(
        fmt::format("data header of type {} with {} bytes is malformed", *type, bytes.size()));
  }
  return header;
}

}  // namespace baton::kv_transfer
