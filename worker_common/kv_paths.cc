#include "worker_common/kv_paths.h"

#include <algorithm>
#include <tuple>

namespace baton::worker_common {
namespace {

using worker_link::KvPath;

constexpr double kBytesPerGb = 1e9;

// A way that is more worth telling comes first.
bool MoreTelling(const KvPath& a, const KvPath& b) {
  return std::tuple(!a.in_use, a.bytes_per_s / a.expected_bytes_per_s) <
         std::tuple(!b.in_use, b.bytes_per_s / b.expected_bytes_per_s);
}

}  // namespace

std::vector<KvPath> KvPathsOf(const std::vector<kv_transfer::MeasuredPath>& measured) {
  std::vector<KvPath> paths;
  for (const kv_transfer::MeasuredPath& path : measured) {
    paths.push_back({.source = path.peer_name,
                     .transport = path.transport,
                     .bytes_per_s = path.gb_per_s * kBytesPerGb,
                     .expected_bytes_per_s = path.expected_gb_per_s * kBytesPerGb,
                     .in_use = path.in_use});
  }
  // A worker that came back under its name may be here twice until its end is noticed.
  const auto key = [](const KvPath& path) { return std::tie(path.source, path.transport); };
  std::ranges::stable_sort(paths, MoreTelling);
  std::ranges::stable_sort(paths, {}, key);
  const auto repeated = std::ranges::unique(paths, {}, key);
  paths.erase(repeated.begin(), repeated.end());
  if (paths.size() > worker_link::kMaxKvPaths) {
    std::ranges::stable_sort(paths, MoreTelling);
    paths.resize(worker_link::kMaxKvPaths);
    std::ranges::stable_sort(paths, {}, key);
  }
  return paths;
}

}  // namespace baton::worker_common
