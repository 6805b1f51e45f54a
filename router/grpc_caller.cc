#include "router/grpc_caller.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "router/http_error.h"

namespace baton::router {

namespace {

// "" where there is none.
std::string_view MetadataOf(const grpc::CallbackServerContext& context, const char* name) {
  const auto found = context.client_metadata().find(name);
  if (found == context.client_metadata().end()) return {};
  return {found->second.data(), found->second.size()};
}

// "ipv4:127.0.0.1:5000", "ipv6:%5B::1%5D:5000" to the address alone.
std::string AddressOf(std::string_view peer) {
  peer = peer.substr(0, peer.rfind(':'));
  peer.remove_prefix(std::min(peer.size(), peer.find(':') + 1));
  if (peer.starts_with("%5B") && peer.ends_with("%5D")) peer = peer.substr(3, peer.size() - 6);
  return std::string(peer);
}

}  // namespace

std::string AuthorizationOf(const grpc::CallbackServerContext& context) {
  return std::string(MetadataOf(context, "authorization"));
}

std::shared_ptr<const CallInfo> GrpcCalls::Begin(const grpc::CallbackServerContext& context,
                                                 std::string_view method) {
  auto call = std::make_shared<CallInfo>();
  const std::string_view id = SoundRequestId(MetadataOf(context, "x-request-id"));
  call->request_id = id.empty() ? ids_.Next() : std::string(id);
  call->client = AddressOf(context.peer());
  call->endpoint = method;
  call->received = SystemClock().Now();
  call->arrival_us = UnixMicroseconds();
  if (telemetry_ != nullptr) {
    call->trace =
        telemetry_->TraceOf(MetadataOf(context, "traceparent"), MetadataOf(context, "tracestate"));
  }
  return call;
}

void GrpcCalls::Tell(const CallInfo& call, grpc::CallbackServerContext* context) {
  context->AddInitialMetadata("x-request-id", call.request_id);
  if (call.trace.on()) context->AddInitialMetadata("traceparent", Traceparent(call.trace));
}

void GrpcCalls::Refused(std::shared_ptr<const CallInfo> call, const absl::Status& why) const {
  if (telemetry_ == nullptr) return;
  const Duration took = SystemClock().Now() - call->received;
  telemetry_->Ended(RecordOfCall(std::move(call), ToHttpError(why).status, why, took));
}

absl::StatusOr<std::shared_ptr<Visit>> ComeIn(KeyGate* gate, const Dispatcher& dispatcher,
                                              const grpc::CallbackServerContext& context) {
  return ComeIn(gate, dispatcher, AuthorizationOf(context));
}

absl::Status CheckKey(const KeyGate* gate, const grpc::CallbackServerContext& context) {
  return gate == nullptr ? absl::OkStatus() : gate->Check(AuthorizationOf(context));
}

Duration TimeLeft(const grpc::CallbackServerContext& context) {
  using std::chrono::system_clock;
  const system_clock::time_point deadline = context.deadline();
  const system_clock::time_point now = system_clock::now();
  constexpr auto kNever = std::chrono::hours(24 * 365);  // as good as none
  if (deadline - now > kNever) return Duration::zero();
  return std::max<Duration>(std::chrono::duration_cast<Duration>(deadline - now),
                            std::chrono::milliseconds(1));
}

}  // namespace baton::router
