#include "discovery/etcd_session.h"

#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <iterator>

#include "common/status_macros.h"

namespace baton::discovery {
namespace {

constexpr int kMaxAnswerBytes = 64 << 20;
// etcd takes no more pings than one in five seconds.
constexpr int kPingMs = 10'000;
constexpr int kPingTimeoutMs = 5'000;
constexpr Duration kLastWordsTimeout = std::chrono::seconds(1);
constexpr size_t kMaxPemBytes = 1 << 20;

absl::StatusOr<std::string> ReadPem(const std::string& path) {
  if (path.empty()) return "";
  std::ifstream file(path, std::ios::binary);
  std::string text(std::istreambuf_iterator<char>(file), {});
  if (file && !text.empty() && text.size() <= kMaxPemBytes) return text;
  return absl::InvalidArgumentError(fmt::format("{} cannot be read", path));
}

}  // namespace

EtcdSession::Context::Context(EtcdSession* session, Duration timeout) : session_(session) {
  if (timeout > Duration::zero()) {
    context_.set_deadline(std::chrono::system_clock::now() +
                          std::chrono::duration_cast<std::chrono::microseconds>(timeout));
  }
  if (!session_->token_.empty()) context_.AddMetadata("token", session_->token_);
  // A member that has lost the others ends its streams, instead of being silent.
  context_.AddMetadata("hasleader", "true");
  const std::lock_guard lock(session_->mutex_);
  if (session_->stopped_) context_.TryCancel();
  session_->under_way_.insert(&context_);
}

EtcdSession::Context::~Context() {
  const std::lock_guard lock(session_->mutex_);
  session_->under_way_.erase(&context_);
}

void EtcdSession::Stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  for (grpc::ClientContext* const context : under_way_) context->TryCancel();
}

absl::Status EtcdSession::ToStatus(const grpc::Status& status) const {
  if (status.ok()) return absl::OkStatus();
  return absl::Status(static_cast<absl::StatusCode>(status.error_code()),
                      fmt::format("{}: {}", endpoint_, status.error_message()));
}

absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> EtcdSession::Credentials() const {
  if (!options_.encrypted()) return grpc::InsecureChannelCredentials();
  grpc::SslCredentialsOptions pem;
  BATON_ASSIGN_OR_RETURN(pem.pem_root_certs, ReadPem(options_.tls.ca));
  BATON_ASSIGN_OR_RETURN(pem.pem_cert_chain, ReadPem(options_.tls.certificate));
  BATON_ASSIGN_OR_RETURN(pem.pem_private_key, ReadPem(options_.tls.key));
  return grpc::SslCredentials(pem);
}

absl::Status EtcdSession::Dial() {
  endpoint_ = options_.endpoints[next_++ % options_.endpoints.size()];
  token_.clear();
  grpc::ChannelArguments arguments;
  arguments.SetMaxReceiveMessageSize(kMaxAnswerBytes);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, kPingMs);
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIMEOUT_MS, kPingTimeoutMs);
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // Each dial is a connection of its own, and its failure is told at once.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  arguments.SetInt(GRPC_ARG_MIN_RECONNECT_BACKOFF_MS, kPingTimeoutMs);  // bounds a dial, too
  arguments.SetInt(GRPC_ARG_ENABLE_HTTP_PROXY, 0);
  BATON_ASSIGN_OR_RETURN(const auto credentials, Credentials());
  const auto channel = grpc::CreateCustomChannel(DialAddress(endpoint_), credentials, arguments);
  kv_ = etcdserverpb::KV::NewStub(channel);
  lease_ = etcdserverpb::Lease::NewStub(channel);
  watch_ = etcdserverpb::Watch::NewStub(channel);
  auth_ = etcdserverpb::Auth::NewStub(channel);
  return options_.user.empty() ? absl::OkStatus() : Authenticate();
}

absl::Status EtcdSession::Authenticate() {
  etcdserverpb::AuthenticateRequest request;
  request.set_name(options_.user);
  BATON_RETURN_IF_ERROR(ReadPassword(options_, request.mutable_password()));
  etcdserverpb::AuthenticateResponse response;
  BATON_RETURN_IF_ERROR(
      Call(auth_.get(), &etcdserverpb::Auth::Stub::Authenticate, request, &response));
  token_ = response.token();
  return absl::OkStatus();
}

absl::Status EtcdSession::Grant(int64_t ttl_s, int64_t* lease) {
  etcdserverpb::LeaseGrantRequest request;
  request.set_ttl(ttl_s);
  etcdserverpb::LeaseGrantResponse response;
  BATON_RETURN_IF_ERROR(
      Call(lease_.get(), &etcdserverpb::Lease::Stub::LeaseGrant, request, &response));
  if (response.id() == 0 || !response.error().empty()) {
    return absl::UnavailableError(fmt::format("{}: no lease: {}", endpoint_, response.error()));
  }
  *lease = response.id();
  return absl::OkStatus();
}

absl::Status EtcdSession::RevokeAtLast(int64_t lease, bool dial) {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = false;
  }
  if (dial) BATON_RETURN_IF_ERROR(Dial());
  etcdserverpb::LeaseRevokeRequest request;
  request.set_id(lease);
  etcdserverpb::LeaseRevokeResponse response;
  Context context(this, kLastWordsTimeout);
  const absl::Status revoked = ToStatus(lease_->LeaseRevoke(context.get(), request, &response));
  return absl::IsNotFound(revoked) ? absl::OkStatus() : revoked;
}

// A stream with one message each way: its deadline bounds the wait for the answer.
absl::Status EtcdSession::KeepAlive(int64_t lease, int64_t* ttl_s) {
  Context context(this, kCallTimeout);
  const auto stream = lease_->LeaseKeepAlive(context.get());
  etcdserverpb::LeaseKeepAliveRequest request;
  request.set_id(lease);
  etcdserverpb::LeaseKeepAliveResponse response;
  const bool sent = stream->Write(request);
  const bool answered = sent && stream->Read(&response);
  stream->WritesDone();
  if (answered) {
    *ttl_s = std::max<int64_t>(response.ttl(), 0);
    context.get()->TryCancel();
    stream->Finish();
    return absl::OkStatus();
  }
  const grpc::Status why = stream->Finish();
  return why.ok() ? absl::UnavailableError(fmt::format("{}: no answer", endpoint_)) : ToStatus(why);
}

}  // namespace baton::discovery
