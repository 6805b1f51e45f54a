#include "router/tgi_request.h"

#include <fmt/format.h>

#include <boost/json.hpp>
#include <utility>
#include <vector>

#include "common/status_macros.h"
#include "grammar/constraint.h"
#include "router/constraint_fields.h"
#include "router/json_fields.h"
#include "router/openai_fields.h"

namespace baton::router {
namespace {

namespace json = boost::json;

constexpr int32_t kDefaultNewTokens = 100;

// {"type": "json" | "regex" | "json_schema", "value": ...}.
absl::Status ReadGrammar(FieldReader& fields, SamplingParams& sampling) {
  const json::value* given = fields.Find("grammar");
  if (given == nullptr) return absl::OkStatus();
  const json::object* object = given->if_object();
  const json::value* type = object == nullptr ? nullptr : object->if_contains("type");
  const json::value* value = object == nullptr ? nullptr : object->if_contains("value");
  if (type == nullptr || value == nullptr || !type->is_string()) {
    return absl::InvalidArgumentError("'grammar' must be an object with 'type' and 'value'");
  }
  if (*type == "json") {
    BATON_ASSIGN_OR_RETURN(sampling.constraint, SchemaConstraint(*value, "grammar.value"));
  } else if (*type == "json_schema" && value->is_object() &&
             value->get_object().contains("schema")) {
    BATON_ASSIGN_OR_RETURN(sampling.constraint, SchemaConstraint(value->get_object().at("schema"),
                                                                 "grammar.value.schema"));
  } else if (*type == "regex" && value->is_string()) {
    sampling.constraint =
        grammar::RegexConstraint({value->get_string().data(), value->get_string().size()});
  } else {
    return absl::InvalidArgumentError(
        "'grammar' must be of type json, json_schema or regex, with a value of that kind");
  }
  const auto compiled = grammar::CompileConstraint(sampling.constraint);
  if (compiled.ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      fmt::format("'grammar' is not possible: {}", std::string(compiled.status().message())));
}

absl::Status RefuseUnsupported(FieldReader& fields) {
  float typical_p = 1;
  BATON_RETURN_IF_ERROR(fields.Read("typical_p", &typical_p));
  if (typical_p != 1) return absl::InvalidArgumentError("'typical_p' is not supported");
  int32_t best_of = 1;
  BATON_RETURN_IF_ERROR(fields.Read("best_of", &best_of));
  if (best_of != 1) return absl::InvalidArgumentError("'best_of' other than 1 is not supported");
  if (fields.Find("adapter_id") != nullptr) {
    return absl::InvalidArgumentError("'adapter_id' is not supported");
  }
  return absl::OkStatus();
}

// TGI samples when it is told to, or when anything is said that is about sampling.
absl::Status ReadTgiSampling(FieldReader& fields, bool stream, GenerateInput& input,
                             TgiOptions* options) {
  SamplingParams& sampling = input.sampling;
  bool do_sample = false;
  BATON_RETURN_IF_ERROR(fields.Read("do_sample", &do_sample));
  BATON_RETURN_IF_ERROR(fields.Read("temperature", &sampling.temperature));
  BATON_RETURN_IF_ERROR(fields.Read("top_k", &sampling.top_k));
  BATON_RETURN_IF_ERROR(fields.Read("top_p", &sampling.top_p));
  const bool warped = sampling.temperature != 1 || fields.Find("top_k") != nullptr ||
                      fields.Find("top_p") != nullptr;
  if (!do_sample && !warped) sampling.temperature = 0;
  BATON_RETURN_IF_ERROR(fields.Read("repetition_penalty", &sampling.repetition_penalty));
  BATON_RETURN_IF_ERROR(fields.Read("frequency_penalty", &sampling.frequency_penalty));
  BATON_RETURN_IF_ERROR(fields.Read("watermark", &sampling.watermark));
  BATON_RETURN_IF_ERROR(fields.Read("truncate", &input.truncate_prompt_tokens));
  BATON_RETURN_IF_ERROR(ReadGrammar(fields, sampling));
  sampling.logprobs = 0;
  BATON_RETURN_IF_ERROR(fields.Read("top_n_tokens", &sampling.logprobs));
  bool prompt_details = false;
  BATON_RETURN_IF_ERROR(fields.Read("decoder_input_details", &prompt_details));
  if (prompt_details && stream) {
    return absl::InvalidArgumentError("'decoder_input_details' is not for streams");
  }
  if (prompt_details) sampling.prompt_logprobs = 0;
  sampling.max_tokens = kDefaultNewTokens;
  input.has_max_tokens = true;
  BATON_RETURN_IF_ERROR(fields.Read("max_new_tokens", &sampling.max_tokens));
  if (const json::value* seed = fields.Find("seed")) {
    if (!seed->is_int64() || seed->get_int64() < 0) {
      return WrongType("seed", "an integer from 0 on", *seed);
    }
    sampling.seed = static_cast<uint64_t>(seed->get_int64());
    input.has_seed = options->has_seed = true;
    options->seed = sampling.seed;
  }
  return absl::OkStatus();
}

absl::Status ReadParameters(FieldReader& fields, bool stream, const RequestLimits& limits,
                            GenerateInput& input, TgiOptions* options) {
  BATON_RETURN_IF_ERROR(
      fields.CheckKnown({"adapter_id", "best_of", "decoder_input_details", "details", "do_sample",
                         "frequency_penalty", "grammar", "max_new_tokens", "repetition_penalty",
                         "return_full_text", "seed", "stop", "temperature", "top_k", "top_n_tokens",
                         "top_p", "truncate", "typical_p", "watermark"}));
  BATON_RETURN_IF_ERROR(RefuseUnsupported(fields));
  BATON_RETURN_IF_ERROR(ReadTgiSampling(fields, stream, input, options));
  BATON_RETURN_IF_ERROR(fields.Read("details", &options->details));
  BATON_RETURN_IF_ERROR(fields.Read("return_full_text", &options->full_text));
  const json::value* stop = fields.Find("stop");
  if (stop == nullptr) return absl::OkStatus();
  if (!stop->is_array()) return WrongType("stop", "an array of strings", *stop);
  if (stop->get_array().size() > limits.max_stop_strings) {
    return absl::InvalidArgumentError(
        fmt::format("there are {} stop strings, but at most {} are taken", stop->get_array().size(),
                    limits.max_stop_strings));
  }
  for (const json::value& text : stop->get_array()) {
    BATON_ASSIGN_OR_RETURN(input.stop.emplace_back(), JsonText(text, "stop"));
  }
  options->has_stop = !input.stop.empty();
  return absl::OkStatus();
}

absl::StatusOr<OpenAiRequest> ReadTgi(bool stream, const RequestLimits& limits, TgiOptions* options,
                                      FieldReader& fields, std::string* error_param) {
  OpenAiRequest request;
  request.endpoint = stream ? Endpoint::kGenerateStream : Endpoint::kGenerate;
  request.stream = stream;
  GenerateInput& input = request.prompts.emplace_back();
  BATON_RETURN_IF_ERROR(fields.CheckKnown({"inputs", "parameters", "stream"}));
  const json::value* inputs = fields.Find("inputs");
  if (inputs == nullptr) return absl::InvalidArgumentError("'inputs' is missing");
  BATON_ASSIGN_OR_RETURN(options->prompt, JsonText(*inputs, "inputs"));
  input.prompt = options->prompt;
  static const json::object kNoParameters;
  const json::value* parameters = fields.Find("parameters");
  if (parameters != nullptr && !parameters->is_object()) {
    return WrongType("parameters", "an object", *parameters);
  }
  FieldReader inside(parameters == nullptr ? kNoParameters : parameters->get_object());
  const absl::Status read = ReadParameters(inside, stream, limits, input, options);
  *error_param = inside.field();
  BATON_RETURN_IF_ERROR(read);
  error_param->clear();
  return request;
}

}  // namespace

absl::StatusOr<OpenAiRequest> ParseTgiRequest(std::string_view body, bool stream,
                                              const RequestLimits& limits, TgiOptions* options,
                                              std::string* error_param) {
  error_param->clear();
  BATON_ASSIGN_OR_RETURN(const json::value document, ParseJsonObject(body));
  FieldReader fields(document.get_object());
  auto request = ReadTgi(stream, limits, options, fields, error_param);
  if (!request.ok() && error_param->empty()) *error_param = fields.field();
  return request;
}

}  // namespace baton::router
