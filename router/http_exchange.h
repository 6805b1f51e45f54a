#pragma once

// One HTTP request to a service of the machine room (a trace collector, Kubernetes' API server) to
// its whole answer.

#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "common/clock.h"

namespace baton::router {

struct ServiceUrl {
  bool tls = false;
  std::string host, port;
  std::string path;  // as in the URL, without a slash at its end
};
// "http://HOST[:PORT][/PATH]" or https; nothing else: no query, no fragment, no user.
std::optional<ServiceUrl> ParseServiceUrl(std::string_view url);

struct ServiceRequest {
  std::string method, target;
  std::vector<std::pair<std::string, std::string>> headers;  // beside Host and the body's length
  std::string_view body;
};
struct ServiceAnswer {
  int status = 0;
  std::string body;
};

// Not thread-safe: one exchange at a time, on a connection of its own.
class ServiceClient {
 public:
  // With TLS (1.2 or newer) the certificate must bear the host and be from `ca`, or the system's
  // CAs when it is "". InvalidArgument: `ca` cannot be used.
  static absl::StatusOr<std::unique_ptr<ServiceClient>> Create(ServiceUrl url,
                                                               const std::string& ca);
  virtual ~ServiceClient() = default;

  // Blocks, with everything from the lookup of the host to the answer's last byte, for `timeout`;
  // but a lookup that has begun ends when the system's resolver does. An answer of any status is an
  // answer. Unavailable says what failed, DeadlineExceeded what took so long.
  virtual absl::StatusOr<ServiceAnswer> Ask(const ServiceRequest& request, Duration timeout,
                                            size_t max_answer_bytes) = 0;
};

}  // namespace baton::router
