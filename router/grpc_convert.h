#pragma once

// Between baton.v1 messages and the router's plain data.

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "baton/v1/baton.pb.h"
#include "router/dispatcher.h"
#include "router/request.h"

namespace baton::router {

// InvalidArgument when no input is given. Values are the dispatcher's to check.
absl::StatusOr<GenerateInput> ToInput(const v1::GenerateRequest& request);
absl::StatusOr<GenerateInput> ToInput(const v1::TokenizeRequest& request);
// Compiles it, which may take long. InvalidArgument names what is not supported.
absl::Status CheckConstraint(const GenerateInput& input);

v1::TokenDelta FromDelta(const Delta& delta, bool with_logprobs);
v1::Finish FromFinish(const Finish& finish);
v1::Model FromModel(const ModelInfo& model);
v1::Worker FromWorker(const WorkerView& worker);
v1::Discovery FromDiscovery(const DiscoveryView& source);

}  // namespace baton::router
