#pragma once

// Threads that share loops over an index range.
//
// ParallelFor may be called by one thread at a time; that thread works too and never waits for a
// thread that has not yet begun: on a busy machine it simply does more of the loop itself. Idle
// threads spin for a short while, for the next loop of the same step, and then sleep. Allocates
// only at construction.
//
// Thread t begins with the t-th of equal shares of the range, in order, and helps with the others'
// shares after it. So loops over the same rows find them in the cache of the core that had them
// last, and a weight matrix is read in one stream by each core.

#include <atomic>
#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

namespace baton::kernels {

class ThreadPool {
 public:
  // `threads` includes the calling thread: threads - 1 are started. With `cpus`, thread t stays on
  // CPU cpus[t]: the started ones at once, the caller from PinCaller on.
  explicit ThreadPool(int32_t threads, std::vector<int32_t> cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  // Cheap when the caller is pinned already, or no CPUs were given.
  void PinCaller();

  int32_t threads() const { return static_cast<int32_t>(workers_.size()) + 1; }

  // Calls body(begin, end, thread) for disjoint ranges of at most `grain` indices that cover
  // [0, count); 0 <= thread < threads(). Returns when all are done; what they wrote is visible to
  // the caller. In `body` denormal floats are zero (x86), on every thread, so that its results do
  // not depend on which thread computed them. It must not throw.
  template <typename Body>
  void ParallelFor(int64_t count, int64_t grain, const Body& body) {
    Run(Job{[](const void* context, int64_t begin, int64_t end, int32_t thread) {
              (*static_cast<const Body*>(context))(begin, end, thread);
            },
            &body, count, grain});
  }

 private:
  struct Job {
    void (*call)(const void* context, int64_t begin, int64_t end, int32_t thread);
    const void* context;
    int64_t count;
    int64_t grain;
  };

  // What is left of one thread's share of the job.
  struct alignas(64) Share {
    std::atomic<int64_t> next;
    int64_t end;
  };

  void Run(const Job& job);
  void CutShares(const Job& job);
  void Claim(int32_t thread);
  void WorkerLoop(int32_t thread);
  uint64_t WaitForJob(uint64_t seen);

  // The gate of the current job: bits 32.. its number, bit 31 closed, below it the number of
  // workers inside. A worker enters an open gate by adding 1. The caller closes the gate when all
  // indices are claimed, waits until nobody is inside, and only then may change job_.
  static constexpr uint64_t kClosed = uint64_t{1} << 31;
  static constexpr uint64_t kInside = kClosed - 1;
  static uint64_t Number(uint64_t gate) { return gate >> 32; }

  Job job_{};
  std::unique_ptr<Share[]> shares_;  // [threads()]
  alignas(64) std::atomic<uint64_t> gate_{kClosed};
  alignas(64) std::atomic<uint32_t> wakeups_{0};
  std::atomic<int32_t> sleepers_{0};
  std::atomic<bool> stopping_{false};
  std::vector<std::thread> workers_;
  const std::vector<int32_t> cpus_;
  std::thread::id pinned_caller_;
};

}  // namespace baton::kernels
