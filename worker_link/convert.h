#pragma once

// Plain data to and from its wire form. What comes from the wire is checked: lengths, enums,
// ranges. InvalidArgument names the field with its value and limit; the stream that carried it is
// closed, since both ends come from the same release and only a broken peer sends such a message.
//
// Whether a request fits a worker's model (vocabulary, context) is for the worker to say.

#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "baton/v1/worker.pb.h"
#include "common/block_journal.h"
#include "worker_link/commands.h"

namespace baton::worker_link {

inline constexpr int kMaxPromptTokens = 1 << 22;
inline constexpr size_t kMaxNameBytes = 256;
inline constexpr size_t kTraceparentBytes = 55;
inline constexpr size_t kMaxSaltBytes = 1024;
inline constexpr size_t kMaxAddressBytes = 8192;  // a handoff address (kv_transfer/handoff.h)
inline constexpr size_t kMaxErrorBytes = 4096;    // longer error texts are cut
inline constexpr int kMaxTopLogprobs = 20;        // as in SamplingParams

// Shared by both directions.
void ToWire(const Attempt& attempt, v1::WireAttempt* wire);
Attempt FromWire(const v1::WireAttempt& wire);
// InvalidArgument("prompt has 9 bytes, at most 8 are taken").
absl::Status CheckLength(const char* field, size_t size, size_t limit, const char* unit);
// InvalidArgument("transfers is -1, but must not be negative").
absl::Status CheckCount(const char* field, int64_t value);
absl::StatusOr<Role> RoleFromName(const std::string& name);

void ToWire(const Command& command, v1::RouterMessage* wire);
absl::StatusOr<Command> CommandFromWire(const v1::RouterMessage& wire);

void ToWire(const WorkerInfo& info, v1::WorkerHello* wire);
absl::StatusOr<WorkerInfo> FromWire(const v1::WorkerHello& wire);

void ToWire(const WorkerStatus& status, v1::WireStatus* wire);
absl::StatusOr<WorkerStatus> FromWire(const v1::WireStatus& wire);

void ToWire(const BlockNews& news, v1::WireBlocks* wire);
absl::StatusOr<BlockNews> FromWire(const v1::WireBlocks& wire);

// Appends. Tokens of one TokensEvent have consecutive positions.
void AppendEvent(const Event& event, v1::WireEvents* wire);
// Tokens first, then endings: for one attempt, the order in which they were appended.
absl::StatusOr<std::vector<Event>> FromWire(const v1::WireEvents& wire);

}  // namespace baton::worker_link
