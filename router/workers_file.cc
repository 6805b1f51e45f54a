#include "router/workers_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>

namespace baton::router {
namespace {

constexpr size_t kMaxFileBytes = 1 << 20;
constexpr std::string_view kSpace = " \t\r";

}  // namespace

std::vector<std::string> ParseWorkersFile(std::string_view content) {
  std::vector<std::string> addresses;
  while (!content.empty()) {
    const size_t newline = std::min(content.find('\n'), content.size());
    std::string_view line = content.substr(0, newline);
    content.remove_prefix(std::min(newline + 1, content.size()));
    line = line.substr(0, line.find('#'));
    const size_t first = line.find_first_not_of(kSpace);
    if (first == std::string_view::npos) continue;
    line = line.substr(first, line.find_last_not_of(kSpace) + 1 - first);
    if (std::find(addresses.begin(), addresses.end(), line) == addresses.end()) {
      addresses.emplace_back(line);
    }
  }
  return addresses;
}

absl::StatusOr<std::vector<std::string>> ReadWorkersFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string content(kMaxFileBytes + 1, '\0');
  if (!file || !file.read(content.data(), static_cast<std::streamsize>(content.size())).eof()) {
    if (file.gcount() > static_cast<std::streamsize>(kMaxFileBytes)) {
      return absl::InvalidArgumentError(
          fmt::format("workers file {} has more than {} bytes", path, kMaxFileBytes));
    }
    return absl::NotFoundError(
        fmt::format("workers file {} cannot be read: {}", path, std::strerror(errno)));
  }
  content.resize(static_cast<size_t>(file.gcount()));
  return ParseWorkersFile(content);
}

absl::Status WriteWorkersFile(const std::string& path, const std::vector<std::string>& addresses) {
  const std::string fresh = path + ".new";
  std::ofstream file(fresh, std::ios::binary | std::ios::trunc);
  for (const std::string& address : addresses) file << address << "\n";
  file.close();
  if (file && std::rename(fresh.c_str(), path.c_str()) == 0) return absl::OkStatus();
  return absl::UnavailableError(fmt::format("cannot write {}", path));
}

}  // namespace baton::router
