#include "bench/dram_probe.h"

#include <algorithm>
#include <atomic>
#include <numeric>

#include "common/clock.h"

namespace baton::bench {
namespace {

constexpr ReadPattern kPatterns[] = {{1, 8192}, {2, 0}, {2, 1024}, {4, 0}, {4, 1024}};
constexpr int64_t kPieceBytes = int64_t{2} << 20;

std::atomic<uint64_t> result;  // keeps the loads alive

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
    barrier_.arrive_and_wait();
    Read(buffer);
    barrier_.arrive_and_wait();
  }
}

void DramProbe::Read(const kernels::LargeBuffer& buffer) {
  read_bytes_ += pattern_.scattered_bytes == 0 ? ReadInOrder(buffer) : ReadScattered(buffer);
  done_ = true;
}

int64_t DramProbe::ReadInOrder(const kernels::LargeBuffer& buffer) {
  int64_t at = 0;
  while (at < thread_bytes_ && !done_.load(std::memory_order_relaxed)) {
    const int64_t bytes = std::min(kPieceBytes, thread_bytes_ - at);
    result = probes_.read(buffer.data() + at, bytes, pattern_.streams, pattern_.ahead_bytes);
    at += bytes;
  }
  return at;
}

int64_t DramProbe::ReadScattered(const kernels::LargeBuffer& buffer) {
  const int64_t piece_bytes = pattern_.scattered_bytes;
  const int64_t pieces = thread_bytes_ / piece_bytes;
  // Far steps that come by every piece.
  int64_t step = pieces * 5 / 8 + 1;
  while (std::gcd(step, pieces) != 1) ++step;
  int64_t piece = 0;
  int64_t read = 0;
  while (read < pieces && !done_.load(std::memory_order_relaxed)) {
    const int64_t next = (piece + step) % pieces;
    const int64_t ahead_bytes = pattern_.ahead_bytes == 0 ? 0 : (next - piece) * piece_bytes;
    result = probes_.read(buffer.data() + piece * piece_bytes, piece_bytes, 1, ahead_bytes);
    piece = next;
    ++read;
  }
  return read * piece_bytes;
}

double DramProbe::ReadGbS() { return BestGbS(kPatterns); }

double DramProbe::ScatteredGbS(int64_t piece_bytes) {
  const ReadPattern patterns[] = {{1, 0, piece_bytes}, {1, 1, piece_bytes}};
  return BestGbS(patterns);
}

double DramProbe::BestGbS(std::span<const ReadPattern> patterns) {
  double best_gb_s = 0;
  for (const ReadPattern& pattern : patterns) {
    pattern_ = pattern;
    done_ = false;
    read_bytes_ = 0;
    barrier_.arrive_and_wait();  // wakes all
    // Before the others can begin: this thread may be held up, and must not miss their reading.
    const TimePoint start = SystemClock().Now();
    barrier_.arrive_and_wait();
    Read(own_);
    barrier_.arrive_and_wait();
    const double seconds = Seconds(SystemClock().Now() - start);
    best_gb_s = std::max(best_gb_s, static_cast<double>(read_bytes_) / seconds * 1e-9);
  }
  return best_gb_s;
}

}  // namespace baton::bench
