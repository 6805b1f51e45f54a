#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace baton {

struct HostPort {
  std::string host;  // a name or an IPv4 address; an IPv6 address with its brackets
  uint16_t port = 0;

  std::string ToString() const;
};

// "10.0.0.1:80", "name:80", "[::1]:80". InvalidArgument for anything else, port 0 included: nothing
// that could be more than an address to who dials it.
absl::StatusOr<HostPort> ParseHostPort(std::string_view address);
inline absl::Status CheckHostPort(std::string_view address) {
  return ParseHostPort(address).status();
}

}  // namespace baton
