#include "router/openai_answer.h"

#include <algorithm>
#include <functional>
#include <numeric>
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

// An element of tool_calls from its "id" on; of a delta that goes on with a call, only the
// arguments.
void AppendCall(const AnswerShape& shape, int64_t choice, const ToolCallDelta& call,
                std::string* out) {
  if (!call.name.empty()) {
    out->append(R"("id":"call_)").append(shape.id.substr(shape.id.find('-') + 1));
    out->push_back('-');
    AppendJsonInt(choice, out);
    out->push_back('-');
    AppendJsonInt(call.index, out);
    out->append(R"(","type":"function",)");
  }
  out->append(R"("function":{)");
  if (!call.name.empty()) {
    out->append(R"("name":)");
    AppendJsonString(call.name, out);
    out->push_back(',');
  }
  out->append(R"("arguments":)");
  AppendJsonString(call.arguments, out);
  out->append("}}");
}

std::string_view FinishText(const Finish& finish, bool called) {
  return called && finish.reason == FinishReason::kStop ? "tool_calls" : FinishName(finish.reason);
}

}  // namespace

StreamAnswer::StreamAnswer(AnswerShape shape)
    : shape_(std::move(shape)), choices_(static_cast<size_t>(shape_.choices)) {
  const bool chat = shape_.endpoint == Endpoint::kChat;
  head_ = "data: ";
  AppendIdentity(shape_, chat ? "chat.completion.chunk" : "text_completion", &head_);
  if (!shape_.tools.empty()) {
    for (Choice& choice : choices_) {
      choice.parser.emplace(shape_.tool_format, shape_.tools, ToolCallParser::Delivery::kAsItComes);
    }
  }
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
    LegacyLogprobs logprobs = std::exchange(state.prompt_logprobs, {});
    logprobs.Add(delta.tokens, &state.text_offset);
    logprobs.AppendTo(out);
  }
  if (shape_.return_token_ids) {
    if (shape_.endpoint == Endpoint::kCompletions && !state.begun) AppendPromptTokens(choice, out);
    out->append(R"(,"token_ids":)");
    AppendTokenIds(delta.tokens, out);
  }
}

void StreamAnswer::AppendCalls(int32_t choice, const std::vector<ToolCallDelta>& calls,
                               std::string* out) {
  for (const ToolCallDelta& call : calls) {
    OpenEvent(choice, out);
    out->append(R"(,"delta":{"tool_calls":[{"index":)");
    AppendJsonInt(call.index, out);
    out->push_back(',');
    AppendCall(shape_, choice, call, out);
    out->append(R"(]},"logprobs":null,"finish_reason":null)");
    out->append(tail_);
  }
}

void StreamAnswer::Add(int32_t choice, const Delta& delta, std::string* out) {
  if (!delta.prompt.empty()) {
    Choice& state = choices_[static_cast<size_t>(choice)];
    if (shape_.echo_logprobs) state.prompt_logprobs.AddPrompt(delta, &state.text_offset);
    if (delta.tokens.empty() && delta.text.empty()) return;  // they come with the first token
  }
  std::optional<ToolCallParser>& parser = choices_[static_cast<size_t>(choice)].parser;
  if (!parser.has_value()) {
    AddShown(choice, delta, out);
    return;
  }
  ToolCallParser::Piece piece = parser->Push(delta.text);
  AddShown(choice, {delta.index, delta.tokens, std::move(piece.text)}, out);
  AppendCalls(choice, piece.calls, out);
}

std::string_view StreamAnswer::EchoOf(int32_t choice) const {
  if (shape_.echoes.empty()) return {};
  return shape_.echoes[static_cast<size_t>(choice / shape_.choices_per_prompt)];
}

void StreamAnswer::AddShown(int32_t choice, const Delta& delta, std::string* out) {
  Begin(choice, out);
  std::string_view echo = EchoOf(choice);
  if (choices_[static_cast<size_t>(choice)].begun) echo = {};
  const bool has_details = (shape_.logprobs || shape_.return_token_ids) && !delta.tokens.empty();
  if (delta.text.empty() && echo.empty() && !has_details) return;
  const bool chat = shape_.endpoint == Endpoint::kChat;
  OpenEvent(choice, out);
  out->append(chat ? R"(,"delta":{"content":")" : R"(,"text":")");
  AppendJsonEscaped(echo, out);
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
  bool called = false;
  if (state.parser.has_value()) {
    ToolCallParser::Piece rest = state.parser->Finish();
    AddShown(choice, {.text = std::move(rest.text)}, out);
    AppendCalls(choice, rest.calls, out);
    called = state.parser->calls() > 0;
  }
  if (!EchoOf(choice).empty()) AddShown(choice, {}, out);  // where no token came
  OpenEvent(choice, out);
  out->append(shape_.endpoint == Endpoint::kChat ? R"(,"delta":{},"logprobs":null)"
                                                 : R"(,"text":"","logprobs":null)");
  const bool bare = shape_.endpoint == Endpoint::kCompletions && !state.begun;
  if (bare && shape_.return_token_ids) AppendPromptTokens(choice, out);
  out->append(R"(,"finish_reason":")").append(FinishText(finish, called)).append("\"");
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
  if (!delta.prompt.empty()) {
    if (shape_.prompt_logprobs) AppendPromptLogprobs(delta, &state.prompt_logprobs);
    if (shape_.echo_logprobs) state.legacy_logprobs.AddPrompt(delta, &state.text_offset);
  }
  for (const TokenDetail& detail : delta.tokens) state.logprob += detail.logprob;
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

// Whether it has calls.
bool WholeAnswer::AppendMessage(size_t index, std::string* out) const {
  const Choice& choice = choices_[index];
  out->append(R"(,"message":{"role":"assistant","content":)");
  ToolCallParser::Piece piece;
  if (shape_.tools.empty()) {
    AppendJsonString(choice.text, out);
  } else {
    ToolCallParser parser(shape_.tool_format, shape_.tools, ToolCallParser::Delivery::kWhole);
    piece = parser.Push(choice.text);
    ToolCallParser::Piece rest = parser.Finish();
    piece.text += rest.text;
    piece.calls.insert(piece.calls.end(), rest.calls.begin(), rest.calls.end());
    if (piece.text.empty() && !piece.calls.empty()) {
      out->append("null");
    } else {
      AppendJsonString(piece.text, out);
    }
  }
  out->append(R"(,"refusal":null)");
  for (size_t i = 0; i < piece.calls.size(); ++i) {
    out->append(i == 0 ? R"(,"tool_calls":[{)" : ",{");
    AppendCall(shape_, static_cast<int64_t>(index), piece.calls[i], out);
  }
  out->append(piece.calls.empty() ? "}" : "]}");
  return !piece.calls.empty();
}

// The choices that are shown: of each prompt's the best by log probability a token, in their order.
std::vector<size_t> WholeAnswer::Shown() const {
  std::vector<size_t> shown;
  const auto per_prompt = static_cast<size_t>(shape_.choices_per_prompt);
  for (size_t first = 0; first < choices_.size(); first += per_prompt) {
    std::vector<size_t> best(per_prompt);
    std::iota(best.begin(), best.end(), first);
    const auto mean = [this](size_t index) {
      const Choice& choice = choices_[index];
      return choice.logprob / std::max(choice.finish.output_tokens, 1);
    };
    if (shape_.shown_per_prompt < shape_.choices_per_prompt) {
      std::ranges::stable_sort(best, std::greater(), mean);
      best.resize(static_cast<size_t>(shape_.shown_per_prompt));
    }
    shown.insert(shown.end(), best.begin(), best.end());
  }
  return shown;
}

void WholeAnswer::AppendChoice(size_t index, size_t shown_as, std::string* out) const {
  const Choice& choice = choices_[index];
  const bool chat = shape_.endpoint == Endpoint::kChat;
  out->append(R"({"index":)");
  AppendJsonInt(static_cast<int64_t>(shown_as), out);
  bool called = false;
  if (chat) {
    called = AppendMessage(index, out);
  } else {
    out->append(R"(,"text":)");
    const size_t prompt = index / static_cast<size_t>(shape_.choices_per_prompt);
    AppendJsonString(shape_.echoes.empty() ? choice.text : shape_.echoes[prompt] + choice.text,
                     out);
  }
  AppendLogprobs(choice, out);
  out->append(R"(,"finish_reason":")").append(FinishText(choice.finish, called)).append("\"");
  if (shape_.prompt_logprobs && !chat) {
    out->append(R"(,"prompt_logprobs":[)").append(choice.prompt_logprobs).push_back(']');
  }
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
  const std::vector<size_t> shown = Shown();
  for (size_t i = 0; i < shown.size(); ++i) {
    if (i > 0) body += ',';
    AppendChoice(shown[i], i, &body);
  }
  body += "],";
  const std::vector<Finish> finishes = Finishes(choices_);
  AppendUsage(finishes, shape_.choices_per_prompt, &body);
  if (chat && shape_.prompt_logprobs) {
    body.append(R"(,"prompt_logprobs":[)").append(choices_.front().prompt_logprobs) += ']';
  }
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
