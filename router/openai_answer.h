#pragma once

// Deltas and finishes of a request's choices to OpenAI's answer bodies: server-sent events for
// streams, one JSON object otherwise. No I/O; used by one thread at a time.

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "router/openai_answer_parts.h"
#include "router/openai_request.h"
#include "router/request.h"
#include "router/tool_call_parser.h"

namespace baton::router {

// What an answer looks like; fixed before its first piece.
struct AnswerShape {
  Endpoint endpoint = Endpoint::kChat;
  std::string id;
  std::string model;
  int64_t created_s = 0;  // Unix time
  int32_t choices = 1;
  int32_t choices_per_prompt = 1;
  int32_t shown_per_prompt = 1;     // whole answers: the best of them; streams have all
  std::vector<std::string> echoes;  // per prompt: what goes before each answer; empty: nothing
  bool logprobs = false;
  bool echo_logprobs = false;    // completions: those of the echo, too
  bool prompt_logprobs = false;  // whole answers: vLLM's list beside each choice
  bool include_usage = false;    // streams only: whole answers always have it
  bool return_stats = false;
  bool return_token_ids = false;
  std::string tools;  // a JSON array of what may be called; "": text is all there is
  ToolFormat tool_format = ToolFormat::kHermes;
  std::vector<std::vector<TokenId>> prompt_token_ids;  // per prompt, when return_token_ids
};

// A stream: each Add appends "data: {...}\n\n" events to `out`, or nothing when the piece has
// nothing to show yet. The last choice's finish brings usage and statistics where they are asked
// for, and "data: [DONE]\n\n".
class StreamAnswer {
 public:
  explicit StreamAnswer(AnswerShape shape);

  void Add(int32_t choice, const Delta& delta, std::string* out);
  void Add(int32_t choice, const Finish& finish, std::string* out);
  bool complete() const { return finished_ == shape_.choices; }

 private:
  struct Choice {
    bool begun = false;
    int64_t text_offset = 0;
    LegacyLogprobs prompt_logprobs;  // not shown yet
    std::optional<ToolCallParser> parser;
    Finish finish;
  };

  std::string_view EchoOf(int32_t choice) const;
  void AddShown(int32_t choice, const Delta& delta, std::string* out);
  void Begin(int32_t choice, std::string* out);
  void OpenEvent(int32_t choice, std::string* out) const;
  void AppendExtras(int32_t choice, const Delta& delta, std::string* out);
  void AppendCalls(int32_t choice, const std::vector<ToolCallDelta>& calls, std::string* out);
  void AppendPromptTokens(int32_t choice, std::string* out) const;
  void AppendClosing(std::string* out) const;

  const AnswerShape shape_;
  std::string head_;  // of every event, up to "choices"
  std::string tail_;  // of every event with a choice, from its closing brackets on
  std::vector<Choice> choices_;
  int32_t finished_ = 0;
};

// The whole answer in one piece.
class WholeAnswer {
 public:
  explicit WholeAnswer(AnswerShape shape);

  void Add(int32_t choice, const Delta& delta);
  void Add(int32_t choice, const Finish& finish);
  bool complete() const { return finished_ == shape_.choices; }
  std::string Body() const;  // once complete

 private:
  struct Choice {
    std::string text;
    std::string chat_logprobs;  // array elements
    LegacyLogprobs legacy_logprobs;
    std::string prompt_logprobs;  // array elements
    int64_t text_offset = 0;
    std::vector<TokenId> tokens;
    double logprob = 0;  // the sum of its tokens'
    Finish finish;
  };

  std::vector<size_t> Shown() const;
  void AppendChoice(size_t index, size_t shown_as, std::string* out) const;
  bool AppendMessage(size_t index, std::string* out) const;
  void AppendLogprobs(const Choice& choice, std::string* out) const;

  const AnswerShape shape_;
  std::vector<Choice> choices_;
  int32_t finished_ = 0;
};

}  // namespace baton::router
