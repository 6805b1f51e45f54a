#pragma once

// Every kernel against the machine's ceilings.
//
// A row's ceiling is what the machine can do for this work, bound by what needs the most time for
// it (roofline.h): for products of many rows their arithmetic (INT8, BF16 or FP32 dots), for those
// of one row reading the weights, in the device's own layout, from DRAM. Products of one row,
// decode attention and ops that only move data are told in bytes, all else in operations.
// Activations come from the smallest cache that holds them. Ceilings are measured at the start and
// again every few seconds; the best so far counts, and the last rows are the best of all.

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "bench/ceilings.h"
#include "bench/report.h"
#include "bench/timing.h"
#include "kernels/ops.h"

namespace baton::bench {

struct KernelBenchOptions {
  int32_t threads = 0;  // 0: the CPUs that this process may use
  kernels::CpuIsa isa = kernels::CpuIsa::kAuto;
  std::string filter;  // regular expression, found anywhere in "name shape type"; "": all
  Repeats repeats;
  int64_t cycle_bytes = 0;    // weights and KV are spread over this much; 0: as the DRAM probe
  CeilingOptions ceilings;    // threads, isa and stop are set
  double ceilings_age_s = 3;  // they are measured again when they are older
  StopRequested stop = nullptr;
  std::function<void(const std::string& name)> progress = nullptr;  // told what is measured next
};

// Calls on_row for each kernel that the filter lets through, as it is measured, and last for each
// ceiling. InvalidArgument for a filter that is no expression or matches nothing, naming what there
// is; FailedPrecondition when the machine lacks `isa`; Cancelled on a stop.
absl::Status RunKernelBench(const KernelBenchOptions& options,
                            const std::function<void(const KernelRow&)>& on_row);

}  // namespace baton::bench
