// What a load client's requests and answers are called.

#include <fmt/format.h>

#include <algorithm>

#include "bench/load_client.h"

namespace baton::bench {

absl::StatusOr<LoadUrl> ParseLoadUrl(std::string_view text) {
  const auto bad = [&] {
    return absl::InvalidArgumentError(
        fmt::format("'{}' is no address of the form http://HOST:PORT or https://HOST:PORT",
                    text.substr(0, 200)));
  };
  LoadUrl url;
  url.tls = text.starts_with("https://");
  if (!url.tls && !text.starts_with("http://")) return bad();
  std::string_view rest = text.substr(text.find("//") + 2);
  const size_t slash = rest.find('/');
  if (slash != std::string_view::npos) {
    url.path = std::string(rest.substr(slash));
    while (url.path.ends_with('/')) url.path.pop_back();
    if (url.path.ends_with("/v1")) url.path.resize(url.path.size() - 3);
    rest = rest.substr(0, slash);
  }
  const size_t colon = rest.rfind(':');
  const bool has_port = colon != std::string_view::npos && !rest.ends_with(']');
  std::string_view host = has_port ? rest.substr(0, colon) : rest;
  url.port = has_port ? std::string(rest.substr(colon + 1)) : url.tls ? "443" : "80";
  if (host.starts_with('[') && host.ends_with(']')) host = host.substr(1, host.size() - 2);
  url.host = std::string(host);
  const bool digits = std::ranges::all_of(url.port, [](char c) { return c >= '0' && c <= '9'; });
  if (url.host.empty() || url.port.empty() || !digits) return bad();
  if (text.find_first_of(" \r\n\t") != std::string_view::npos) return bad();
  return url;
}

std::string_view LoadEndName(LoadEnd end) {
  switch (end) {
    case LoadEnd::kOk:
      return "ok";
    case LoadEnd::kStatus:
      return "http status";
    case LoadEnd::kError:
      return "error event";
    case LoadEnd::kConnect:
      return "no connection";
    case LoadEnd::kBroken:
      return "broken connection";
    case LoadEnd::kTimeout:
      return "time-out";
    case LoadEnd::kUnsound:
      return "unsound answer";
  }
  return "";
}

std::string PostRequest(const LoadUrl& url, std::string_view path, std::string_view body,
                        std::string_view headers) {
  return fmt::format(
      "POST {}{} HTTP/1.1\r\nHost: {}:{}\r\nContent-Type: application/json\r\n{}"
      "Content-Length: {}\r\n\r\n{}",
      url.path, path, url.host, url.port, headers, body.size(), body);
}

}  // namespace baton::bench
