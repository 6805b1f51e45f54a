#include "router/replicas_file.h"

#include <fmt/format.h>

#include <cstdio>
#include <fstream>
#include <optional>

#include "common/status_macros.h"

namespace baton::router {
namespace {

using worker_link::Role;

class FileExecutor final : public PlanExecutor {
 public:
  explicit FileExecutor(std::string path) : path_(std::move(path)) {}

  absl::StatusOr<int64_t> Replicas(Role role) override {
    BATON_ASSIGN_OR_RETURN(const ReplicaCounts counts, ReadReplicas(path_));
    return role == Role::kPrefill ? counts.prefill : counts.decode;
  }

  absl::Status SetReplicas(Role role, int64_t replicas) override {
    BATON_ASSIGN_OR_RETURN(ReplicaCounts counts, ReadReplicas(path_));
    (role == Role::kPrefill ? counts.prefill : counts.decode) = replicas;
    return WriteReplicas(path_, counts);
  }

 private:
  const std::string path_;
};

}  // namespace

absl::StatusOr<ReplicaCounts> ReadReplicas(const std::string& path) {
  std::ifstream file(path);
  if (!file) return absl::NotFoundError(fmt::format("cannot read {}", path));
  std::optional<int64_t> prefill, decode;
  std::string role;
  int64_t count = 0;
  bool sound = true;
  for (int line = 0; line < 2 && file >> role >> count; ++line) {
    sound = sound && count >= 0 && count <= kMostFileReplicas;
    if (role == RoleName(Role::kPrefill)) {
      prefill = count;
    } else if (role == RoleName(Role::kDecode)) {
      decode = count;
    }
  }
  const bool more = static_cast<bool>(file >> role);
  if (sound && prefill && decode && !more) return ReplicaCounts{*prefill, *decode};
  return absl::InvalidArgumentError(
      fmt::format("{} must have two lines, 'prefill N' and 'decode N', with N up to {}", path,
                  kMostFileReplicas));
}

absl::Status WriteReplicas(const std::string& path, const ReplicaCounts& counts) {
  for (const int64_t count : {counts.prefill, counts.decode}) {
    if (count >= 0 && count <= kMostFileReplicas) continue;
    return absl::InvalidArgumentError(
        fmt::format("{} replicas: must be 0 to {}", count, kMostFileReplicas));
  }
  const std::string fresh = path + ".new";
  std::ofstream file(fresh, std::ios::trunc);
  file << fmt::format("prefill {}\ndecode {}\n", counts.prefill, counts.decode);
  file.close();
  if (file && std::rename(fresh.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::UnavailableError(fmt::format("cannot write {}", path));
}

std::unique_ptr<PlanExecutor> ReplicasFileExecutor(const std::string& path) {
  return std::make_unique<FileExecutor>(path);
}

}  // namespace baton::router
