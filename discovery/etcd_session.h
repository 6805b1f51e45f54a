#pragma once

// A connection to one of etcd's endpoints, and calls on it. Internal to the room: includes gRPC.

#include <grpcpp/grpcpp.h>

#include <memory>
#include <mutex>
#include <set>
#include <string>

#include "absl/status/status.h"
#include "common/clock.h"
#include "discovery/etcd_options.h"
#include "etcd/rpc.grpc.pb.h"

namespace baton::discovery {

// One thread dials and calls; any thread stops it.
class EtcdSession {
 public:
  explicit EtcdSession(EtcdOptions options) : options_(std::move(options)) {}

  // Dials the next endpoint, and says who asks where a user is given. A failure names the endpoint.
  absl::Status Dial();
  const std::string& endpoint() const { return endpoint_; }

  // Calls `method` of `stub` and waits for its answer, kCallTimeout at most.
  template <typename Stub, typename Request, typename Response>
  absl::Status Call(Stub* stub,
                    grpc::Status (Stub::*method)(grpc::ClientContext*, const Request&, Response*),
                    const Request& request, Response* response) {
    Context context(this, kCallTimeout);
    return ToStatus((stub->*method)(context.get(), request, response));
  }
  absl::Status Grant(int64_t ttl_s, int64_t* lease);
  // How long the lease has from now on, in seconds; 0: there is no such lease (any more).
  absl::Status KeepAlive(int64_t lease, int64_t* ttl_s);

  etcdserverpb::KV::Stub* kv() { return kv_.get(); }
  etcdserverpb::Lease::Stub* lease() { return lease_.get(); }
  etcdserverpb::Watch::Stub* watch() { return watch_.get(); }

  // One try of a second, also after Stop: the last words. `dial`: to the next endpoint, first. Ok
  // where there is no such lease.
  absl::Status RevokeAtLast(int64_t lease, bool dial);

  // Ends the call under way; those after it end at once. Any thread.
  void Stop();
  // A call's context while it is under way, so that Stop reaches it.
  class Context {
   public:
    // `timeout` zero: none.
    Context(EtcdSession* session, Duration timeout);
    ~Context();
    Context(const Context&) = delete;
    Context& operator=(const Context&) = delete;
    grpc::ClientContext* get() { return &context_; }

   private:
    EtcdSession* const session_;
    grpc::ClientContext context_;
  };

  absl::Status ToStatus(const grpc::Status& status) const;  // with the endpoint

 private:
  static constexpr Duration kCallTimeout = std::chrono::seconds(3);

  absl::Status Authenticate();
  absl::StatusOr<std::shared_ptr<grpc::ChannelCredentials>> Credentials() const;

  const EtcdOptions options_;
  size_t next_ = 0;
  std::string endpoint_, token_;
  std::unique_ptr<etcdserverpb::KV::Stub> kv_;
  std::unique_ptr<etcdserverpb::Lease::Stub> lease_;
  std::unique_ptr<etcdserverpb::Watch::Stub> watch_;
  std::unique_ptr<etcdserverpb::Auth::Stub> auth_;

  std::mutex mutex_;
  bool stopped_ = false;
  std::set<grpc::ClientContext*> under_way_;
};

}  // namespace baton::discovery
