#include "discovery/worker_watch.h"

#include <fmt/format.h>

#include <condition_variable>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <utility>

#include "common/logging.h"
#include "common/status_macros.h"
#include "discovery/etcd_session.h"
#include "discovery/outage.h"

namespace baton::discovery {
namespace {

using etcdserverpb::KV;
using etcdserverpb::ResponseHeader;
using etcdserverpb::WatchResponse;

class WorkerWatchImpl final : public WorkerWatch {
 public:
  WorkerWatchImpl(const EtcdOptions& options, size_t max_workers, std::function<void()> on_change)
      : options_(options),
        max_workers_(max_workers),
        on_change_(std::move(on_change)),
        session_(options),
        keys_(KeysPrefix(options.prefix)),
        outage_(options.endpoints.size()),
        thread_([this] { Run(); }) {}
  ~WorkerWatchImpl() override {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
      session_.Stop();
      wake_.notify_all();
    }
    thread_.join();
  }

  std::vector<RegisteredWorker> Workers() const override;
  SourceState state() const override {
    const std::lock_guard lock(mutex_);
    SourceState state = state_;
    state.workers = workers_.size();
    return state;
  }
  int64_t lists() const override {
    const std::lock_guard lock(mutex_);
    return lists_;
  }

 private:
  using Keys = std::map<std::string, RegisteredWorker>;
  using Stream = grpc::ClientReaderWriter<etcdserverpb::WatchRequest, WatchResponse>;

  void Run();
  // Follows what happens until the connection, or the history, ends.
  absl::Status Follow();
  absl::Status List();
  absl::Status ReadChanges(Stream* stream);
  bool IsSameHistory(const ResponseHeader& header) const;
  void Note(const ResponseHeader& header);
  void Apply(const WatchResponse& response);
  // False for what is no worker: told, and left out.
  bool Take(const etcdserverpb::KeyValue& entry, Keys* workers);
  void NoteCurrent();
  void NoteFailure(const absl::Status& why);

  const EtcdOptions options_;
  const size_t max_workers_;
  const std::function<void()> on_change_;
  EtcdSession session_;
  const std::string keys_;
  Outage outage_;
  // The history that is known, and how far. The watch's thread's.
  uint64_t cluster_id_ = 0;
  uint64_t raft_term_ = 0;
  int64_t next_revision_ = 0;  // 0: nothing is known, or it is not good any more
  bool warned_of_size_ = false;

  mutable std::mutex mutex_;
  std::condition_variable wake_;
  bool stopping_ = false;
  Keys workers_;
  SourceState state_;
  int64_t lists_ = 0;
  std::thread thread_;  // last: it uses what is above
};

void WorkerWatchImpl::Run() {
  while (true) {
    const absl::Status why = Follow();
    std::unique_lock lock(mutex_);
    if (stopping_) return;
    lock.unlock();
    if (!why.ok()) NoteFailure(why);
    lock.lock();
    wake_.wait_for(lock, outage_.Pause(), [this] { return stopping_; });
    if (stopping_) return;
  }
}

absl::Status WorkerWatchImpl::Follow() {
  BATON_RETURN_IF_ERROR(session_.Dial());
  if (next_revision_ == 0) BATON_RETURN_IF_ERROR(List());
  EtcdSession::Context context(&session_, Duration::zero());
  const auto stream = session_.watch()->Watch(context.get());
  etcdserverpb::WatchRequest request;
  etcdserverpb::WatchCreateRequest* const create = request.mutable_create_request();
  create->set_key(keys_);
  create->set_range_end(PrefixEnd(keys_));
  create->set_start_revision(next_revision_);
  create->set_progress_notify(true);
  const bool sent = stream->Write(request);
  const absl::Status unusable = sent ? ReadChanges(stream.get()) : absl::OkStatus();
  context.get()->TryCancel();
  const grpc::Status ended = stream->Finish();
  if (!unusable.ok()) return unusable;
  return ended.ok()
             ? absl::UnavailableError(fmt::format("{}: the watch ended", session_.endpoint()))
             : session_.ToStatus(ended);
}

absl::Status WorkerWatchImpl::List() {
  etcdserverpb::RangeRequest request;
  request.set_key(keys_);
  request.set_range_end(PrefixEnd(keys_));
  request.set_limit(static_cast<int64_t>(max_workers_));
  etcdserverpb::RangeResponse response;
  BATON_RETURN_IF_ERROR(session_.Call(session_.kv(), &KV::Stub::Range, request, &response));
  Keys workers;
  for (const etcdserverpb::KeyValue& entry : response.kvs()) Take(entry, &workers);
  if (response.more()) {
    LogError(fmt::format("{} keys begin with {} at {}, but at most {} are served", response.count(),
                         keys_, options_.Where(), max_workers_));
  }
  cluster_id_ = response.header().cluster_id();
  raft_term_ = response.header().raft_term();
  next_revision_ = response.header().revision() + 1;
  {
    const std::lock_guard lock(mutex_);
    workers_ = std::move(workers);
    ++lists_;
    LogInfo(fmt::format("{} workers are registered under {} at revision {}", workers_.size(), keys_,
                        response.header().revision()));
  }
  NoteCurrent();
  on_change_();
  return absl::OkStatus();
}

// OkStatus when the stream has ended by itself: it knows why.
absl::Status WorkerWatchImpl::ReadChanges(Stream* stream) {
  WatchResponse response;
  while (stream->Read(&response)) {
    if (response.compact_revision() > 0) {
      LogInfo(fmt::format("changes since revision {} are compacted, up to {}: listing anew",
                          next_revision_, response.compact_revision()));
      next_revision_ = 0;
      return absl::OutOfRangeError("compacted");
    }
    if (response.canceled()) {
      next_revision_ = 0;
      return absl::UnavailableError(
          fmt::format("{}: watch cancelled: {}", session_.endpoint(), response.cancel_reason()));
    }
    if (!IsSameHistory(response.header())) {
      LogWarning(
          fmt::format("{} has another store, at revision {}, than that of revision {} before: "
                      "listing anew",
                      session_.endpoint(), response.header().revision(), next_revision_ - 1));
      next_revision_ = 0;
      return absl::OutOfRangeError("another store");
    }
    Apply(response);
  }
  return absl::OkStatus();
}

// A store that was made anew begins at the first revision and term.
bool WorkerWatchImpl::IsSameHistory(const ResponseHeader& header) const {
  return header.cluster_id() == cluster_id_ && header.raft_term() >= raft_term_ &&
         header.revision() + 1 >= next_revision_;
}

void WorkerWatchImpl::Apply(const WatchResponse& response) {
  raft_term_ = std::max(raft_term_, response.header().raft_term());
  NoteCurrent();
  if (response.events().empty()) {
    // Progress: everything up to here has been told. `created` says nothing of the kind.
    if (!response.created()) next_revision_ = response.header().revision() + 1;
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    for (const etcdserverpb::Event& event : response.events()) {
      const etcdserverpb::KeyValue& entry = event.kv();
      next_revision_ = entry.mod_revision() + 1;
      if (event.type() == etcdserverpb::Event::DELETE) {
        workers_.erase(entry.key());
      } else if (workers_.size() < max_workers_ || workers_.contains(entry.key())) {
        if (!Take(entry, &workers_)) workers_.erase(entry.key());
      } else if (!std::exchange(warned_of_size_, true)) {
        LogError(fmt::format("more than {} workers are registered under {}: the rest is not served",
                             max_workers_, keys_));
      }
    }
  }
  on_change_();
}

bool WorkerWatchImpl::Take(const etcdserverpb::KeyValue& entry, Keys* workers) {
  absl::StatusOr<RegisteredWorker> worker = FromJson(entry.value());
  if (!worker.ok()) {
    LogWarning(fmt::format("key {} is not a worker's: {}", entry.key().substr(0, 300),
                           std::string(worker.status().message())));
    return false;
  }
  (*workers)[entry.key()] = *std::move(worker);
  return true;
}

void WorkerWatchImpl::NoteCurrent() {
  const bool was_away = outage_.OnSuccess();
  const std::lock_guard lock(mutex_);
  const bool first = !state_.current && state_.failures == 0;
  state_.current = true;
  state_.trouble.clear();
  if (was_away) LogInfo(fmt::format("{} answers again", options_.Where()));
  if (first) LogInfo(fmt::format("watching {} at {}", keys_, session_.endpoint()));
}

void WorkerWatchImpl::NoteFailure(const absl::Status& why) {
  if (absl::IsOutOfRange(why)) return;  // told where it was found; the next list is under way
  const bool news = outage_.OnFailure();
  const std::lock_guard lock(mutex_);
  state_.current = false;
  state_.trouble = why.ToString();
  ++state_.failures;
  if (!news) return;
  LogError(lists_ == 0 ? fmt::format("{} cannot be asked for workers: {}; none are known yet",
                                     options_.Where(), why.ToString())
                       : fmt::format("{} is lost: {}; going on with the {} workers known last",
                                     options_.Where(), why.ToString(), workers_.size()));
}

std::vector<RegisteredWorker> WorkerWatchImpl::Workers() const {
  const std::lock_guard lock(mutex_);
  std::vector<RegisteredWorker> all;
  std::set<std::string> seen;
  for (const auto& [key, worker] : workers_) {
    if (seen.insert(worker.address).second) all.push_back(worker);
  }
  return all;
}

}  // namespace

std::unique_ptr<WorkerWatch> WorkerWatch::Start(const EtcdOptions& options, size_t max_workers,
                                                std::function<void()> on_change) {
  return std::make_unique<WorkerWatchImpl>(options, max_workers, std::move(on_change));
}

}  // namespace baton::discovery
