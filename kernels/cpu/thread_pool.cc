#include "kernels/cpu/thread_pool.h"

#include <pthread.h>
#include <sched.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include <chrono>
#include <utility>

namespace baton::kernels {
namespace {

// Long enough to bridge the single-threaded work between two loops of one step.
constexpr std::chrono::microseconds kSpin(60);
constexpr int kPausesPerClockRead = 64;

void Pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// In this scope denormal floats are zero, as operands and as results: they are no loss beside what
// rounding costs, and many processors take a hundred cycles for an operation on one.
class DenormalsAreZero {
 public:
#if defined(__SSE2__)
  DenormalsAreZero() : before_(_mm_getcsr()) { _mm_setcsr(before_ | 0x8040); }
  ~DenormalsAreZero() { _mm_setcsr(before_); }

 private:
  const unsigned before_;
#else
  DenormalsAreZero() {}
  ~DenormalsAreZero() {}
#endif
};

// Without effect where the system forbids it: a pinned thread is only faster.
void Pin(pthread_t thread, int32_t cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(cpu, &set);
  pthread_setaffinity_np(thread, sizeof set, &set);
}

}  // namespace

ThreadPool::ThreadPool(int32_t threads, std::vector<int32_t> cpus)
    : shares_(new Share[threads]), cpus_(std::move(cpus)) {
  for (int32_t thread = 1; thread < threads; ++thread) {
    workers_.emplace_back([this, thread] { WorkerLoop(thread); });
    if (!cpus_.empty()) Pin(workers_.back().native_handle(), cpus_[thread]);
  }
}

void ThreadPool::PinCaller() {
  if (cpus_.empty() || pinned_caller_ == std::this_thread::get_id()) return;
  Pin(pthread_self(), cpus_[0]);
  pinned_caller_ = std::this_thread::get_id();
}

ThreadPool::~ThreadPool() {
  stopping_.store(true);
  wakeups_.fetch_add(1);
  wakeups_.notify_all();
  for (std::thread& worker : workers_) worker.join();
}

void ThreadPool::Run(const Job& job) {
  const DenormalsAreZero scope;
  if (workers_.empty() || job.count <= job.grain) {
    for (int64_t begin = 0; begin < job.count; begin += job.grain) {
      const int64_t end = begin + job.grain < job.count ? begin + job.grain : job.count;
      job.call(job.context, begin, end, 0);
    }
    return;
  }
  job_ = job;
  CutShares(job);
  const uint64_t number = Number(gate_.load(std::memory_order_relaxed)) + 1;
  // Sequentially consistent against sleepers_: either this sees the sleeper, or the sleeper sees
  // the new gate before it sleeps.
  gate_.store(number << 32);
  if (sleepers_.load() > 0) {
    wakeups_.fetch_add(1);
    wakeups_.notify_all();
  }
  Claim(0);
  gate_.fetch_or(kClosed, std::memory_order_acq_rel);
  while ((gate_.load(std::memory_order_acquire) & kInside) != 0) Pause();
}

// Shares of whole grains.
void ThreadPool::CutShares(const Job& job) {
  const int64_t grains = (job.count + job.grain - 1) / job.grain;
  for (int32_t t = 0; t < threads(); ++t) {
    shares_[t].next.store(grains * t / threads() * job.grain, std::memory_order_relaxed);
    const int64_t end = grains * (t + 1) / threads() * job.grain;
    shares_[t].end = end < job.count ? end : job.count;
  }
}

void ThreadPool::Claim(int32_t thread) {
  for (int32_t i = 0; i < threads(); ++i) {
    Share& share = shares_[(thread + i) % threads()];
    while (share.next.load(std::memory_order_relaxed) < share.end) {
      const int64_t begin = share.next.fetch_add(job_.grain, std::memory_order_relaxed);
      if (begin >= share.end) break;
      const int64_t end = begin + job_.grain < share.end ? begin + job_.grain : share.end;
      job_.call(job_.context, begin, end, thread);
    }
  }
}

void ThreadPool::WorkerLoop(int32_t thread) {
  const DenormalsAreZero scope;
  uint64_t seen = 0;
  while (true) {
    uint64_t gate = WaitForJob(seen);
    if (stopping_.load(std::memory_order_relaxed)) return;
    if ((gate & kClosed) != 0) {  // it ended without this thread
      seen = Number(gate);
      continue;
    }
    if (!gate_.compare_exchange_weak(gate, gate + 1, std::memory_order_acq_rel)) continue;
    seen = Number(gate);
    Claim(thread);
    gate_.fetch_sub(1, std::memory_order_release);
  }
}

// The gate, once its number is not `seen`; anything when the pool is stopping.
uint64_t ThreadPool::WaitForJob(uint64_t seen) {
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < kPausesPerClockRead; ++i) {
      const uint64_t gate = gate_.load(std::memory_order_acquire);
      if (Number(gate) != seen) return gate;
      Pause();
    }
  } while (std::chrono::steady_clock::now() < deadline);
  while (!stopping_.load()) {
    const uint32_t wakeups = wakeups_.load();
    sleepers_.fetch_add(1);
    const uint64_t gate = gate_.load();
    if (Number(gate) == seen && !stopping_.load()) wakeups_.wait(wakeups);
    sleepers_.fetch_sub(1);
    const uint64_t fresh = gate_.load();
    if (Number(fresh) != seen) return fresh;
  }
  return 0;
}

}  // namespace baton::kernels
