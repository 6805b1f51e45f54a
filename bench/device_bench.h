#pragma once

// The ops of a device with memory of its own, with the shapes of a model of 8 billion parameters,
// against what the device can do: its copy bandwidth, and products in the registers of its tensor
// cores. Attention and products of few rows are told in bytes, all else in operations.

#include <cstdint>
#include <functional>
#include <string>

#include "absl/status/status.h"
#include "bench/report.h"
#include "bench/timing.h"
#include "kernels/ops.h"

namespace baton::bench {

struct DeviceBenchOptions {
  std::string filter;  // regular expression, found anywhere in "name shape type"; "": all
  Repeats repeats;
  int32_t calls = 10;   // of an op, between two waits for the device
  int32_t divisor = 1;  // of all sizes, for tests
  StopRequested stop = nullptr;
  std::function<void(const std::string& name)> progress = nullptr;
};

// The rows of one call of any op: what `ops` must be made for.
inline constexpr int32_t kDeviceBenchRows = 8192;

// Calls on_row for each ceiling and measurement. InvalidArgument for a filter that is no expression
// or matches nothing; ResourceExhausted where the device has too little memory; Cancelled on a
// stop.
absl::Status RunDeviceBench(kernels::Ops* ops, const DeviceBenchOptions& options,
                            const std::function<void(const KernelRow&)>& on_row);

}  // namespace baton::bench
