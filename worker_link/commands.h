#pragma once

// What routers tell workers and what workers answer, as plain data. The wire form (worker.proto)
// stays inside worker_link.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/sampling.h"

namespace baton::worker_link {

inline constexpr uint32_t kProtocol = 6;  // both ends must have the same

inline constexpr size_t kMaxKvPaths = 256;  // that one worker tells of

enum class Role { kPrefill, kDecode };
inline std::string_view RoleName(Role role) {
  return role == Role::kPrefill ? "prefill" : "decode";
}

struct WorkerInfo {
  std::string name;
  Role role = Role::kPrefill;
  std::string model;
  std::string fingerprint;  // model and arithmetic: handoffs need equal ones
  std::string kv_layout;    // handoffs between unlike ones convert
  int32_t vocab_size = 0;
  int32_t context_tokens = 0;
  int32_t block_tokens = 0;
  std::string handoff_address;  // for the other side of a handoff
  uint64_t incarnation = 0;
  int64_t kv_bytes_per_token = 0;
  int32_t max_sequences = 0;  // of a step; 0: not told
  // What the hashes of its cached blocks begin with, beside the tenant's salt: ChainRoot's
  // fingerprint. "": it does not tell what it holds.
  std::string cache_chain;
};

// The KV disk cache of a worker: of now, and counts since its start. All zero without one.
struct DiskCacheStatus {
  bool on = false;
  int32_t blocks = 0;
  int32_t blocks_total = 0;
  int64_t blocks_hit = 0;  // asked for and known
  int64_t blocks_missed = 0;
  int64_t blocks_read = 0;
  int64_t blocks_written = 0;
  int64_t blocks_dropped = 0;  // not written: the disk did not keep up
  int64_t blocks_evicted = 0;
  int64_t blocks_damaged = 0;
  double bytes_per_s = 0;  // of reads, as measured; 0: not yet

  bool operator==(const DiskCacheStatus&) const = default;
};

// One way that KV can come to a worker from another, as measured at that one's first offer.
struct KvPath {
  std::string source;               // the other worker
  std::string transport;            // "shm", "ucx tcp", "inproc"
  double bytes_per_s = 0;           // measured
  double expected_bytes_per_s = 0;  // what a way of this kind should give there
  bool in_use = false;              // or there is a faster way

  bool operator==(const KvPath&) const = default;
};

// Of what a worker has taken from others since its start.
struct KvCounters {
  int64_t handoffs = 0;              // to a decode worker: prompts whose KV came
  int64_t handoffs_failed = 0;       // granted, but damaged, lost or too late
  int64_t handoffs_converted = 0;    // of `handoffs`, those of another KV layout
  int64_t checksum_mismatches = 0;   // transfers that ended because a block was not the source's
  int64_t prefixes_fetched = 0;      // to a prefill worker, from another
  int64_t prefixes_not_offered = 0;  // asked for, but no offer came
  int64_t prefixes_refused = 0;      // offered, but not of this prompt, or no longer worth it
  int64_t prefixes_failed = 0;       // granted, but damaged, lost or too late
  int64_t prefix_tokens_fetched = 0;
  int64_t prefix_bytes_fetched = 0;

  bool operator==(const KvCounters&) const = default;
};

// What a worker's steps computed, and how long they took, since it has its role: the cost model is
// learned from it.
struct StepTotals {
  int64_t steps = 0;
  int64_t prompt_steps = 0;  // of these, with prompts alone
  double seconds = 0;
  int64_t prompt_tokens = 0;
  double prompt_pairs = 0;  // of a prompt's token with each before it and itself
  int64_t sequences = 0;    // that got a token
  double context_tokens = 0;
  int32_t chunk_tokens = 0;  // most prompt tokens of a step

  bool operator==(const StepTotals&) const = default;
};

struct WorkerStatus {
  std::optional<Role> role;  // of now; empty: as WorkerInfo says
  bool draining = false;
  bool leaving = false;     // drains, and its streams had time to end: they are to go on elsewhere
  Duration longest_step{};  // of the last minutes; while one is computed nothing is reported
  int32_t running = 0;
  int32_t waiting = 0;
  int32_t blocks_free = 0;
  int32_t blocks_held = 0;
  int32_t blocks_cached = 0;
  int32_t blocks_total = 0;
  int32_t transfers = 0;
  int64_t prompt_tokens_queued = 0;
  double prefill_tokens_per_s = 0;  // measured in its steps; 0: not yet
  double kv_bytes_per_s = 0;        // measured in what was handed over to it; 0: not yet
  int64_t preemptions = 0;          // of running requests, since the worker has its role
  KvCounters kv;
  std::vector<KvPath> paths;  // at most kMaxKvPaths
  DiskCacheStatus disk;
  StepTotals steps;

  bool operator==(const WorkerStatus&) const = default;
};

// Router to worker.
struct PrefillCommand {
  Attempt attempt;
  std::vector<TokenId> prompt;
  // The last so many tokens of `prompt` are output of earlier attempts, which the request's
  // sampling (penalties, positions, max_tokens, min_tokens) counts as such.
  int32_t output_tokens = 0;
  SamplingParams sampling;
  std::string cache_salt;
  std::string target_address;
  std::string target_name;
  Duration timeout{};  // from receipt
  // Another prefill worker is asked to hand over its KV of about so many leading tokens; 0: none.
  int32_t prefix_tokens = 0;
  std::string traceparent;  // W3C, for log lines; "": not traced
};
// To a prefill worker: offer what is cached of the prompt to another prefill worker, which waits
// for it. Answered with Prefilled when it is there, else with Failed.
struct ServePrefixCommand {
  Attempt attempt;
  std::vector<TokenId> prompt;
  std::string cache_salt;
  std::string target_address;
  std::string target_name;
  Duration timeout{};
};
struct DecodeCommand {
  Attempt attempt;
  std::vector<TokenId> prompt;
  int32_t output_tokens = 0;  // as in PrefillCommand
  SamplingParams sampling;
  std::string cache_salt;
  bool handoff = false;  // false: prefill the prompt yourself
  Duration timeout{};
  std::string traceparent;  // as in PrefillCommand
};
struct CancelCommand {
  Attempt attempt;
};
// The part of the worker that was to offer KV has ended badly. If no offer has come yet, none will:
// compute it yourself. A transfer that runs ends as it ends.
struct NoOfferCommand {
  Attempt attempt;
};
// What the worker is to be from now on. One that shall have another role drains, changes, and then
// takes work again, if it is to.
struct DutyCommand {
  Role role = Role::kPrefill;
  bool takes_work = true;  // false: it drains, and stays so
  // Running streams have so long to end before routers are asked to move them elsewhere.
  Duration grace{};
};
// Tell what the caches hold, from the beginning, and then what changes. The link answers it itself.
struct TellBlocksCommand {};
using Command = std::variant<PrefillCommand, DecodeCommand, CancelCommand, NoOfferCommand,
                             ServePrefixCommand, DutyCommand, TellBlocksCommand>;

// None: a command about the worker itself.
inline std::optional<Attempt> AttemptOf(const Command& command) {
  return std::visit(
      [](const auto& one) -> std::optional<Attempt> {
        if constexpr (requires { one.attempt; }) return one.attempt;
        return std::nullopt;
      },
      command);
}

// Whether it starts an attempt: such a command may be refused, the others must not be lost.
inline bool IsRequest(const Command& command) {
  return std::holds_alternative<PrefillCommand>(command) ||
         std::holds_alternative<DecodeCommand>(command) ||
         std::holds_alternative<ServePrefixCommand>(command);
}

// Worker to router. Per attempt: a prefill worker sends token 0 (one that serves a prefix no
// token), then Prefilled or Failed; a decode worker sends tokens (the first one too: whichever
// comes first counts, the router drops the twin), then exactly one of Finished and Failed. The
// first token's position is the command's `output_tokens`.

// How a prompt came to its first token. Durations, one after the other from the command's receipt.
struct PrefillTimes {
  int32_t cached_prompt_tokens = 0;
  int32_t chunks = 0;      // steps that computed a part of it
  Duration queue{};        // until its turn came
  Duration fetch{};        // then until it was computed: a prefix came from elsewhere, or from disk
  Duration first_chunk{};  // the first of `chunks`; 0 with one that is all
  Duration compute{};      // all of them

  bool operator==(const PrefillTimes&) const = default;
};
struct TokensEvent {
  Attempt attempt;
  absl::InlinedVector<OutputToken, 1> tokens;  // consecutive positions
  // With an attempt's first token, from the worker that computed the prompt.
  std::optional<PrefillTimes> prefill{};
};
// Of consecutive positions of the prompt, where SamplingParams::prompt_logprobs asks for them; from
// whoever computes the prompt, before its first token. After a failure they may begin anew.
struct PromptScoresEvent {
  Attempt attempt;
  std::vector<PromptScore> scores;
};
// The prefill worker's part is over: its blocks are released.
struct PrefilledEvent {
  Attempt attempt;
};
struct FinishedEvent {
  Attempt attempt;
  FinishReason reason = FinishReason::kStop;
  int32_t output_tokens = 0;
  int32_t cached_prompt_tokens = 0;
  std::string transport;  // "" when nothing moved
  int32_t kv_blocks_moved = 0;
  int64_t kv_bytes_moved = 0;
  Duration handoff{};          // grant to the last verified byte
  Duration handoff_moving{};   // of these, while something complete was under way
  Duration handoff_exposed{};  // of these, after prefill had ended
  Duration handover{};         // end of prefill to the first decode step; 0 when there was none
  Duration queue{};            // receipt to grant, or to the batch where nothing was handed over
  int32_t steps = 0;           // that gave it a token
  int32_t preemptions = 0;     // times that it gave its blocks to older ones
};
struct FailedEvent {
  Attempt attempt;
  absl::Status status;
};
using Event =
    std::variant<TokensEvent, PrefilledEvent, FinishedEvent, FailedEvent, PromptScoresEvent>;

}  // namespace baton::worker_link
