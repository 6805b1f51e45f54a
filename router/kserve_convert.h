#pragma once

// Between the Open Inference Protocol's tensors and the router's plain data. Internal to the gRPC
// server: includes protobuf.

#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "inference/grpc_service.pb.h"
#include "router/request.h"

namespace baton::router {

// A text generation as Triton's vLLM backend takes it.
struct KserveCall {
  GenerateInput input;
  bool stream = false;         // a response for each piece of text
  bool repeat_prompt = false;  // in front of the text
  bool finish_reason = false;  // further outputs
  bool input_tokens = false;
  bool output_tokens = false;
  std::string prompt;
};

// Inputs: text_input (BYTES); stream, exclude_input_in_output, return_finish_reason,
// return_num_input_tokens, return_num_output_tokens (BOOL); sampling_parameters (BYTES, a JSON
// object with the fields of HTTP's completions; numbers may be strings). Each has one element, in
// `contents` or in raw_input_contents. InvalidArgument names what is missing, unknown or unsound.
absl::StatusOr<KserveCall> ToKserveCall(const inference::ModelInferRequest& request,
                                        const RequestLimits& limits);

// `finish` null: more follows.
inference::ModelInferResponse ToResponse(const inference::ModelInferRequest& request,
                                         const KserveCall& call, const std::string& model,
                                         const std::string& text, const Finish* finish);

inference::ModelMetadataResponse KserveMetadata(const std::string& model);

}  // namespace baton::router
