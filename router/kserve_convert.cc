#include "router/kserve_convert.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/json.hpp>
#include <cstring>
#include <optional>
#include <utility>
#include <vector>

#include "common/nearest_name.h"
#include "common/status_macros.h"
#include "router/openai_request.h"

namespace baton::router {
namespace {

namespace json = boost::json;
using inference::ModelInferRequest;
using inference::ModelInferResponse;

constexpr char kBytes[] = "BYTES";
constexpr char kBool[] = "BOOL";
constexpr size_t kLengthBytes = 4;

struct Tensor {
  const char* name;
  const char* datatype;
};
constexpr std::array<Tensor, 7> kInputs = {{{"text_input", kBytes},
                                            {"stream", kBool},
                                            {"sampling_parameters", kBytes},
                                            {"exclude_input_in_output", kBool},
                                            {"return_finish_reason", kBool},
                                            {"return_num_input_tokens", kBool},
                                            {"return_num_output_tokens", kBool}}};
constexpr std::array<Tensor, 4> kOutputs = {{{"text_output", kBytes},
                                             {"finish_reason", kBytes},
                                             {"num_input_tokens", "UINT32"},
                                             {"num_output_tokens", "UINT32"}}};

using InputTensor = ModelInferRequest::InferInputTensor;

absl::Status Wrong(const InputTensor& tensor, std::string_view what) {
  return absl::InvalidArgumentError(
      fmt::format("input '{}' {}", tensor.name().substr(0, 64), what));
}

absl::Status CheckTensor(const InputTensor& tensor) {
  std::vector<std::string> known;
  for (const Tensor& input : kInputs) {
    known.emplace_back(input.name);
    if (tensor.name() != input.name) continue;
    if (tensor.datatype() != input.datatype) {
      return Wrong(tensor, fmt::format("has the type {}, but must be {}",
                                       tensor.datatype().substr(0, 16), input.datatype));
    }
    int64_t elements = 1;
    for (const int64_t size : tensor.shape()) elements = size == 1 ? elements : 0;
    return elements == 1 ? absl::OkStatus() : Wrong(tensor, "must have one element");
  }
  return Wrong(tensor, "is not known" + DidYouMean(tensor.name(), known));
}

// The one element of a tensor, from wherever the client put it.
absl::StatusOr<std::string> BytesOf(const InputTensor& tensor, const std::string* raw) {
  if (raw == nullptr) {
    if (tensor.contents().bytes_contents_size() == 1) return tensor.contents().bytes_contents(0);
    return Wrong(tensor, "must have one element in bytes_contents");
  }
  uint32_t bytes = 0;
  if (raw->size() >= kLengthBytes) std::memcpy(&bytes, raw->data(), kLengthBytes);
  if (raw->size() < kLengthBytes || raw->size() - kLengthBytes != bytes) {
    return Wrong(tensor, fmt::format("has {} raw bytes, which are not one element", raw->size()));
  }
  return raw->substr(kLengthBytes);
}

absl::StatusOr<bool> BoolOf(const InputTensor& tensor, const std::string* raw) {
  if (raw == nullptr) {
    if (tensor.contents().bool_contents_size() == 1) return tensor.contents().bool_contents(0);
    return Wrong(tensor, "must have one element in bool_contents");
  }
  if (raw->size() != 1) return Wrong(tensor, "must have one raw byte");
  return raw->front() != 0;
}

// Triton's own examples give numbers as strings; HTTP's completions do not take them.
void Unquote(json::value& value) {
  if (!value.is_string()) return;
  boost::system::error_code error;
  const json::value inside = json::parse(value.get_string(), error);
  if (!error && (inside.is_number() || inside.is_bool())) value = inside;
}

absl::StatusOr<GenerateInput> ReadInput(const std::string& prompt, const std::string& parameters,
                                        const RequestLimits& limits) {
  json::object body;
  if (!parameters.empty()) {
    boost::system::error_code error;
    json::value parsed = json::parse(parameters, error);
    if (error || !parsed.is_object()) {
      return absl::InvalidArgumentError("'sampling_parameters' is not a JSON object");
    }
    body = std::move(parsed.get_object());
    for (const char* refused : {"prompt", "model", "stream"}) {
      if (body.contains(refused)) {
        return absl::InvalidArgumentError(
            fmt::format("'sampling_parameters' must not have '{}'", refused));
      }
    }
    for (json::key_value_pair& field : body) {
      if (field.key() != "stop") Unquote(field.value());
    }
    // vLLM's way to say that it is off.
    if (const json::value* top_k = body.if_contains("top_k"); top_k && *top_k == -1) {
      body.erase("top_k");
    }
  }
  body["prompt"] = prompt;
  std::string field;
  absl::StatusOr<OpenAiRequest> request =
      ParseOpenAiRequest(Endpoint::kCompletions, json::serialize(body), limits, &field);
  BATON_RETURN_IF_ERROR(request.status());
  if (request->choices() != 1) {
    return absl::InvalidArgumentError(
        fmt::format("'n' is {}, but must be 1 here", request->choices()));
  }
  return request->Choice(0);
}

void AddOutput(const Tensor& tensor, std::string raw, ModelInferResponse& response) {
  auto* const output = response.add_outputs();
  output->set_name(tensor.name);
  output->set_datatype(tensor.datatype);
  output->add_shape(1);
  response.add_raw_output_contents(std::move(raw));
}

std::string RawUint32(uint32_t value) {
  std::string raw(sizeof(value), '\0');
  std::memcpy(raw.data(), &value, sizeof(value));
  return raw;
}

std::string RawBytes(const std::string& bytes) {
  return RawUint32(static_cast<uint32_t>(bytes.size())) + bytes;
}

}  // namespace

absl::StatusOr<KserveCall> ToKserveCall(const ModelInferRequest& request,
                                        const RequestLimits& limits) {
  const bool raw = request.raw_input_contents_size() > 0;
  if (raw && request.raw_input_contents_size() != request.inputs_size()) {
    return absl::InvalidArgumentError(fmt::format("there are {} inputs, but {} raw contents",
                                                  request.inputs_size(),
                                                  request.raw_input_contents_size()));
  }
  KserveCall call;
  std::optional<std::string> prompt;
  std::optional<bool> exclude;
  std::string parameters;
  for (int i = 0; i < request.inputs_size(); ++i) {
    const InputTensor& tensor = request.inputs(i);
    const std::string* const bytes = raw ? &request.raw_input_contents(i) : nullptr;
    BATON_RETURN_IF_ERROR(CheckTensor(tensor));
    if (tensor.datatype() == kBytes) {
      BATON_ASSIGN_OR_RETURN(std::string value, BytesOf(tensor, bytes));
      if (tensor.name() == "text_input") {
        prompt = std::move(value);
      } else {
        parameters = std::move(value);
      }
      continue;
    }
    BATON_ASSIGN_OR_RETURN(const bool value, BoolOf(tensor, bytes));
    if (tensor.name() == "stream") call.stream = value;
    if (tensor.name() == "exclude_input_in_output") exclude = value;
    if (tensor.name() == "return_finish_reason") call.finish_reason = value;
    if (tensor.name() == "return_num_input_tokens") call.input_tokens = value;
    if (tensor.name() == "return_num_output_tokens") call.output_tokens = value;
  }
  if (!prompt) return absl::InvalidArgumentError("the input 'text_input' is missing");
  if (call.stream && exclude == false) {
    return absl::InvalidArgumentError(
        "'exclude_input_in_output' cannot be false with 'stream': pieces do not repeat the input");
  }
  call.repeat_prompt = !exclude.value_or(call.stream);
  BATON_ASSIGN_OR_RETURN(call.input, ReadInput(*prompt, parameters, limits));
  call.input.model = request.model_name();
  call.prompt = *std::move(prompt);
  return call;
}

ModelInferResponse ToResponse(const ModelInferRequest& request, const KserveCall& call,
                              const std::string& model, const std::string& text,
                              const Finish* finish) {
  ModelInferResponse response;
  response.set_model_name(model);
  response.set_model_version("1");
  response.set_id(request.id());
  (*response.mutable_parameters())["triton_final_response"].set_bool_param(finish != nullptr);
  AddOutput(kOutputs[0], RawBytes(text), response);
  if (finish == nullptr) return response;
  if (call.finish_reason) {
    AddOutput(kOutputs[1], RawBytes(finish->reason == FinishReason::kStop ? "stop" : "length"),
              response);
  }
  if (call.input_tokens) {
    AddOutput(kOutputs[2], RawUint32(static_cast<uint32_t>(finish->prompt_tokens)), response);
  }
  if (call.output_tokens) {
    AddOutput(kOutputs[3], RawUint32(static_cast<uint32_t>(finish->output_tokens)), response);
  }
  return response;
}

inference::ModelMetadataResponse KserveMetadata(const std::string& model) {
  inference::ModelMetadataResponse response;
  response.set_name(model);
  response.add_versions("1");
  response.set_platform("baton");
  const auto describe = [](const Tensor& tensor, auto* to) {
    to->set_name(tensor.name);
    to->set_datatype(tensor.datatype);
    to->add_shape(1);
  };
  for (const Tensor& input : kInputs) describe(input, response.add_inputs());
  for (const Tensor& output : kOutputs) describe(output, response.add_outputs());
  return response;
}

}  // namespace baton::router
