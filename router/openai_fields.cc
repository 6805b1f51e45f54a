#include "router/openai_fields.h"

#include <fmt/format.h>

#include <boost/json.hpp>

#include "common/nearest_name.h"
#include "common/status_macros.h"

namespace baton::router {
namespace {

namespace json = boost::json;

// Whether a value asks for nothing that Baton lacks.
using Harmless = bool (*)(const json::value&);

struct Field {
  std::string_view name;
  bool chat;
  bool completions;
  Harmless harmless = nullptr;  // set: the field is refused unless this holds for its value
};

bool Empty(const json::value& value) {
  if (value.is_array()) return value.get_array().empty();
  if (value.is_object()) return value.get_object().empty();
  return value.is_string() && value.get_string().empty();
}
bool Never(const json::value&) { return false; }
bool False(const json::value& value) { return value.is_bool() && !value.get_bool(); }
bool One(const json::value& value) { return value.is_number() && value.to_number<double>() == 1; }
bool NoTool(const json::value& value) {
  return value.is_string() && (value.get_string() == "none" || value.get_string() == "auto");
}
bool TextOnly(const json::value& value) {
  if (!value.is_array()) return false;
  for (const json::value& modality : value.get_array()) {
    if (!modality.is_string() || modality.get_string() != "text") return false;
  }
  return true;
}

constexpr Field kFields[] = {
    // What Baton reads.
    {"model", true, true},
    {"messages", true, false},
    {"prompt", false, true},
    {"n", true, true},
    {"best_of", false, true},
    {"stream", true, true},
    {"stream_options", true, true},
    {"max_tokens", true, true},
    {"max_completion_tokens", true, false},
    {"min_tokens", true, true},
    {"temperature", true, true},
    {"top_p", true, true},
    {"top_k", true, true},
    {"min_p", true, true},
    {"repetition_penalty", true, true},
    {"presence_penalty", true, true},
    {"frequency_penalty", true, true},
    {"logit_bias", true, true},
    {"seed", true, true},
    {"stop", true, true},
    {"stop_token_ids", true, true},
    {"ignore_eos", true, true},
    {"bad_words", true, true},
    {"allowed_token_ids", true, true},
    {"logprobs", true, true},
    {"top_logprobs", true, false},
    {"cache_salt", true, true},
    {"return_stats", true, true},
    {"return_token_ids", true, true},
    {"watermark", true, true},
    {"add_special_tokens", false, true},
    {"truncate_prompt_tokens", true, true},
    {"echo", false, true},
    {"add_generation_prompt", true, false},
    {"continue_final_message", true, false},
    {"skip_special_tokens", true, true},
    {"include_stop_str_in_output", true, true},
    {"prompt_logprobs", true, true},
    {"tools", true, false},
    {"tool_choice", true, false},
    {"parallel_tool_calls", true, false},
    {"response_format", true, true},
    {"structured_outputs", true, true},
    {"guided_json", true, true},
    {"guided_regex", true, true},
    {"guided_choice", true, true},
    {"session_id", true, true},
    {"prompt_cache_key", true, true},
    {"user", true, true},
    // OpenAI's, without effect on the answer here.
    {"guided_decoding_backend", true, true},
    {"spaces_between_special_tokens", true, true},
    {"metadata", true, false},
    {"store", true, false},
    {"service_tier", true, false},
    {"prediction", true, false},
    {"prompt_cache_retention", true, false},
    {"safety_identifier", true, false},
    // OpenAI's, not supported.
    {"suffix", false, true, Empty},
    {"functions", true, false, Empty},
    {"function_call", true, false, NoTool},
    {"logits_processors", true, true, Empty},
    {"chat_template", true, false, Never},
    {"chat_template_kwargs", true, false, Empty},
    {"documents", true, false, Empty},
    {"use_beam_search", true, true, False},
    {"length_penalty", true, true, One},
    {"prompt_embeds", false, true, Never},
    {"reasoning", true, false, Never},
    {"guided_grammar", true, true, Empty},
    {"guided_whitespace_pattern", true, true, Empty},
    {"structural_tag", true, true, Never},
    {"modalities", true, false, TextOnly},
    {"audio", true, false, Never},
    {"reasoning_effort", true, false, Never},
    {"verbosity", true, false, Never},
    {"web_search_options", true, false, Never},
};

bool Takes(const Field& field, Endpoint endpoint) {
  return endpoint == Endpoint::kChat ? field.chat : field.completions;
}

absl::Status Unknown(std::string_view name, Endpoint endpoint) {
  std::vector<std::string> known;
  for (const Field& field : kFields) {
    if (Takes(field, endpoint)) known.emplace_back(field.name);
    if (field.name == name) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is a field of {}, not of this endpoint", name,
                      endpoint == Endpoint::kChat ? "/v1/completions" : "/v1/chat/completions"));
    }
  }
  return absl::InvalidArgumentError(
      fmt::format("unknown field '{}'{}", name.substr(0, 64), DidYouMean(name, known)));
}

}  // namespace

absl::Status CheckFieldNames(Endpoint endpoint, const json::object& object, FieldReader& fields) {
  for (const json::key_value_pair& entry : object) {
    const std::string_view name(entry.key().data(), entry.key().size());
    const Field* known = nullptr;
    for (const Field& field : kFields) {
      if (field.name == name && Takes(field, endpoint)) known = &field;
    }
    fields.set_field(name.substr(0, 64));
    if (known == nullptr) return Unknown(name, endpoint);
    const bool refused =
        known->harmless != nullptr && !entry.value().is_null() && !known->harmless(entry.value());
    if (refused) {
      return absl::InvalidArgumentError(
          fmt::format("'{}' is not supported with this value; leave it out", name));
    }
  }
  return absl::OkStatus();
}

}  // namespace baton::router
