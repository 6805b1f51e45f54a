#pragma once

// How fast this machine reads DRAM just now. On machines that are lent in parts it changes by the
// second, with what others do and with the cores that one happens to run on: so it is asked for
// beside every measurement that it is compared with.

#include <atomic>
#include <barrier>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include "kernels/cpu/isa_probes.h"
#include "kernels/cpu/large_buffer.h"

namespace baton::bench {

// Probes read whole multiples of this.
inline constexpr int64_t kReadUnit = 256 * kernels::kMaxProbeStreams;

// A way of reading memory: which is the fastest depends on the machine.
struct ReadPattern {
  int streams;
  int64_t ahead_bytes;
  // 0: all in order. Else pieces of so many bytes in no order, in one stream, and with ahead_bytes
  // each is fetched while the one before it is read.
  int64_t scattered_bytes = 0;
};

// Owns threads - 1 threads, which sleep between calls, and memory that each touched first. Used by
// the thread that made it.
class DramProbe {
 public:
  // `bytes` of all threads together, well beyond all caches.
  DramProbe(const kernels::IsaProbes& probes, int32_t threads, int64_t bytes);
  ~DramProbe();
  DramProbe(const DramProbe&) = delete;
  DramProbe& operator=(const DramProbe&) = delete;

  // Of all threads together, by the best of several patterns. Each thread reads its memory until
  // the first has done so: none waits for a slower one. Takes some 25 ms.
  double ReadGbS();
  // The same of pieces of piece_bytes, a multiple of kReadUnit, in no order: as blocks of a KV
  // cache lie.
  double ScatteredGbS(int64_t piece_bytes);

 private:
  double BestGbS(std::span<const ReadPattern> patterns);
  void Serve();
  void Read(const kernels::LargeBuffer& buffer);
  int64_t ReadInOrder(const kernels::LargeBuffer& buffer);
  int64_t ReadScattered(const kernels::LargeBuffer& buffer);

  const kernels::IsaProbes& probes_;
  const int64_t thread_bytes_;
  // Written by the owner while the others wait at the barrier.
  ReadPattern pattern_{};
  bool stopping_ = false;
  std::atomic<bool> done_{false};  // a thread has read all of its memory
  std::atomic<int64_t> read_bytes_{0};
  std::barrier<> barrier_;
  kernels::LargeBuffer own_;
  std::vector<std::thread> others_;
};

}  // namespace baton::bench
