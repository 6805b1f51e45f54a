#include "grammar/background_constrainer.h"

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <utility>

#include "common/clock.h"
#include "common/status_macros.h"
#include "grammar/token_constrainer.h"

namespace baton::grammar {
namespace {

// A piece of work that takes longer makes its constraint one of those that wait.
constexpr Duration kLong = std::chrono::microseconds(500);

}  // namespace

// The queues, and the thread that takes from them.
class BackgroundConstrainer::Worker {
 public:
  struct Job {
    explicit Job(std::string text) : description(std::move(text)) {}

    const std::string description;
    // Under the worker's mutex.
    std::vector<TokenId> output;
    bool queued = false;
    bool answered = false;  // for `output`: what is below is the caller's until it asks again
    bool dropped = false;
    // The thread's, and the answer where `answered`.
    std::unique_ptr<TokenConstraint> matcher;
    bool slow = false;
    std::vector<TokenId> reading;
    absl::Status status;
    std::vector<uint64_t> allowed, last;
    bool may_end = false, must_end = false;
  };

  Worker(const std::vector<std::string_view>& token_texts, bool drops_first_space)
      : constrainer_(token_texts, drops_first_space), thread_([this] { Run(); }) {}

  ~Worker() { BATON_CHECK(!thread_.joinable(), "the thread is stopped first"); }

  void Stop() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wake_.notify_one();
    thread_.join();
  }

  bool Ask(const std::shared_ptr<Job>& job, std::span<const TokenId> output) {
    const std::lock_guard lock(mutex_);
    if (job->output.size() == output.size() && (job->answered || job->queued)) {
      return job->answered;
    }
    BATON_CHECK(output.size() >= job->output.size(), "output only grows");
    job->output.insert(job->output.end(), output.begin() + std::ssize(job->output), output.end());
    job->answered = false;
    Enqueue(job);
    return false;
  }

  // The thread ends what it is at, and forgets the job there.
  void Drop(const std::shared_ptr<Job>& job) {
    const std::lock_guard lock(mutex_);
    job->dropped = true;
    Enqueue(job);
  }

 private:
  void Enqueue(const std::shared_ptr<Job>& job) {
    if (stopping_ || std::exchange(job->queued, true)) return;
    (job->slow ? slow_ : fast_).push_back(job);
    wake_.notify_one();
  }

  void Run() {
    std::unique_lock lock(mutex_);
    while (true) {
      wake_.wait(lock, [this] { return stopping_ || !fast_.empty() || !slow_.empty(); });
      if (stopping_) return;
      std::deque<std::shared_ptr<Job>>& queue = fast_.empty() ? slow_ : fast_;
      const std::shared_ptr<Job> job = std::move(queue.front());
      queue.pop_front();
      const bool compiles = job->matcher == nullptr && !constrainer_.Has(job->description);
      job->queued = false;
      if (job->dropped) {
        job->matcher.reset();
        continue;
      }
      if (compiles && !std::exchange(job->slow, true)) {
        Enqueue(job);
        continue;
      }
      job->reading = job->output;
      job->queued = true;  // until its answer
      lock.unlock();
      const TimePoint begin = SystemClock().Now();
      const bool answered = Work(*job);
      const bool slow = SystemClock().Now() - begin > kLong;
      lock.lock();
      job->queued = false;
      job->slow = slow;
      job->answered = answered && job->reading.size() == job->output.size();
      if (!job->answered || job->dropped) Enqueue(job);
    }
  }

  // Whether there is an answer; else there is more to read.
  bool Work(Job& job) {
    if (job.matcher == nullptr) {
      absl::StatusOr<std::unique_ptr<TokenConstraint>> made = constrainer_.Create(job.description);
      job.status = made.status();
      if (!made.ok()) return true;
      job.matcher = *std::move(made);
    }
    if (!job.matcher->Ready(job.reading)) return false;
    const TokenConstraint::Next next = job.matcher->After(job.reading);
    job.allowed.assign(next.allowed.begin(), next.allowed.end());
    job.last.assign(next.last.begin(), next.last.end());
    job.may_end = next.may_end;
    job.must_end = next.must_end;
    return true;
  }

  TokenConstrainer constrainer_;  // the thread's
  std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<std::shared_ptr<Job>> fast_, slow_;  // guarded by mutex_
  bool stopping_ = false;                         // guarded by mutex_
  std::thread thread_;
};

class BackgroundConstrainer::Constraint final : public TokenConstraint {
 public:
  Constraint(std::shared_ptr<Worker> worker, std::string description)
      : worker_(std::move(worker)), job_(std::make_shared<Worker::Job>(std::move(description))) {}
  ~Constraint() override { worker_->Drop(job_); }
  Constraint(const Constraint&) = delete;
  Constraint& operator=(const Constraint&) = delete;

  bool Ready(std::span<const TokenId> output) override { return worker_->Ask(job_, output); }
  absl::Status status() const override { return job_->status; }
  Next After(std::span<const TokenId> output) override {
    BATON_CHECK(worker_->Ask(job_, output), "it was ready");
    return {job_->allowed, job_->last, job_->may_end, job_->must_end};
  }

 private:
  const std::shared_ptr<Worker> worker_;
  const std::shared_ptr<Worker::Job> job_;
};

BackgroundConstrainer::BackgroundConstrainer(const std::vector<std::string_view>& token_texts,
                                             bool drops_first_space)
    : worker_(std::make_shared<Worker>(token_texts, drops_first_space)) {}

BackgroundConstrainer::~BackgroundConstrainer() { worker_->Stop(); }

std::unique_ptr<TokenConstraint> BackgroundConstrainer::Create(std::string description) {
  return std::make_unique<Constraint>(worker_, std::move(description));
}

}  // namespace baton::grammar
