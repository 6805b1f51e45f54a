#pragma once

// One HTTP request to a router, for `baton chat`, `drain`, `role` and `top`.

#include <functional>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/clock.h"
#include "common/tls_files.h"

namespace baton::cli {

struct HttpUrl {
  std::string host;
  std::string port;
  bool tls = false;
  // With TLS: the server's certificate must be from `ca` (the system's when ""), and bear the host.
  // `certificate` and `key` are this end's, where the server asks for one.
  TlsFiles files;
  bool insecure_tls = false;  // the certificate may be anybody's
  std::string api_key;        // sent as a bearer; "": none
};

// "http://127.0.0.1:8000" or "https://..." -> host and port (80 or 443 when none). InvalidArgument
// for anything else.
absl::StatusOr<HttpUrl> ParseUrl(std::string_view url);

// POSTs JSON and gives the body of the answer piece by piece as it comes. Blocks; `silence` bounds
// connecting and each wait for more. An answer other than 200 is an error with its status and body.
absl::Status PostJson(const HttpUrl& url, std::string_view path, std::string body, Duration silence,
                      const std::function<void(std::string_view)>& on_bytes);

// One request to its whole answer, of 64 MiB at most. Errors as PostJson; any 2xx is an answer.
absl::StatusOr<std::string> Fetch(const HttpUrl& url, std::string_view method,
                                  std::string_view path, std::string body, Duration silence);

// Bytes of a server-sent event stream to the data of its events.
class EventStream {
 public:
  explicit EventStream(std::function<void(std::string_view)> on_data)
      : on_data_(std::move(on_data)) {}
  void Push(std::string_view bytes);

 private:
  std::function<void(std::string_view)> on_data_;
  std::string line_;
};

}  // namespace baton::cli
