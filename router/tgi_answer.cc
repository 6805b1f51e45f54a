#include "router/tgi_answer.h"

#include <utility>

#include "router/json_text.h"

namespace baton::router {

void TgiAnswer::AppendToken(const TokenDetail& token, std::string* out) const {
  out->append(R"({"id":)");
  AppendJsonInt(token.token, out);
  out->append(R"(,"text":)");
  AppendJsonString(token.text, out);
  out->append(R"(,"logprob":)");
  AppendJsonNumber(token.logprob, out);
  out->append(R"(,"special":)").append(token.text.empty() ? "true}" : "false}");
}

// An end token shows nothing, so it can be told from what a stop string ended.
std::string_view TgiAnswer::FinishName() const {
  if (finish_.reason == FinishReason::kLength) return "length";
  const bool end_token = tokens_.empty() || tokens_.back().text.empty() || !options_.has_stop;
  return end_token ? "eos_token" : "stop_sequence";
}

void TgiAnswer::AppendDetails(bool with_tokens, std::string* out) const {
  out->append(R"({"finish_reason":")").append(FinishName());
  out->append(R"(","generated_tokens":)");
  AppendJsonInt(finish_.output_tokens, out);
  out->append(R"(,"input_length":)");
  AppendJsonInt(finish_.prompt_tokens, out);
  out->append(R"(,"seed":)");
  out->append(options_.has_seed ? std::to_string(options_.seed) : "null");
  if (!with_tokens) {
    out->push_back('}');
    return;
  }
  out->append(R"(,"prefill":[)").append(prompt_).append(R"(],"tokens":[)");
  for (const TokenDetail& token : tokens_) {
    if (out->back() != '[') out->push_back(',');
    AppendToken(token, out);
  }
  out->append("]}");
}

void TgiAnswer::AppendEvent(size_t token, bool last, std::string* out) const {
  out->append(R"(data:{"index":)");
  AppendJsonInt(static_cast<int64_t>(token) + 1, out);
  out->append(R"(,"token":)");
  AppendToken(tokens_[token], out);
  if (!tokens_[token].top.empty()) {
    out->append(R"(,"top_tokens":[)");
    for (const TokenLogprobText& top : tokens_[token].top) {
      if (out->back() != '[') out->push_back(',');
      AppendToken({.token = top.token, .text = top.text, .logprob = top.logprob}, out);
    }
    out->push_back(']');
  }
  out->append(R"(,"generated_text":)");
  if (last) {
    AppendJsonString(options_.full_text ? options_.prompt + text_ : text_, out);
    out->append(R"(,"details":)");
    AppendDetails(/*with_tokens=*/false, out);
  } else {
    out->append(R"(null,"details":null)");
  }
  out->append("}\n\n");
}

void TgiAnswer::AddPrompt(const Delta& delta) {
  for (size_t i = 0; i < delta.prompt.size(); ++i) {
    const TokenDetail& token = delta.prompt[i];
    if (!prompt_.empty()) prompt_.push_back(',');
    prompt_ += R"({"id":)";
    AppendJsonInt(token.token, &prompt_);
    prompt_ += R"(,"text":)";
    AppendJsonString(token.text, &prompt_);
    prompt_ += R"(,"logprob":)";
    if (delta.prompt_index == 0 && i == 0) {
      prompt_ += "null";
    } else {
      AppendJsonNumber(token.logprob, &prompt_);
    }
    prompt_.push_back('}');
  }
}

void TgiAnswer::Add(const Delta& delta, std::string* out) {
  AddPrompt(delta);
  text_ += delta.text;
  tokens_.insert(tokens_.end(), delta.tokens.begin(), delta.tokens.end());
  if (!stream_) return;
  for (; sent_ + 1 < tokens_.size(); ++sent_) AppendEvent(sent_, /*last=*/false, out);
}

void TgiAnswer::Add(const Finish& finish, std::string* out) {
  finish_ = finish;
  complete_ = true;
  if (stream_ && !tokens_.empty()) AppendEvent(sent_, /*last=*/true, out);
}

std::string TgiAnswer::Body() const {
  std::string body = R"({"generated_text":)";
  AppendJsonString(options_.full_text ? options_.prompt + text_ : text_, &body);
  if (options_.details) {
    body += R"(,"details":)";
    AppendDetails(/*with_tokens=*/true, &body);
  }
  return body + "}";
}

std::string TgiErrorBody(const absl::Status& status) {
  std::string_view type = "generation";
  if (absl::IsInvalidArgument(status) || absl::IsNotFound(status)) type = "validation";
  if (absl::IsResourceExhausted(status)) type = "overloaded";
  std::string body = R"({"error":)";
  AppendJsonString(std::string(status.message()), &body);
  body += R"(,"error_type":")";
  return body.append(type).append("\"}");
}

}  // namespace baton::router
