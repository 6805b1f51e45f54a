#pragma once

// What takes longer than a thread that serves connections may be away: tokenizing long prompts,
// compiling constraints.

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <mutex>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/status.h"

namespace baton::router {

// Whether a request of these bytes may compile a constraint. A false alarm costs a change of
// thread.
bool MayCompile(std::string_view request);
inline constexpr size_t kLongRequestBytes = size_t{32} << 10;  // tokenizing more takes long

// Threads of its own, and a queue before them that is bounded by what waits in it. Thread-safe.
class LongWork {
 public:
  static constexpr size_t kThreads = 2;
  static constexpr size_t kMaxBytes = size_t{512} << 20;

  explicit LongWork(size_t max_bytes = kMaxBytes);
  ~LongWork() { Finish(); }

  // In turn; `bytes` are what the work holds while it waits. ResourceExhausted when too much does,
  // Unavailable after Finish: it is not done then.
  absl::Status Do(size_t bytes, std::function<void()> work);

  // Returns when all that was taken is done; no more is taken.
  void Finish();

 private:
  void Run();

  const size_t max_bytes_;
  std::mutex mutex_;  // guards the next four
  std::condition_variable changed_;
  std::deque<std::pair<size_t, std::function<void()>>> waiting_;
  size_t waiting_bytes_ = 0;
  bool stopping_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace baton::router
