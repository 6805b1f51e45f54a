#pragma once

// A client's request and its answer, free of any front end's wire form.

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "common/clock.h"
#include "common/ids.h"
#include "common/sampling.h"
#include "text/chat_template.h"

namespace baton::router {

// Bounds on what a client may ask; a request over one is InvalidArgument with both numbers.
struct RequestLimits {
  size_t max_body_bytes = size_t{10} << 20;  // front ends: 413 above
  size_t max_stop_strings = 16;
  size_t max_stop_bytes = 256;
  size_t max_bad_words = 256;
  size_t max_bad_word_bytes = 128;
  int32_t max_choices = 16;
  size_t max_messages = 4096;
  size_t max_prompts = 64;  // of one completions call
  size_t max_salt_bytes = 512;
  size_t max_prompt_logprobs = size_t{1} << 18;  // values, the best of each position among them
  int32_t max_input_tokens = 0;                  // of a prompt; 0: what the context allows
  int32_t max_total_tokens = 0;                  // of a prompt and its answer; 0: the context
};

class Visit;      // key_gate.h
struct CallInfo;  // request_record.h

struct GenerateInput {
  std::string model;  // "": the only one
  // Plain text; chat messages; token ids.
  std::variant<std::string, std::vector<text::ChatMessage>, std::vector<TokenId>> prompt;
  std::string tools;  // for chat: a JSON array of what the model may call; "": nothing
  SamplingParams sampling;
  bool add_special_tokens = true;      // BOS in front of text, where the model wants it
  int32_t truncate_prompt_tokens = 0;  // only the last so many are taken; 0: all
  // Of a chat: where the answer begins. As a new message; or, with continue_final_message, behind
  // the text of the last one, which is left open.
  bool add_generation_prompt = true;
  bool continue_final_message = false;
  bool show_special_tokens = false;  // in the answer's text, by their names
  bool include_stop = false;         // the stop string or token that ends the answer is part of it
  bool has_max_tokens = false;       // false: what the context leaves
  bool has_seed = false;             // false: the router draws one
  std::vector<std::string> stop;
  std::vector<std::string> bad_words;  // the router makes sampling.bad_words of them
  // What the answer's deltas have to be: one for each piece as it comes, or few, the last with the
  // end; with their tokens, or with the text alone.
  bool in_pieces = true;
  bool tells_tokens = true;
  std::string cache_salt;
  // What the client calls the conversation: a hint to serve it where it was served before.
  std::string session;
  // Who asks, where API keys are in use: its limits are charged, its prefixes are its tenant's.
  std::shared_ptr<Visit> visit;
  std::shared_ptr<const CallInfo> call;  // what it is a part of; may be null
  int32_t choice = 0;                    // of the call's
  // Tokens of the answer that the client has: it goes on after them. Needs the seed, if any is
  // used.
  std::vector<TokenId> resume_tokens;
  Duration timeout{};  // the caller's own deadline, from now; 0: only the router's
};

struct TokenLogprobText {
  TokenId token = 0;
  std::string text;  // bytes
  float logprob = 0;
};

struct TokenDetail {
  TokenId token = 0;
  std::string text;  // bytes, may be part of a character
  float logprob = 0;
  std::vector<TokenLogprobText> top;
  int32_t rank = 0;  // of a prompt's token: 1 is the most likely
};

// A piece of the answer: consecutive tokens, and the text that they made final. Text that may yet
// turn out to begin a stop string, and incomplete characters, come with a later piece.
struct Delta {
  int32_t index = 0;                           // of the first token
  absl::InlinedVector<TokenDetail, 1> tokens;  // where asked for, as their logprobs
  std::string text;
  // Where sampling.prompt_logprobs asks for them, before the answer's first token: consecutive
  // tokens of the prompt. Its first one has no log probability.
  int32_t prompt_index = 0;  // of the first of `prompt`
  std::vector<TokenDetail> prompt;
};

struct RequestStats {
  std::string request_id;
  std::string prefill_worker;
  std::string decode_worker;
  std::string transport;
  int32_t kv_blocks_moved = 0;
  int64_t kv_bytes_moved = 0;
  int32_t cached_prompt_tokens = 0;
  double ttft_s = 0;
  double mean_itl_s = 0;
  double total_s = 0;
  double handover_s = 0;   // end of prefill to the first decode step; 0 when nothing moved
  int32_t migrations = 0;  // times that the stream went on at another worker
};

struct Finish {
  FinishReason reason = FinishReason::kStop;
  int32_t prompt_tokens = 0;
  int32_t output_tokens = 0;
  RequestStats stats;
};

// The answer's path back. Called in order, one call at a time, on the router's threads; must not
// block. Exactly one of on_finish and on_error ends the request, unless it was cancelled by its
// owner: then neither comes (but one that is under way may still).
struct ResponseSink {
  std::function<void(Delta)> on_delta;
  std::function<void(Finish)> on_finish;
  std::function<void(absl::Status)> on_error;
};

}  // namespace baton::router
