#pragma once

// What this machine can do at most, measured: every share that a benchmark prints is of these,
// taken in the same run with the same number of threads and the same instruction set.

#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "absl/status/statusor.h"
#include "bench/dram_probe.h"
#include "bench/machine.h"
#include "bench/timing.h"
#include "kernels/ops.h"

namespace baton::bench {

// As many as a block of 16 tokens has of the keys of one head of 64 elements in F16.
inline constexpr int64_t kScatteredBytes = 2048;

// Of all threads together. GB/s are 1e9 bytes, GOP/s 1e9 operations a second, a multiplication and
// an addition being two.
struct Ceilings {
  int32_t threads = 1;
  std::string isa;  // "avx512"
  CacheSizes caches;
  int64_t dram_buffer_bytes = 0;  // of all threads together
  double dram_read_gb_s = 0;
  double scattered_read_gb_s = 0;  // of DRAM, in pieces of kScatteredBytes in no order
  double l3_read_gb_s = 0;         // that of DRAM where the threads' L2 caches are as large as L3
  double l2_read_gb_s = 0;
  double fp32_gop_s = 0;
  // Absent where the kernels of this instruction set have no such arithmetic.
  std::optional<double> bf16_gop_s;
  std::optional<double> int8_gop_s;

  // Whether reading `bytes`, spread over all threads, again and again is reading DRAM: of less than
  // twice the L3 caches, they may hold most.
  bool ComesFromDram(int64_t bytes) const { return bytes > 2 * caches.l3_bytes; }
  // The ceiling of reading them: of the smallest memory that holds half of them or more.
  double ReadGbS(int64_t bytes) const;

  // Each rate becomes the larger of the two. Others on the machine only ever make a measurement too
  // low, so a long benchmark measures again now and then.
  void RaiseTo(const Ceilings& later);
};

struct CeilingOptions {
  int32_t threads = 0;  // 0: the CPUs that this process may use
  kernels::CpuIsa isa = kernels::CpuIsa::kAuto;
  int32_t rounds = 25;  // of each probe; the best one counts, since others only disturb
  double round_ms = 5;
  // Of all threads together. 0: 8 times L3, or where that is over 1 GiB 3 times; 64 MiB a thread.
  int64_t dram_buffer_bytes = 0;
  StopRequested stop = nullptr;
};

// Takes one or two seconds, more where L3 has hundreds of MiB. Starts `threads` threads, each
// reading memory that it touched first, and ends them. FailedPrecondition when the machine lacks
// `isa`; InvalidArgument for options without sense; Cancelled on a stop.
absl::StatusOr<Ceilings> MeasureCeilings(const CeilingOptions& options);

// A probe of DRAM as MeasureCeilings uses it, for `options` that it accepts.
absl::StatusOr<std::unique_ptr<DramProbe>> MakeDramProbe(const CeilingOptions& options);

// The same as MeasureCeilings with a fifth of the rounds, for RaiseTo.
absl::Status MeasureAgain(const CeilingOptions& options, Ceilings* ceilings);

}  // namespace baton::bench
