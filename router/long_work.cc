#include "router/long_work.h"

#include <fmt/format.h>

namespace baton::router {

bool MayCompile(std::string_view request) {
  for (const std::string_view sign :
       {"\"tools\"", "guided_", "response_format", "structured_outputs", "\"grammar\"", "\\u"}) {
    if (request.find(sign) != std::string_view::npos) return true;
  }
  return false;
}

LongWork::LongWork(size_t max_bytes) : max_bytes_(max_bytes) {
  for (size_t i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Run(); });
}

void LongWork::Finish() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

absl::Status LongWork::Do(size_t bytes, std::function<void()> work) {
  {
    const std::lock_guard lock(mutex_);
    if (stopping_) return absl::UnavailableError("the router is shutting down");
    if (bytes > max_bytes_ - waiting_bytes_) {
      return absl::ResourceExhaustedError(
          fmt::format("requests of {} bytes wait to be tokenized or compiled already, and at most "
                      "{} may: this one has {}",
                      waiting_bytes_, max_bytes_, bytes));
    }
    waiting_bytes_ += bytes;
    waiting_.emplace_back(bytes, std::move(work));
  }
  changed_.notify_one();
  return absl::OkStatus();
}

void LongWork::Run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return stopping_ || !waiting_.empty(); });
    if (waiting_.empty()) return;
    auto [bytes, work] = std::move(waiting_.front());
    waiting_.pop_front();
    waiting_bytes_ -= bytes;
    lock.unlock();
    work();
    work = nullptr;  // what it holds may end more than itself: not under the lock
    lock.lock();
  }
}

}  // namespace baton::router
