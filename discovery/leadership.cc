#include "discovery/leadership.h"

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

using etcdserverpb::Compare;
using etcdserverpb::KV;

class LeadershipImpl final : public Leadership {
 public:
  explicit LeadershipImpl(const LeadershipOptions& options)
      : options_(options),
        key_(options.etcd.prefix + options.key),
        session_(options.etcd),
        outage_(options.etcd.endpoints.size()),
        thread_([this] { Run(); }) {}
  ~LeadershipImpl() override;

  bool Leads() const override {
    const std::lock_guard lock(mutex_);
    return SystemClock().Now() < leads_until_;
  }
  std::string Leader() const override {
    const std::lock_guard lock(mutex_);
    return leader_;
  }

 private:
  void Run();
  // One sign of life, and a look at who leads.
  absl::Status Beat();
  // Takes the key where nobody has it.
  absl::Status TakeOrLook(TimePoint alive_since);
  void Note(bool leads, TimePoint until, const std::string& leader);

  const LeadershipOptions options_;
  const std::string key_;
  EtcdSession session_;
  Outage outage_;
  bool dialled_ = false;
  int64_t lease_ = 0;  // 0: none

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  TimePoint leads_until_;
  std::string leader_;
  std::thread thread_;  // last: it uses what is above
};

LeadershipImpl::~LeadershipImpl() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    leads_until_ = TimePoint();
    session_.Stop();
    wake_.notify_all();
  }
  thread_.join();
}

void LeadershipImpl::Run() {
  const Duration pause = std::chrono::duration_cast<Duration>(options_.ttl) / 3;
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    lock.unlock();
    const absl::Status beat = Beat();
    lock.lock();
    if (stopping_) break;
    if (beat.ok()) {
      outage_.OnSuccess();
    } else {
      dialled_ = false;
      leader_.clear();
      if (outage_.OnFailure()) {
        LogWarning(fmt::format("cannot ask {} who leads at {}: {}", options_.etcd.Where(), key_,
                               beat.ToString()));
      }
    }
    wake_.wait_for(lock, beat.ok() ? pause : outage_.Pause(), [this] { return stopping_; });
  }
  lock.unlock();
  if (lease_ == 0) return;
  const absl::Status revoked = session_.RevokeAtLast(lease_, !dialled_);
  if (revoked.ok()) return;
  LogWarning(fmt::format("{} stays taken for up to {} s: {}", key_, options_.ttl.count(),
                         revoked.ToString()));
}

absl::Status LeadershipImpl::Beat() {
  if (!dialled_) BATON_RETURN_IF_ERROR(session_.Dial());
  dialled_ = true;
  const TimePoint now = SystemClock().Now();
  if (lease_ != 0) {
    int64_t ttl_s = 0;
    BATON_RETURN_IF_ERROR(session_.KeepAlive(lease_, &ttl_s));
    if (ttl_s == 0) lease_ = 0;
  }
  if (lease_ == 0) BATON_RETURN_IF_ERROR(session_.Grant(options_.ttl.count(), &lease_));
  return TakeOrLook(now);
}

absl::Status LeadershipImpl::TakeOrLook(TimePoint alive_since) {
  etcdserverpb::TxnRequest request;
  Compare& nobody = *request.add_compare();
  nobody.set_key(key_);
  nobody.set_target(Compare::CREATE);
  nobody.set_result(Compare::EQUAL);
  nobody.set_create_revision(0);
  etcdserverpb::PutRequest& put = *request.add_success()->mutable_request_put();
  put.set_key(key_);
  put.set_value(options_.name);
  put.set_lease(lease_);
  request.add_failure()->mutable_request_range()->set_key(key_);
  etcdserverpb::TxnResponse response;
  BATON_RETURN_IF_ERROR(session_.Call(session_.kv(), &KV::Stub::Txn, request, &response));
  const TimePoint until = alive_since + std::chrono::duration_cast<Duration>(options_.ttl) * 3 / 4;
  if (response.succeeded()) {
    Note(true, until, options_.name);
    return absl::OkStatus();
  }
  if (response.responses_size() != 1 || response.responses(0).response_range().kvs_size() != 1) {
    return absl::UnavailableError(
        fmt::format("{}: {} is neither free nor anybody's", session_.endpoint(), key_));
  }
  const etcdserverpb::KeyValue& held = response.responses(0).response_range().kvs(0);
  Note(held.lease() == lease_, until, held.value());
  return absl::OkStatus();
}

void LeadershipImpl::Note(bool leads, TimePoint until, const std::string& leader) {
  const std::lock_guard lock(mutex_);
  if (leader_ != leader) {
    LogInfo(leads ? fmt::format("leads now, by {} at {}", key_, options_.etcd.Where())
                  : fmt::format("'{}' leads, by {} at {}", leader, key_, options_.etcd.Where()));
  }
  leader_ = leader;
  leads_until_ = leads && !stopping_ ? until : TimePoint();
}

}  // namespace

std::unique_ptr<Leadership> Leadership::Start(const LeadershipOptions& options) {
  return std::make_unique<LeadershipImpl>(options);
}

}  // namespace baton::discovery
