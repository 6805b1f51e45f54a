#pragma once

// What is told of a request to operators: by the access log, traces and /debug/requests. Nothing of
// a prompt or an answer is in it.

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "common/clock.h"
#include "router/flow.h"
#include "router/trace_context.h"

namespace baton::router {

// A call as its front end took it: what the requests of all its choices share.
struct CallInfo {
  std::string request_id;
  std::string client;      // address, without a port
  std::string endpoint;    // path, or gRPC method
  TimePoint received;      // all of it was there
  int64_t arrival_us = 0;  // the same by the wall clock, since 1970
  CallTrace trace;
};

// The id that a client gave, if it is 1 to 128 of the characters that ids are made of; else "".
std::string_view SoundRequestId(std::string_view given);

enum class Stage {
  kTokenized,
  kPlaced,  // the first time
  kPrefillStarted,
  kHandoffOffered,
  kHandoffGranted,
  kFirstChunk,
  kPrefillFinished,
  kFirstToken,
  kHandoffFinished,
  kDecodeStarted,
  kLastToken,
  kEnded,
};
inline constexpr size_t kStages = 12;
std::string_view StageName(Stage stage);

// Times since the arrival. What workers measured is put behind the time at which they were told, by
// the router's clock: too early by the time that telling them took.
class Stages {
 public:
  static constexpr Duration kNever = Duration::min();

  Stages() { times_.fill(kNever); }
  bool Has(Stage stage) const { return At(stage) != kNever; }
  Duration At(Stage stage) const { return times_[static_cast<size_t>(stage)]; }
  void Set(Stage stage, Duration at) { times_[static_cast<size_t>(stage)] = at; }

 private:
  std::array<Duration, kStages> times_;
};

struct RequestRecord {
  struct Move {
    Duration at{};  // since the arrival
    MoveReason reason = MoveReason::kLost;
    int32_t output_tokens = 0;  // delivered by then
    std::string why;
  };
  static constexpr size_t kMaxMoves = 16;
  static constexpr int kClientGone = 499;  // as nginx has it

  std::shared_ptr<const CallInfo> call;  // never null
  std::string id;                        // "": refused before it was a request
  int32_t choice = 0;
  std::string key, tenant, model;
  int http_status = 200;
  absl::Status status;
  std::string_view state;          // of one that lives: "queued", "waiting", "prefill", "decode"
  std::string_view finish_reason;  // "": none
  int32_t input_tokens = 0;
  int32_t cached_tokens = 0;
  int32_t output_tokens = 0;
  int32_t max_tokens = 0;
  std::string prefill_worker, decode_worker, transport;
  int64_t kv_bytes = 0;
  int32_t migrations = 0;
  int32_t prefill_chunks = 0;
  int32_t decode_steps = 0;
  int32_t preemptions = 0;
  double itl_s = 0;
  std::vector<Move> moves;
  Stages stages;
};

// A call that was refused, or needed no worker: `http_status` says which.
RequestRecord RecordOfCall(std::shared_ptr<const CallInfo> call, int http_status,
                           absl::Status status, Duration took);

// Of what a flow knows. `placed` is the attempt's that gave the first token (for the prompt), and
// the last one's (for the handoff).
struct Placements {
  TimePoint first, of_first_token, last;  // TimePoint{}: not yet
};
Stages StagesOf(const FlowTimes& times, TimePoint arrival, TimePoint tokenized,
                const Placements& placed, bool by_handoff);

// One JSON object, without a line's end; the fields are those of docs/observability.md.
void AppendRecord(const RequestRecord& record, std::string* out);

}  // namespace baton::router
