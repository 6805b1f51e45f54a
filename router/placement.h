#pragma once

// Which workers serve a prompt: a pure function of a snapshot of the fleet.

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "router/held_prefix.h"
#include "router/interned_name.h"
#include "router/session_memory.h"
#include "worker_link/commands.h"

namespace baton::router {

// One worker as placement sees it. Load counts what the worker last reported and what this router
// has sent since.
struct WorkerSnapshot {
  WorkerId id = 0;
  worker_link::Role role = worker_link::Role::kDecode;
  InternedName fingerprint;  // model and arithmetic
  InternedName kv_layout;
  bool connected = false;  // and its first status has come
  bool draining = false;
  bool suspect = false;              // failed its last requests, or is silent
  int32_t requests = 0;              // running and waiting
  int64_t prompt_tokens_queued = 0;  // not prefilled yet
  int64_t context_tokens = 0;        // of what decodes there
  double slowness = 1;               // of its steps, against the fleet's
  int32_t max_sequences = 0;         // of a step; 0: not told
  int64_t blocks_available = 0;      // free, or cached and evictable
  int64_t blocks_total = 0;
  int32_t block_tokens = 1;
  int64_t kv_bytes_per_token = 0;
  double prefill_tokens_per_s = 0;  // as measured there; 0: not yet
  double kv_bytes_per_s = 0;        // likewise, of KV that it was handed
  double disk_bytes_per_s = 0;      // likewise, of its KV on disk
  uint64_t chosen = 0;              // grows from placement to placement: the last one there
};

// Seconds of a decode step; all 0: not known.
struct DecodeStepCost {
  double step_s = 0;
  double sequence_s = 0;
  double context_token_s = 0;
};

struct PlacementRequest {
  int32_t prompt_tokens = 0;
  int32_t local_prefill_tokens = 0;  // prompts up to this many are prefilled by the decode worker
  // Likewise those of which it does not hold up to this many, where that is faster.
  int32_t local_uncached_tokens = 0;
  // What each worker holds of the prompt, by id; those beyond the end hold nothing.
  std::span<const HeldPrefix> held;
  // A prefill worker that will have so many tokens when this prompt's turn comes there.
  WorkerId expected_at = 0;
  int32_t expected_tokens = 0;
  SessionPlaces session;
  DecodeStepCost decode_step;
  std::vector<WorkerId> avoid;  // have failed this request: only where there is no other
  bool only_others = false;     // not even then
};

// A prefill worker that hands over its cached KV of about so many leading tokens.
struct PrefixDonor {
  WorkerId worker = 0;
  int32_t tokens = 0;
};

struct Placed {
  WorkerId decode = 0;
  std::optional<WorkerId> prefill;   // empty: the decode worker prefills the prompt itself
  std::optional<PrefixDonor> donor;  // to the prefill worker
  int32_t compute_tokens = 0;        // of the prompt, as far as is known: the rest is cached
};

enum class RefusalReason {
  kNoDecodeWorker,  // none is connected
  kAllDraining,     // those that are connected are draining
  kPromptTooLarge,  // no connected decode worker's whole KV pool holds the prompt
};
struct Refusal {
  RefusalReason reason = RefusalReason::kNoDecodeWorker;
  std::string text;  // for the client, with the numbers
};

using Placement = std::variant<Placed, Refusal>;

// Decode worker, in this order: not one to avoid, not suspect, room for the prompt now (in its pool
// and in its steps), shortest step with the prompt in its batch, in eighths of an octave (where the
// fleet's cost is known), fewest requests, served the session before, most blocks available, lowest
// id. Another one as good but for its requests, no more than one and an eighth above that one's,
// and with a step no more than an eighth longer, goes before it when it holds more of the prompt.
//
// Prefill worker, among those with the decode worker's fingerprint: not suspect; least time until
// this prompt's first token: the tokens queued there and those of the prompt that it does not hold,
// at its measured speed (one that was not measured counts as the mean of the others); then the
// decode worker's KV layout (others have to be converted), served the session before, fewest
// requests; then least recently
// chosen, so that not one worker's cache forgets while others' are idle; lowest id. A prefix that
// it has on disk counts as read from there, and one that another prefill worker of the same layout
// holds as fetched from it, where that is faster than computing it: KV bytes / measured bytes a
// second, against tokens / measured tokens a second. Nothing is fetched before prefill was
// measured; before a transfer was, kAssumedKvBytesPerS is taken.
//
// The decode worker prefills the prompt itself when the prompt is short; when it holds nearly all
// of it and has the first token sooner than the best prefill worker (a decode worker whose prefill
// was not measured counts as half as fast as the mean prefill worker), unless its KV is of another
// layout, where who computes it may tell in the answer; or when there is no such
// prefill worker but ones to avoid or suspect ones.
//
// Deterministic: equal arguments give equal answers. `workers` ascend by id.
Placement Place(std::span<const WorkerSnapshot> workers, const PlacementRequest& request);

inline constexpr double kAssumedKvBytesPerS = 1e9;
inline constexpr double kAssumedDiskBytesPerS = 1e9;

// KV blocks for the prompt and the first token.
int64_t BlocksNeeded(int32_t block_tokens, int32_t prompt_tokens);

}  // namespace baton::router
