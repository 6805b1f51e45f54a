#include "router/text_calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <boost/json.hpp>
#include <utility>

#include "common/status_macros.h"
#include "router/json_fields.h"
#include "router/json_text.h"
#include "router/openai_answer_parts.h"
#include "router/openai_fields.h"
#include "router/openai_prompt.h"
#include "router/tool_fields.h"

namespace baton::router {
namespace {

namespace json = boost::json;

absl::StatusOr<std::string> Tokenized(const Dispatcher& dispatcher, const RequestLimits& limits,
                                      FieldReader& fields) {
  BATON_RETURN_IF_ERROR(
      fields.CheckKnown({"model", "prompt", "messages", "tools", "add_special_tokens",
                         "add_generation_prompt", "continue_final_message", "return_token_strs"}));
  GenerateInput input;
  bool token_texts = false;
  BATON_RETURN_IF_ERROR(fields.Read("model", &input.model));
  BATON_RETURN_IF_ERROR(fields.Read("add_special_tokens", &input.add_special_tokens));
  BATON_RETURN_IF_ERROR(fields.Read("return_token_strs", &token_texts));
  BATON_RETURN_IF_ERROR(ReadAnswerPlace(fields, &input));
  if (const json::value* messages = fields.Find("messages")) {
    BATON_ASSIGN_OR_RETURN(input.prompt, ReadMessages(*messages, limits));
    BATON_ASSIGN_OR_RETURN(ToolUse use, ReadTools(fields));
    input.tools = std::move(use.tools);
  } else {
    const json::value* prompt = fields.Find("prompt");
    if (prompt == nullptr) {
      return absl::InvalidArgumentError("'prompt' is missing, and so is 'messages'");
    }
    BATON_ASSIGN_OR_RETURN(input.prompt, JsonText(*prompt, "prompt"));
  }
  BATON_ASSIGN_OR_RETURN(const std::vector<TokenId> tokens, dispatcher.Tokenize(input));
  const std::vector<ModelInfo> models = dispatcher.Models();
  std::string body = fmt::format(R"({{"count":{},"max_model_len":{},"tokens":)", tokens.size(),
                                 models.empty() ? 0 : models.front().context_tokens);
  AppendTokenIds(tokens, &body);
  body += R"(,"token_strs":)";
  if (!token_texts) return body + "null}";
  for (size_t i = 0; i < tokens.size(); ++i) {
    BATON_ASSIGN_OR_RETURN(const std::string text, dispatcher.Detokenize(input.model, {tokens[i]}));
    body += i == 0 ? '[' : ',';
    AppendJsonString(text, &body);
  }
  return body + (tokens.empty() ? "[]}" : "]}");
}

absl::StatusOr<std::string> Detokenized(const Dispatcher& dispatcher, FieldReader& fields) {
  BATON_RETURN_IF_ERROR(fields.CheckKnown({"model", "tokens"}));
  std::string model;
  BATON_RETURN_IF_ERROR(fields.Read("model", &model));
  const json::value* tokens = fields.Find("tokens");
  if (tokens == nullptr) return absl::InvalidArgumentError("'tokens' is missing");
  if (!tokens->is_array()) return WrongType("tokens", "an array of token ids", *tokens);
  BATON_ASSIGN_OR_RETURN(const std::vector<TokenId> ids, JsonTokens(tokens->get_array(), "tokens"));
  BATON_ASSIGN_OR_RETURN(const std::string text, dispatcher.Detokenize(model, ids));
  std::string body = R"({"prompt":)";
  AppendJsonString(text, &body);
  return body + "}";
}

}  // namespace

absl::StatusOr<std::string> AnswerTokenize(const Dispatcher& dispatcher, std::string_view body,
                                           const RequestLimits& limits, std::string* error_param) {
  BATON_ASSIGN_OR_RETURN(const json::value document, ParseJsonObject(body));
  FieldReader fields(document.get_object());
  auto answer = Tokenized(dispatcher, limits, fields);
  if (!answer.ok()) *error_param = fields.field();
  return answer;
}

absl::StatusOr<std::string> AnswerDetokenize(const Dispatcher& dispatcher, std::string_view body,
                                             std::string* error_param) {
  BATON_ASSIGN_OR_RETURN(const json::value document, ParseJsonObject(body));
  FieldReader fields(document.get_object());
  auto answer = Detokenized(dispatcher, fields);
  if (!answer.ok()) *error_param = fields.field();
  return answer;
}

}  // namespace baton::router
