#include "router/openai_answer.h"

#include <utility>

#include "router/json_text.h"

namespace baton::router {
namespace {

void AppendIdentity(const AnswerShape& shape, std::string_view object, std::string* out) {
  out->append(R"({"id":)");
  AppendJsonString(shape.id, out);
  out->append(R"(,"object":)");
  AppendJsonString(object, out);
  out->append(R"(,"created":)");
  AppendJsonInt(shape.created_s, out);
  out->append(R"(,"model":)");
  AppendJsonString(shape.model, out);
}

template <typename Choice>
std::vector<Finish> Finishes(const std::vector<Choice>& choices) {
  std::vector<Finish> finishes;
  finishes.reserve(choices.size());
  for (const Choice& choice : choices) finishes.push_back(choice.finish);
  return finishes;
}

}  // namespace

StreamAnswer::StreamAnswer(AnswerShape shape)
    : shape_(std::move(shape)), choices_(static_cast<size_t>(shape_.choices)) {
  const bool chat = shape_.endpoint == Endpoint::kChat;
  head_ = "data: ";
  AppendIdentity(shape_, chat ? "chat.completion.chunk" : "text_completion", &head_);
  tail_ = shape_.include_usage ? "}],\"usage\":null}\n\n" : "}]}\n\n";
}

// An event up to the choice's index.
void StreamAnswer::OpenEvent(int32_t choice, std::string* out) const {
  out->append(head_);
  const bool prompt_tokens = shape_.endpoint == Endpoint::kChat && shape_.return_token_ids &&
                             !choices_[static_cast<size_t>(choice)].begun;
  if (prompt_tokens) AppendPromptTokens(choice, out);
  out->append(R"(,"choices":[{"index":)");
  AppendJsonInt(choice, out);
}

void StreamAnswer::AppendPromptTokens(int32_t choice, std::string* out) const {
  out->append(R"(,"prompt_token_ids":)");
  AppendTokenIds(shape_.prompt_token_ids[static_cast<size_t>(choice / shape_.choices_per_prompt)],
                 out);
}

// A chat's choice begins with its role.
void StreamAnswer::Begin(int32_t choice, std::string* out) {
  Choice& state = choices_[static_cast<size_t>(choice)];
  if (state.begun || shape_.endpoint != Endpoint::kChat) return;
  OpenEvent(choice, out);
  out->append(R"(,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null)");
  out->append(tail_);
  state.begun = true;
}

void StreamAnswer::AppendExtras(int32_t choice, const Delta& delta, std::string* out) {
  Choice& state = choices_[static_cast<size_t>(choice)];
  out->append(R"(,"logprobs":)");
  if (!shape_.logprobs) {
    out->append("null");
  } else if (shape_.endpoint == Endpoint::kChat) {
    out->append(R"({"content":[)");
    AppendChatLogprobs(delta.tokens, out);
    out->append(R"(],"refusal":null})");
  } else {
    LegacyLogprobs logprobs;
    logprobs.Add(delta.tokens, &state.text_offset);
    logprobs.AppendTo(out);
  }
  if (shape_.return_token_ids) {
    if (shape_.endpoint == Endpoint::kCompletions && !state.begun) AppendPromptTokens(choice, out);
    out->append(R"(,"token_ids":)");
    AppendTokenIds(delta.tokens, out);
  }
}

void StreamAnswer::Add(int32_t choice, const Delta& delta, std::string* out) {
  Begin(choice, out);
  const bool has_details = (shape_.logprobs || shape_.return_token_ids) && !delta.tokens.empty();
  if (delta.text.empty() && !has_details) return;
  const bool chat = shape_.endpoint == Endpoint::kChat;
  OpenEvent(choice, out);
  out->append(chat ? R"(,"delta":{"content":")" : R"(,"text":")");
  AppendJsonEscaped(delta.text, out);
  out->append(chat ? "\"}" : "\"");
  AppendExtras(choice, delta, out);
  out->append(R"(,"finish_reason":null)");
  out->append(tail_);
  choices_[static_cast<size_t>(choice)].begun = true;
}

void StreamAnswer::Add(int32_t choice, const Finish& finish, std::string* out) {
  Begin(choice, out);
  Choice& state = choices_[static_cast<size_t>(choice)];
  OpenEvent(choice, out);
  out->append(shape_.endpoint == Endpoint::kChat ? R"(,"delta":{},"logprobs":null)"
                                                 : R"(,"text":"","logprobs":null)");
  const bool bare = shape_.endpoint == Endpoint::kCompletions && !state.begun;
  if (bare && shape_.return_token_ids) AppendPromptTokens(choice, out);
  out->append(R"(,"finish_reason":")").append(FinishName(finish.reason)).append("\"");
  out->append(tail_);
  state.begun = true;
  state.finish = finish;
  ++finished_;
  if (complete()) AppendClosing(out);
}

void StreamAnswer::AppendClosing(std::string* out) const {
  if (shape_.include_usage || shape_.return_stats) {
    const std::vector<Finish> finishes = Finishes(choices_);
    out->append(head_);
    out->append(R"(,"choices":[],)");
    AppendUsage(finishes, shape_.choices_per_prompt, out);
    if (shape_.return_stats) {
      out->push_back(',');
      AppendStats(finishes, out);
    }
    out->append("}\n\n");
  }
  out->append("data: [DONE]\n\n");
}

WholeAnswer::WholeAnswer(AnswerShape shape)
    : shape_(std::move(shape)), choices_(static_cast<size_t>(shape_.choices)) {}

void WholeAnswer::Add(int32_t choice, const Delta& delta) {
  Choice& state = choices_[static_cast<size_t>(choice)];
  state.text += delta.text;
  if (shape_.return_token_ids) {
    for (const TokenDetail& detail : delta.tokens) state.tokens.push_back(detail.token);
  }
  if (!shape_.logprobs) return;
  if (shape_.endpoint == Endpoint::kChat) {
    AppendChatLogprobs(delta.tokens, &state.chat_logprobs);
  } else {
    state.legacy_logprobs.Add(delta.tokens, &state.text_offset);
  }
}

void WholeAnswer::Add(int32_t choice, const Finish& finish) {
  choices_[static_cast<size_t>(choice)].finish = finish;
  ++finished_;
}

void WholeAnswer::AppendLogprobs(const Choice& choice, std::string* out) const {
  out->append(R"(,"logprobs":)");
  if (!shape_.logprobs) {
    out->append("null");
  } else if (shape_.endpoint == Endpoint::kChat) {
    out->append(R"({"content":[)").append(choice.chat_logprobs).append(R"(],"refusal":null})");
  } else {
    choice.legacy_logprobs.AppendTo(out);
  }
}

void WholeAnswer::AppendChoice(size_t index, std::string* out) const {
  const Choice& choice = choices_[index];
  const bool chat = shape_.endpoint == Endpoint::kChat;
  out->append(R"({"index":)");
  AppendJsonInt(static_cast<int64_t>(index), out);
  out->append(chat ? R"(,"message":{"role":"assistant","content":)" : R"(,"text":)");
  AppendJsonString(choice.text, out);
  if (chat) out->append(R"(,"refusal":null})");
  AppendLogprobs(choice, out);
  out->append(R"(,"finish_reason":")").append(FinishName(choice.finish.reason)).append("\"");
  if (shape_.return_token_ids) {
    if (!chat) {
      out->append(R"(,"prompt_token_ids":)");
      AppendTokenIds(
          shape_.prompt_token_ids[index / static_cast<size_t>(shape_.choices_per_prompt)], out);
    }
    out->append(R"(,"token_ids":)");
    AppendTokenIds(choice.tokens, out);
  }
  out->push_back('}');
}

std::string WholeAnswer::Body() const {
  const bool chat = shape_.endpoint == Endpoint::kChat;
  std::string body;
  AppendIdentity(shape_, chat ? "chat.completion" : "text_completion", &body);
  body += R"(,"choices":[)";
  for (size_t i = 0; i < choices_.size(); ++i) {
    if (i > 0) body += ',';
    AppendChoice(i, &body);
  }
  body += "],";
  const std::vector<Finish> finishes = Finishes(choices_);
  AppendUsage(finishes, shape_.choices_per_prompt, &body);
  if (chat && shape_.return_token_ids) {
    body += R"(,"prompt_token_ids":)";
    AppendTokenIds(shape_.prompt_token_ids.front(), &body);
  }
  if (shape_.return_stats) {
    body += ',';
    AppendStats(finishes, &body);
  }
  body += '}';
  return body;
}

}  // namespace baton::router
