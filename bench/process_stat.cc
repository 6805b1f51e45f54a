#include "bench/process_stat.h"

#include <fmt/format.h>
#include <sched.h>
#include <unistd.h>

#include <charconv>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

#include "common/status_macros.h"

namespace baton::bench {
namespace {

absl::StatusOr<std::string> ReadProc(pid_t pid, const char* name) {
  std::ifstream file(fmt::format("/proc/{}/{}", pid, name));
  if (!file) return absl::NotFoundError(fmt::format("there is no process {}", pid));
  return std::string(std::istreambuf_iterator<char>(file), {});
}

// The word number `index` of `text`, as a number; -1 when there is none.
int64_t NumberAt(std::string_view text, int index) {
  for (int i = 0; i < index; ++i) {
    const size_t space = text.find(' ');
    if (space == std::string_view::npos) return -1;
    text.remove_prefix(space + 1);
  }
  int64_t value = -1;
  std::from_chars(text.data(), text.data() + text.size(), value);
  return value;
}

}  // namespace

absl::StatusOr<double> CpuSecondsOf(std::string_view stat, double ticks_per_s) {
  // The second field is the program's name in parentheses, which may hold spaces and parentheses.
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string_view::npos || name_end + 2 > stat.size()) {
    return absl::InvalidArgumentError("no text of /proc/PID/stat");
  }
  const std::string_view rest = stat.substr(name_end + 2);  // from the third field on
  const int64_t user = NumberAt(rest, 11);
  const int64_t system = NumberAt(rest, 12);
  if (user < 0 || system < 0) return absl::InvalidArgumentError("no text of /proc/PID/stat");
  return static_cast<double>(user + system) / ticks_per_s;
}

absl::StatusOr<ProcessStat> ReadProcessStat(pid_t pid) {
  ProcessStat result;
  BATON_ASSIGN_OR_RETURN(const std::string stat, ReadProc(pid, "stat"));
  BATON_ASSIGN_OR_RETURN(result.cpu_s,
                         CpuSecondsOf(stat, static_cast<double>(sysconf(_SC_CLK_TCK))));
  BATON_ASSIGN_OR_RETURN(const std::string memory, ReadProc(pid, "statm"));
  const int64_t pages = NumberAt(memory, 1);
  if (pages < 0) return absl::NotFoundError(fmt::format("process {} has no memory any more", pid));
  result.resident_bytes = pages * sysconf(_SC_PAGESIZE);
  return result;
}

std::vector<int> AllowedCpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cpus;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &set)) cpus.push_back(cpu);
  }
  return cpus;
}

absl::Status PinProcess(pid_t pid, const std::vector<int>& cpus) {
  cpu_set_t set;
  CPU_ZERO(&set);
  for (const int cpu : cpus) CPU_SET(cpu, &set);
  std::error_code error;
  for (const auto& task :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), error)) {
    const std::string name = task.path().filename().string();
    pid_t thread = 0;
    std::from_chars(name.data(), name.data() + name.size(), thread);
    sched_setaffinity(thread, sizeof(set), &set);  // a thread that has just ended needs no CPU
  }
  if (error) return absl::NotFoundError(fmt::format("there is no process {}", pid));
  return absl::OkStatus();
}

}  // namespace baton::bench
