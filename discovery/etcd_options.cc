#include "discovery/etcd_options.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <string_view>

#include "common/host_port.h"
#include "common/status_macros.h"

namespace baton::discovery {
namespace {

constexpr std::string_view kPlain = "http://";
constexpr std::string_view kEncrypted = "https://";
constexpr size_t kMaxEndpoints = 32;
constexpr size_t kMaxPrefixBytes = 256;
constexpr size_t kMaxPasswordBytes = 4096;

absl::Status CheckEndpoint(const std::string& endpoint) {
  const bool known = endpoint.starts_with(kPlain) || endpoint.starts_with(kEncrypted);
  if (known && CheckHostPort(DialAddress(endpoint)).ok()) return absl::OkStatus();
  return absl::InvalidArgumentError(fmt::format(
      "--etcd: '{}' is not of the form http://HOST:PORT or https://HOST:PORT", endpoint));
}

absl::Status CheckTls(const EtcdOptions& options) {
  const TlsFiles& tls = options.tls;
  if (!options.encrypted()) {
    if (tls.paths().empty()) return absl::OkStatus();
    return absl::InvalidArgumentError("--etcd-ca, --etcd-cert and --etcd-key are for https");
  }
  if (tls.ca.empty()) {
    return absl::InvalidArgumentError("--etcd with https needs --etcd-ca, etcd's CA");
  }
  if (!std::ifstream(tls.ca)) {
    return absl::InvalidArgumentError(
        fmt::format("--etcd-ca: {} cannot be read: {}", tls.ca, std::strerror(errno)));
  }
  TlsFiles own = tls;
  if (!own.on()) own.ca.clear();
  return CheckTlsFiles(own, "--etcd");
}

}  // namespace

bool EtcdOptions::encrypted() const { return on() && endpoints.front().starts_with(kEncrypted); }

std::string EtcdOptions::Where() const {
  return fmt::format("etcd at {}", fmt::join(endpoints, ", "));
}

absl::Status CheckEtcdOptions(const EtcdOptions& options) {
  if (options.endpoints.empty() || options.endpoints.size() > kMaxEndpoints) {
    return absl::InvalidArgumentError(fmt::format("--etcd takes 1 to {} endpoints, not {}",
                                                  kMaxEndpoints, options.endpoints.size()));
  }
  for (const std::string& endpoint : options.endpoints) {
    BATON_RETURN_IF_ERROR(CheckEndpoint(endpoint));
    if (endpoint.starts_with(kEncrypted) != options.encrypted()) {
      return absl::InvalidArgumentError("--etcd: all endpoints must be http, or all https");
    }
  }
  if (!options.prefix.ends_with('/') || options.prefix.size() > kMaxPrefixBytes) {
    return absl::InvalidArgumentError(
        fmt::format("--etcd-prefix must end with '/' and have at most {} bytes, but is '{}'",
                    kMaxPrefixBytes, options.prefix));
  }
  BATON_RETURN_IF_ERROR(CheckTls(options));
  if (options.user.empty() != options.password_file.empty()) {
    return absl::InvalidArgumentError("--etcd-user and --etcd-password-file need each other");
  }
  std::string ignored;
  return options.user.empty() ? absl::OkStatus() : ReadPassword(options, &ignored);
}

std::string DialAddress(const std::string& endpoint) {
  return endpoint.substr(endpoint.find("//") + 2);
}

absl::Status ReadPassword(const EtcdOptions& options, std::string* password) {
  std::ifstream file(options.password_file, std::ios::binary);
  std::string line;
  if (!file || !std::getline(file, line) || line.empty() || line.size() > kMaxPasswordBytes) {
    return absl::InvalidArgumentError(
        fmt::format("--etcd-password-file: {} has no first line of 1 to {} bytes",
                    options.password_file, kMaxPasswordBytes));
  }
  if (line.ends_with('\r')) line.pop_back();
  *password = std::move(line);
  return absl::OkStatus();
}

std::string PrefixEnd(std::string prefix) {
  while (!prefix.empty() && static_cast<unsigned char>(prefix.back()) == 0xff) prefix.pop_back();
  if (prefix.empty()) return std::string(1, '\0');  // all keys
  ++prefix.back();
  return prefix;
}

}  // namespace baton::discovery
