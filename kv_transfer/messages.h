#pragma once

// What two handoff services say to each other, and how it lies on the wire.
//
// Every message is versioned, carries the attempt and the incarnations of both sides, and ends in a
// checksum: Decode refuses whatever is cut, flipped, of another version or out of bounds, and never
// allocates more than the message's own size suggests. Values are plausible afterwards, not true:
// the state machines check them against what they know.

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/block_hash.h"
#include "common/ids.h"

namespace baton::kv_transfer {

inline constexpr int32_t kMaxBlocksPerTransfer = 65'536;
inline constexpr int32_t kMaxSlices = 8;  // of a block
inline constexpr int32_t kMaxPiecesPerTransfer = kMaxBlocksPerTransfer * kMaxSlices;
inline constexpr int32_t kMaxReadyPieces = 4'096;  // in one Ready; the source splits longer ones
inline constexpr uint32_t kMaxPullRuns = 1'024;
inline constexpr int32_t kMaxProbeRuns = 64;
inline constexpr int32_t kMaxProbeBytes = 4 << 20;  // of all runs of a probe
inline constexpr uint32_t kMaxCommitPayloadBytes = 64 << 10;
inline constexpr uint32_t kMaxAddressBytes = 8 << 10;
inline constexpr uint32_t kMaxNameBytes = 256;
inline constexpr uint32_t kMaxWhyBytes = 1'024;  // of a status; longer texts are cut
inline constexpr size_t kMaxMessageBytes = 4 << 20;

// How data goes to who asked for it: over the connection that messages use, or by a lane of its own
// from GPU to GPU (Transport::OpenLane).
enum class DataWay : uint8_t { kWire, kLane };

// A transfer moves pieces: each block of the offer is cut into as many slices of equal size, of
// some consecutive layers each, as the offer says. Slice s of block b is piece b * slices + s, of
// an offer as of a slab, so pieces that follow each other lie together in a slab. Block 0 holds the
// prompt's first tokens, slice 0 the lowest layers.
struct PieceRun {  // pieces [first, first + count) of an offer
  int32_t first = 0;
  int32_t count = 0;
  bool operator==(const PieceRun&) const = default;
};

// Source to target: this is what I will have. Asks for a Grant, or a Release that says why not.
struct OfferMessage {
  int32_t tokens = 0;
  int32_t block_count = 0;
  int32_t slices = 1;     // of a block
  uint32_t lease_ms = 0;  // the source gives up after this long without a sign of life
  std::vector<BlockHash> block_hashes;
  std::string source_name;
  std::string source_address;
  bool operator==(const OfferMessage&) const = default;
};

// Target to source: send blocks [first_block_wanted, block_count).
struct GrantMessage {
  int32_t first_block_wanted = 0;
  uint32_t heartbeat_ms = 0;  // wants a sign of life this often
  bool operator==(const GrantMessage&) const = default;
};

// Source to target: these pieces are complete, here they lie, and these are their checksums.
struct ReadyPiece {
  int32_t index = 0;         // of the offer
  int32_t source_piece = 0;  // of the source's slab
  uint64_t checksum = 0;
  bool operator==(const ReadyPiece&) const = default;
};
struct ReadyMessage {
  std::vector<ReadyPiece> pieces;
  bool last = false;           // with the commit: nothing follows
  std::string commit_payload;  // only with `last`
  bool operator==(const ReadyMessage&) const = default;
};

// Target to source, where the slab is not mapped: send these runs as data, by this way.
struct PullMessage {
  std::vector<PieceRun> runs;
  DataWay way = DataWay::kWire;
  bool operator==(const PullMessage&) const = default;
};

// Signs of life. The source says how far it has got, so that a lost Ready shows as a gap.
struct SourceHeartbeat {
  int32_t pieces_announced = 0;
  bool committed = false;
  bool operator==(const SourceHeartbeat&) const = default;
};
struct TargetHeartbeat {
  bool operator==(const TargetHeartbeat&) const = default;
};

// Target to source, once: it does not read the source's blocks any more. Ok: it has everything.
struct ReleaseMessage {
  absl::Status status;
  bool operator==(const ReleaseMessage&) const = default;
};

// Source to target: give up. Answered with a Release, even when the attempt is not known.
struct CancelMessage {
  absl::Status why;
  bool operator==(const CancelMessage&) const = default;
};

// Target to source, of no transfer: send so many runs of so many bytes, of whatever, as data of
// this attempt's; it is timed. The attempt is a number of the target's own, with epoch 0.
struct ProbeMessage {
  int32_t runs = 0;
  int32_t run_bytes = 0;
  DataWay way = DataWay::kWire;
  bool operator==(const ProbeMessage&) const = default;
};

using MessageBody =
    std::variant<OfferMessage, GrantMessage, ReadyMessage, PullMessage, SourceHeartbeat,
                 TargetHeartbeat, ReleaseMessage, CancelMessage, ProbeMessage>;

struct Message {
  uint64_t sender = 0;  // incarnations
  uint64_t receiver = 0;
  Attempt attempt;
  MessageBody body;
  bool operator==(const Message&) const = default;
};

std::string Encode(const Message& message);
absl::StatusOr<Message> Decode(std::span<const std::byte> bytes);

// Goes before the bytes of one run that was pulled.
struct DataHeader {
  uint64_t sender = 0;
  uint64_t receiver = 0;
  Attempt attempt;
  PieceRun run;
  bool operator==(const DataHeader&) const = default;
};

std::string EncodeDataHeader(const DataHeader& header);
absl::StatusOr<DataHeader> DecodeDataHeader(std::span<const std::byte> bytes);

}  // namespace baton::kv_transfer
