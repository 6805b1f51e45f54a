#pragma once

// What another process uses, as /proc tells it.

#include <sys/types.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baton::bench {

struct ProcessStat {
  double cpu_s = 0;  // of all its threads, user and system, since its start; in ticks of 10 ms
  int64_t resident_bytes = 0;
};
// NotFound when there is no such process.
absl::StatusOr<ProcessStat> ReadProcessStat(pid_t pid);
// CPU seconds out of the text of /proc/PID/stat.
absl::StatusOr<double> CpuSecondsOf(std::string_view stat, double ticks_per_s);

// CPUs that this process may run on.
std::vector<int> AllowedCpus();
// All threads that the process has now; those that they start later do as they do.
absl::Status PinProcess(pid_t pid, const std::vector<int>& cpus);

}  // namespace baton::bench
