#pragma once

// One JSON line for each request that has ended, written by a thread of its own.

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "router/record_queue.h"

namespace baton::router {

// Thread-safe. Lines are in the file within kPeriod, and all of them when it is destroyed. What
// cannot be written, because more than kCapacity wait or the disk is full, is counted and lost.
class AccessLog {
 public:
  static constexpr Duration kPeriod = std::chrono::milliseconds(100);
  static constexpr size_t kCapacity = 16384;

  // "-": standard output. PermissionDenied when the file cannot be opened for appending.
  static absl::StatusOr<std::unique_ptr<AccessLog>> Open(const std::string& path);
  ~AccessLog();
  AccessLog(const AccessLog&) = delete;
  AccessLog& operator=(const AccessLog&) = delete;

  void Put(RecordPtr record) { queue_.Put(std::move(record)); }
  // Later lines go to a new file of that name: the old one was moved away. Returns at once.
  void Reopen() { reopen_ = true; }

  uint64_t written() const { return written_; }
  uint64_t dropped() const { return queue_.dropped(); }
  uint64_t failed() const { return failed_; }

 private:
  struct Sink;

  AccessLog(std::string path, std::unique_ptr<Sink> sink);
  void Run();
  void OpenAgain();
  void Write(const std::vector<RecordPtr>& records);

  const std::string path_;
  std::unique_ptr<Sink> sink_;  // the thread's
  std::string line_;            // likewise
  RecordQueue queue_{kCapacity};
  std::atomic<bool> reopen_{false};
  std::atomic<uint64_t> written_{0};
  std::atomic<uint64_t> failed_{0};
  std::thread thread_;
};

}  // namespace baton::router
