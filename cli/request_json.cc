#include "cli/request_json.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <charconv>
#include <functional>
#include <map>

#include "common/nearest_name.h"
#include "common/status_macros.h"
#include "text/detokenizer.h"

namespace baton::cli {
namespace {

namespace json = boost::json;

template <typename T>
absl::Status Read(const json::value& value, std::string_view field, T* out) {
  try {
    *out = json::value_to<T>(value);
    return absl::OkStatus();
  } catch (const std::exception&) {
    return absl::InvalidArgumentError(fmt::format("'{}' has the wrong type or range: {}", field,
                                                  json::serialize(value).substr(0, 80)));
  }
}

absl::Status ReadBias(const json::value& value, std::string_view field,
                      std::vector<std::pair<TokenId, float>>* out) {
  std::map<std::string, float> bias;
  BATON_RETURN_IF_ERROR(Read(value, field, &bias));
  for (const auto& [name, weight] : bias) {
    BATON_ASSIGN_OR_RETURN(const std::vector<TokenId> token, ParseTokenIds(name));
    if (token.size() != 1) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' has a key that is no token id: '{}'", field, name));
    }
    out->emplace_back(token[0], weight);
  }
  return absl::OkStatus();
}

using FieldReaders = std::map<std::string, std::function<absl::Status(const json::value&)>>;

absl::Status ReadFields(const json::value& value, std::string_view what,
                        const FieldReaders& readers) {
  if (!value.is_object())
    return absl::InvalidArgumentError(fmt::format("{} must be an object", what));
  for (const auto& entry : value.get_object()) {
    const std::string name(entry.key());
    const auto reader = readers.find(name);
    if (reader == readers.end()) {
      std::vector<std::string> known;
      for (const auto& [key, unused] : readers) known.push_back(key);
      return absl::InvalidArgumentError(
          fmt::format("{} has an unknown field '{}'{}", what, name, DidYouMean(name, known)));
    }
    BATON_RETURN_IF_ERROR(reader->second(entry.value()));
  }
  return absl::OkStatus();
}

absl::Status ReadSampling(const json::value& value, RunRequest* request) {
  SamplingParams& s = request->sampling;
  const auto into = [](std::string field, auto* out) {
    return [field, out](const json::value& v) { return Read(v, field, out); };
  };
  return ReadFields(
      value, "sampling",
      {{"temperature", into("temperature", &s.temperature)},
       {"top_k", into("top_k", &s.top_k)},
       {"top_p", into("top_p", &s.top_p)},
       {"min_p", into("min_p", &s.min_p)},
       {"repetition_penalty", into("repetition_penalty", &s.repetition_penalty)},
       {"presence_penalty", into("presence_penalty", &s.presence_penalty)},
       {"frequency_penalty", into("frequency_penalty", &s.frequency_penalty)},
       {"logit_bias",
        [&s](const json::value& v) { return ReadBias(v, "logit_bias", &s.logit_bias); }},
       {"seed", into("seed", &s.seed)},
       {"max_tokens",
        [&s, request](const json::value& v) {
          request->has_max_tokens = true;
          return Read(v, "max_tokens", &s.max_tokens);
        }},
       {"min_tokens", into("min_tokens", &s.min_tokens)},
       {"stop_token_ids", into("stop_token_ids", &s.stop_token_ids)},
       {"allowed_token_ids", into("allowed_token_ids", &s.allowed_token_ids)},
       {"bad_words", into("bad_words", &request->bad_words)},
       {"ignore_eos", into("ignore_eos", &s.ignore_eos)},
       {"watermark", into("watermark", &s.watermark)},
       {"constraint",
        [&s](const json::value& v) {
          s.constraint = json::serialize(v);
          return absl::OkStatus();
        }},
       {"logprobs", into("logprobs", &s.logprobs)}});
}

absl::Status ReadMessages(const json::value& value, std::vector<text::ChatMessage>* out) {
  if (!value.is_array()) return absl::InvalidArgumentError("'messages' must be a list");
  for (const json::value& item : value.get_array()) {
    text::ChatMessage message;
    BATON_RETURN_IF_ERROR(ReadFields(
        item, "message",
        {{"role", [&](const json::value& v) { return Read(v, "role", &message.role); }},
         {"content", [&](const json::value& v) { return Read(v, "content", &message.content); }}}));
    out->push_back(std::move(message));
  }
  return absl::OkStatus();
}

json::array LogprobsJson(const std::vector<OutputToken>& output) {
  json::array rows;
  for (const OutputToken& token : output) {
    json::array top;
    for (const TokenLogprob& best : token.top) {
      top.push_back({{"token", best.token}, {"logprob", best.logprob}});
    }
    rows.push_back({{"token", token.token}, {"logprob", token.logprob}, {"top", std::move(top)}});
  }
  return rows;
}

double Rate(size_t tokens, double seconds) {
  return seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

}  // namespace

absl::StatusOr<RunRequest> ParseRunRequest(std::string_view line, const SamplingParams& defaults) {
  boost::system::error_code error;
  const json::value value = json::parse({line.data(), line.size()}, error);
  if (error) return absl::InvalidArgumentError(fmt::format("not JSON: {}", error.message()));
  RunRequest request;
  request.sampling = defaults;
  PromptSource& prompt = request.prompt;
  BATON_RETURN_IF_ERROR(ReadFields(
      value, "the request",
      {{"tokens", [&](const json::value& v) { return Read(v, "tokens", &prompt.tokens); }},
       {"prompt", [&](const json::value& v) { return Read(v, "prompt", &prompt.text); }},
       {"messages", [&](const json::value& v) { return ReadMessages(v, &prompt.messages); }},
       {"sampling", [&](const json::value& v) { return ReadSampling(v, &request); }}}));
  return request;
}

absl::StatusOr<std::vector<TokenId>> ParseTokenIds(std::string_view text) {
  std::vector<TokenId> tokens;
  const char* at = text.data();
  const char* const end = at + text.size();
  while (true) {
    while (at != end && (*at == ' ' || *at == '\n')) ++at;
    TokenId token = 0;
    const auto [next, error] = std::from_chars(at, end, token);
    if (error != std::errc()) break;
    tokens.push_back(token);
    at = next;
    while (at != end && (*at == ' ' || *at == '\n')) ++at;
    if (at == end) return tokens;
    if (*at++ != ',') break;
  }
  return absl::InvalidArgumentError(
      fmt::format("token ids must be numbers with commas between, not '{}'", text.substr(0, 80)));
}

absl::StatusOr<std::vector<TokenId>> PromptTokens(const PromptSource& prompt,
                                                  const text::Tokenizer& tokenizer,
                                                  const text::ChatTemplate* chat_template) {
  if (!prompt.tokens.empty()) return prompt.tokens;
  if (prompt.messages.empty()) {
    return tokenizer.EncodePrompt({{prompt.text, text::SpecialTokens::kPlainText}}, true);
  }
  if (chat_template == nullptr) {
    return absl::FailedPreconditionError("the model file has no chat template");
  }
  BATON_ASSIGN_OR_RETURN(const std::vector<text::TextPiece> pieces,
                         chat_template->Render(prompt.messages, true));
  return tokenizer.EncodePrompt(pieces, true);
}

std::string RunResultJson(const std::vector<TokenId>& prompt, const engine::GenerateResult& result,
                          const SamplingParams& sampling, const text::Tokenizer& tokenizer) {
  text::Detokenizer detokenizer(&tokenizer);
  json::array output;
  std::string text;
  for (const OutputToken& token : result.output) {
    output.push_back(token.token);
    text += detokenizer.Push(token.token);
  }
  text += detokenizer.Flush();
  const size_t prefilled = prompt.size() - static_cast<size_t>(result.cached_prompt_tokens);
  const size_t decoded = result.output.empty() ? 0 : result.output.size() - 1;
  const json::object object{
      {"prompt_tokens", json::array(prompt.begin(), prompt.end())},
      {"output_tokens", std::move(output)},
      {"text", text},
      {"finish_reason", result.finish == FinishReason::kStop ? "stop" : "length"},
      {"logprobs", sampling.logprobs < 0 ? json::value(nullptr) : LogprobsJson(result.output)},
      {"timings",
       {{"prefill_s", result.prefill_s},
        {"decode_s", result.decode_s},
        {"prefill_tokens_per_s", Rate(prefilled, result.prefill_s)},
        {"decode_tokens_per_s", Rate(decoded, result.decode_s)}}}};
  return json::serialize(object);
}

}  // namespace baton::cli
