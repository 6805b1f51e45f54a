#include "common/host_port.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

namespace baton {
namespace {

constexpr size_t kMaxHostBytes = 253;  // of a DNS name

bool IsHost(std::string_view host) {
  const bool v6 = host.size() > 2 && host.starts_with('[') && host.ends_with(']');
  if (v6) host = host.substr(1, host.size() - 2);
  if (host.empty() || host.size() > kMaxHostBytes) return false;
  return std::ranges::all_of(host, [v6](unsigned char c) {
    const bool digit = c >= '0' && c <= '9';
    const bool hex = (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
    if (v6) return digit || hex || c == ':' || c == '.';
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
    return digit || letter || c == '.' || c == '-' || c == '_';
  });
}

}  // namespace

std::string HostPort::ToString() const { return fmt::format("{}:{}", host, port); }

absl::StatusOr<HostPort> ParseHostPort(std::string_view address) {
  const size_t colon = address.rfind(':');
  if (colon != std::string_view::npos && IsHost(address.substr(0, colon))) {
    const std::string_view digits = address.substr(colon + 1);
    HostPort parsed{std::string(address.substr(0, colon)), 0};
    const auto [end, error] =
        std::from_chars(digits.data(), digits.data() + digits.size(), parsed.port);
    if (error == std::errc() && end == digits.data() + digits.size() && parsed.port > 0) {
      return parsed;
    }
  }
  return absl::InvalidArgumentError(
      fmt::format("'{}' is not of the form HOST:PORT", address.substr(0, 300)));
}

}  // namespace baton
