#pragma once

// Records on their way to the one thread that writes them out.
//
// A full queue drops what comes, and counts it. Putting wakes the thread only when half of the
// queue is taken: it comes by itself every so often, and a request costs no system call.

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "common/clock.h"
#include "router/request_record.h"

namespace baton::router {

using RecordPtr = std::shared_ptr<const RequestRecord>;

// Thread-safe.
class RecordQueue {
 public:
  explicit RecordQueue(size_t capacity) : capacity_(capacity) {}

  void Put(RecordPtr record) {
    {
      const std::lock_guard lock(mutex_);
      if (closed_ || records_.size() >= capacity_) {
        ++dropped_;
        return;
      }
      records_.push_back(std::move(record));
      if (records_.size() != (capacity_ + 1) / 2) return;
    }
    changed_.notify_one();
  }

  // All of them, after `period`, or when there are many or the queue is closed.
  std::vector<RecordPtr> Take(Duration period) {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, period, [this] { return closed_ || records_.size() * 2 >= capacity_; });
    return std::exchange(records_, {});
  }

  // What is in it may still be taken.
  void Close() {
    {
      const std::lock_guard lock(mutex_);
      closed_ = true;
    }
    changed_.notify_one();
  }

  // Waits until it is closed; false when it is not after `period`.
  bool WaitClosed(Duration period) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, period, [this] { return closed_; });
  }
  bool closed() const {
    const std::lock_guard lock(mutex_);
    return closed_;
  }
  uint64_t dropped() const { return dropped_; }

 private:
  const size_t capacity_;
  std::atomic<uint64_t> dropped_{0};
  mutable std::mutex mutex_;  // guards the next two
  std::vector<RecordPtr> records_;
  bool closed_ = false;
  std::condition_variable changed_;
};

}  // namespace baton::router
