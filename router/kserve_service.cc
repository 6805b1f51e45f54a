#include "router/kserve_service.h"

#include <fmt/format.h>

#include "router/grpc_caller.h"
#include "router/grpc_error.h"
#include "router/kserve_convert.h"

namespace baton::router {
namespace {

constexpr char kOnlyVersion[] = "1";

grpc::ServerUnaryReactor* AnswerAtOnce(grpc::CallbackServerContext* context,
                                       const absl::Status& status) {
  grpc::ServerUnaryReactor* const reactor = context->DefaultReactor();
  reactor->Finish(ToGrpcStatus(status));
  return reactor;
}

}  // namespace

absl::Status KserveService::CheckModel(const std::string& name, const std::string& version) const {
  if (!version.empty() && version != kOnlyVersion) {
    return absl::NotFoundError(
        fmt::format("model '{}' has the version {} only", name.substr(0, 128), kOnlyVersion));
  }
  for (const ModelInfo& model : backend_.dispatcher->Models()) {
    if (name.empty() || name == model.name) return absl::OkStatus();
  }
  return absl::NotFoundError(fmt::format("there is no model '{}'", name.substr(0, 128)));
}

grpc::ServerUnaryReactor* KserveService::ServerLive(grpc::CallbackServerContext* context,
                                                    const inference::ServerLiveRequest*,
                                                    inference::ServerLiveResponse* response) {
  response->set_live(true);
  return AnswerAtOnce(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ServerReady(grpc::CallbackServerContext* context,
                                                     const inference::ServerReadyRequest*,
                                                     inference::ServerReadyResponse* response) {
  response->set_ready(backend_.dispatcher->Ready());
  return AnswerAtOnce(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ModelReady(grpc::CallbackServerContext* context,
                                                    const inference::ModelReadyRequest* request,
                                                    inference::ModelReadyResponse* response) {
  const absl::Status known = CheckModel(request->name(), request->version());
  response->set_ready(known.ok() && backend_.dispatcher->Ready());
  return AnswerAtOnce(context, absl::OkStatus());
}

grpc::ServerUnaryReactor* KserveService::ServerMetadata(
    grpc::CallbackServerContext* context, const inference::ServerMetadataRequest*,
    inference::ServerMetadataResponse* response) {
  response->set_name("baton");
  response->set_version(kOnlyVersion);
  return AnswerAtOnce(context, CheckKey(backend_.gate, *context));
}

grpc::ServerUnaryReactor* KserveService::ModelMetadata(
    grpc::CallbackServerContext* context, const inference::ModelMetadataRequest* request,
    inference::ModelMetadataResponse* response) {
  absl::Status status = CheckKey(backend_.gate, *context);
  if (status.ok()) status = CheckModel(request->name(), request->version());
  if (status.ok()) *response = KserveMetadata(backend_.dispatcher->Models().front().name);
  return AnswerAtOnce(context, status);
}

grpc::ServerUnaryReactor* KserveService::ModelInfer(grpc::CallbackServerContext* context,
                                                    const inference::ModelInferRequest* request,
                                                    inference::ModelInferResponse* response) {
  return StartInfer(backend_, context, request, response);
}

grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
KserveService::ModelStreamInfer(grpc::CallbackServerContext* context) {
  return StartStreamInfer(backend_, context);
}

}  // namespace baton::router
