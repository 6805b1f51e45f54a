#include <sched.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <fstream>
#include <string>
#include <thread>

#include "kernels/ops.h"

namespace baton::kernels {
namespace {

constexpr double kNoLimit = 1e9;

// cgroup v2's cpu.max: "max 100000" or "150000 100000".
double QuotaV2(const std::string& folder) {
  std::ifstream file(folder + "/cpu.max");
  std::string quota;
  double period = 0;
  if (!(file >> quota >> period) || quota == "max" || period <= 0) return kNoLimit;
  return std::strtod(quota.c_str(), nullptr) / period;
}

// cgroup v1: a quota of -1 is none.
double QuotaV1(const std::string& folder) {
  std::ifstream quota_file(folder + "/cpu.cfs_quota_us");
  std::ifstream period_file(folder + "/cpu.cfs_period_us");
  double quota = 0;
  double period = 0;
  if (!(quota_file >> quota) || !(period_file >> period) || quota <= 0 || period <= 0) {
    return kNoLimit;
  }
  return quota / period;
}

// The smallest quota from `path` up to the root of the hierarchy: parents limit their children.
template <typename Quota>
double SmallestQuota(const std::string& mount, std::string path, Quota quota) {
  double smallest = quota(mount);
  while (!path.empty() && path != "/") {
    smallest = std::min(smallest, quota(mount + path));
    path.resize(path.find_last_of('/'));
  }
  return smallest;
}

double CgroupCpus() {
  double cpus = kNoLimit;
  std::ifstream groups("/proc/self/cgroup");  // lines "id:controllers:path"
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':');
    const size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string path = line.substr(second + 1);
    if (path.empty() || path[0] != '/') continue;
    if (controllers.empty()) {
      cpus = std::min(cpus, SmallestQuota("/sys/fs/cgroup", path, QuotaV2));
    } else if ((',' + controllers + ',').find(",cpu,") != std::string::npos) {
      cpus = std::min(cpus, SmallestQuota("/sys/fs/cgroup/cpu", path, QuotaV1));
    }
  }
  return cpus;
}

}  // namespace

std::vector<int32_t> AllowedCpus() {
  std::vector<int32_t> cpus;
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return cpus;
  for (int32_t cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (CPU_ISSET(cpu, &allowed)) cpus.push_back(cpu);
  }
  return cpus;
}

int32_t UsableCpus() {
  auto cpus = static_cast<int32_t>(AllowedCpus().size());
  if (cpus == 0) cpus = static_cast<int32_t>(std::thread::hardware_concurrency());
  const double quota = std::ceil(CgroupCpus());
  return std::max(1, quota < cpus ? static_cast<int32_t>(quota) : cpus);
}

}  // namespace baton::kernels
