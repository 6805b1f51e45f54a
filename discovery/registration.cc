#include "discovery/registration.h"

#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "discovery/etcd_session.h"
#include "discovery/outage.h"

namespace baton::discovery {
namespace {

using etcdserverpb::KV;

class RegistrationImpl final : public Registration {
 public:
  RegistrationImpl(const RegistrationOptions& options, RegisteredWorker worker)
      : options_(options),
        session_(options.etcd),
        key_(KeyOf(options.etcd.prefix, worker.address)),
        outage_(options.etcd.endpoints.size()),
        worker_(std::move(worker)),
        thread_([this] { Run(); }) {}
  ~RegistrationImpl() override;

  void Update(const std::string& role, bool draining) override {
    const std::lock_guard lock(mutex_);
    if (worker_.role == role && worker_.draining == draining) return;
    worker_.role = role;
    worker_.draining = draining;
    ++version_;
    wake_.notify_all();
  }

 private:
  void Run();
  // One sign of life, with what is needed for it to be one.
  absl::Status Beat();
  absl::Status KeepLease();
  absl::Status Put(const RegisteredWorker& worker);
  absl::Status LookAtKey(const RegisteredWorker& worker);
  void TakeBack();
  void Wait(Duration pause);

  const RegistrationOptions options_;
  EtcdSession session_;
  const std::string key_;
  Outage outage_;
  bool dialled_ = false;
  int64_t lease_ = 0;         // 0: none
  uint64_t put_version_ = 0;  // of what the key says; 0: nothing of ours
  bool warned_of_other_ = false;

  std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  RegisteredWorker worker_;
  uint64_t version_ = 1;
  std::thread thread_;  // last: it uses what is above
};

RegistrationImpl::~RegistrationImpl() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    session_.Stop();
    wake_.notify_all();
  }
  thread_.join();
}

void RegistrationImpl::Run() {
  const ScopedLogName log_name(worker_.name);
  while (true) {
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    const absl::Status beat = Beat();
    if (beat.ok()) {
      if (outage_.OnSuccess()) {
        LogInfo(fmt::format("{} answers again: registered as {}", options_.etcd.Where(), key_));
      }
      Wait(std::chrono::duration_cast<Duration>(options_.ttl) / 3);
      continue;
    }
    dialled_ = false;
    {
      const std::lock_guard lock(mutex_);
      if (stopping_) break;
    }
    if (outage_.OnFailure()) {
      LogError(
          fmt::format("cannot register at {}: {}; new routers do not find this worker, and it "
                      "is tried again and again",
                      options_.etcd.Where(), beat.ToString()));
    }
    Wait(outage_.Pause());
  }
  TakeBack();
}

// Until it is time, or there is news to tell.
void RegistrationImpl::Wait(Duration pause) {
  std::unique_lock lock(mutex_);
  wake_.wait_for(lock, pause,
                 [this] { return stopping_ || (dialled_ && version_ != put_version_); });
}

absl::Status RegistrationImpl::Beat() {
  RegisteredWorker worker;
  uint64_t version = 0;
  {
    const std::lock_guard lock(mutex_);
    worker = worker_;
    version = version_;
  }
  if (!dialled_) BATON_RETURN_IF_ERROR(session_.Dial());
  dialled_ = true;
  BATON_RETURN_IF_ERROR(KeepLease());
  if (put_version_ == version) BATON_RETURN_IF_ERROR(LookAtKey(worker));
  if (put_version_ == version) return absl::OkStatus();
  BATON_RETURN_IF_ERROR(Put(worker));
  if (put_version_ == 0) {
    LogInfo(fmt::format("registered at {} as {} for {} s at a time", options_.etcd.Where(), key_,
                        options_.ttl.count()));
  }
  put_version_ = version;
  return absl::OkStatus();
}

absl::Status RegistrationImpl::KeepLease() {
  if (lease_ != 0) {
    int64_t ttl_s = 0;
    BATON_RETURN_IF_ERROR(session_.KeepAlive(lease_, &ttl_s));
    if (ttl_s > 0) return absl::OkStatus();
    LogWarning(fmt::format("the registration {} had run out after {} s without a sign of life",
                           key_, options_.ttl.count()));
    lease_ = 0;
    put_version_ = 0;
  }
  return session_.Grant(options_.ttl.count(), &lease_);
}

absl::Status RegistrationImpl::Put(const RegisteredWorker& worker) {
  etcdserverpb::PutRequest request;
  request.set_key(key_);
  request.set_value(ToJson(worker));
  request.set_lease(lease_);
  etcdserverpb::PutResponse response;
  return session_.Call(session_.kv(), &KV::Stub::Put, request, &response);
}

// Whether the key is still there, and still this worker's.
absl::Status RegistrationImpl::LookAtKey(const RegisteredWorker& worker) {
  etcdserverpb::RangeRequest request;
  request.set_key(key_);
  etcdserverpb::RangeResponse response;
  BATON_RETURN_IF_ERROR(session_.Call(session_.kv(), &KV::Stub::Range, request, &response));
  if (response.kvs().empty()) {
    LogWarning(fmt::format("the registration {} was deleted by somebody: it is put back", key_));
    put_version_ = 0;
    return absl::OkStatus();
  }
  if (response.kvs(0).lease() == lease_) {
    warned_of_other_ = false;
    return absl::OkStatus();
  }
  if (std::exchange(warned_of_other_, true)) return absl::OkStatus();
  const absl::StatusOr<RegisteredWorker> other = FromJson(response.kvs(0).value());
  LogError(
      fmt::format("another worker, '{}', has registered the address {} of '{}': give each its own "
                  "--advertise",
                  other.ok() ? other->name : "?", worker.address, worker.name));
  return absl::OkStatus();
}

// The key goes with its lease. Nobody waits for more than one try.
void RegistrationImpl::TakeBack() {
  if (lease_ == 0) return;
  const absl::Status revoked = session_.RevokeAtLast(lease_, !dialled_);
  if (revoked.ok()) return;
  LogWarning(fmt::format("the registration {} stays for up to {} s: {}", key_, options_.ttl.count(),
                         revoked.ToString()));
}

}  // namespace

std::unique_ptr<Registration> Registration::Start(const RegistrationOptions& options,
                                                  RegisteredWorker worker) {
  return std::make_unique<RegistrationImpl>(options, std::move(worker));
}

}  // namespace baton::discovery
