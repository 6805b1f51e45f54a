#pragma once

// inference.GRPCInferenceService: the Open Inference Protocol over a Dispatcher. Internal to the
// gRPC server: includes gRPC.

#include "inference/grpc_service.grpc.pb.h"
#include "router/kserve_infer.h"

namespace baton::router {

class KserveService final : public inference::GRPCInferenceService::CallbackService {
 public:
  explicit KserveService(const GrpcBackend& backend) : backend_(backend) {}

  grpc::ServerUnaryReactor* ServerLive(grpc::CallbackServerContext* context,
                                       const inference::ServerLiveRequest* request,
                                       inference::ServerLiveResponse* response) override;
  grpc::ServerUnaryReactor* ServerReady(grpc::CallbackServerContext* context,
                                        const inference::ServerReadyRequest* request,
                                        inference::ServerReadyResponse* response) override;
  grpc::ServerUnaryReactor* ModelReady(grpc::CallbackServerContext* context,
                                       const inference::ModelReadyRequest* request,
                                       inference::ModelReadyResponse* response) override;
  grpc::ServerUnaryReactor* ServerMetadata(grpc::CallbackServerContext* context,
                                           const inference::ServerMetadataRequest* request,
                                           inference::ServerMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelMetadata(grpc::CallbackServerContext* context,
                                          const inference::ModelMetadataRequest* request,
                                          inference::ModelMetadataResponse* response) override;
  grpc::ServerUnaryReactor* ModelInfer(grpc::CallbackServerContext* context,
                                       const inference::ModelInferRequest* request,
                                       inference::ModelInferResponse* response) override;
  grpc::ServerBidiReactor<inference::ModelInferRequest, inference::ModelStreamInferResponse>*
  ModelStreamInfer(grpc::CallbackServerContext* context) override;

 private:
  // NotFound for a model or a version that is not served; "" is any.
  absl::Status CheckModel(const std::string& name, const std::string& version) const;

  const GrpcBackend backend_;
};

}  // namespace baton::router
