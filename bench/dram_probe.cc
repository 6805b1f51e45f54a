#include "bench/dram_probe.h"

#include <algorithm>
#include <atomic>

#include "common/clock.h"

namespace baton::bench {
namespace {

constexpr ReadPattern kPatterns[] = {{1, 8192}, {2, 0}, {2, 1024}, {4, 0}, {4, 1024}};
constexpr int64_t kReadUnit = 256 * kernels::kMaxProbeStreams;

}  // namespace

DramProbe::DramProbe(const kernels::IsaProbes& probes, int32_t threads, int64_t bytes)
    : probes_(probes),
      thread_bytes_(std::max(bytes / threads / kReadUnit, int64_t{1}) * kReadUnit),
      barrier_(threads),
      own_(static_cast<size_t>(thread_bytes_)) {
  for (int32_t i = 1; i < threads; ++i) others_.emplace_back([this] { Serve(); });
}

DramProbe::~DramProbe() {
  stopping_ = true;
  barrier_.arrive_and_wait();
  for (std::thread& thread : others_) thread.join();
}

void DramProbe::Serve() {
  const kernels::LargeBuffer buffer(static_cast<size_t>(thread_bytes_));
  while (true) {
    barrier_.arrive_and_wait();
    if (stopping_) return;
    Read(buffer);
    barrier_.arrive_and_wait();
  }
}

void DramProbe::Read(const kernels::LargeBuffer& buffer) const {
  static std::atomic<uint64_t> result;
  result = probes_.read(buffer.data(), thread_bytes_, pattern_.streams, pattern_.ahead_bytes);
}

double DramProbe::ReadGbS() {
  const double bytes = static_cast<double>(thread_bytes_ * (std::ssize(others_) + 1));
  double best_gb_s = 0;
  for (const ReadPattern& pattern : kPatterns) {
    pattern_ = pattern;
    barrier_.arrive_and_wait();
    const TimePoint start = SystemClock().Now();
    Read(own_);
    barrier_.arrive_and_wait();
    best_gb_s = std::max(best_gb_s, bytes / Seconds(SystemClock().Now() - start) * 1e-9);
  }
  return best_gb_s;
}

}  // namespace baton::bench
