#pragma once

// What the commands for a router's admin API share: where it is, and how to show who asks.

#include <string>

#include "absl/status/statusor.h"
#include "cli/http_client.h"
#include "common/tls_files.h"

namespace CLI {
class App;
}

namespace baton::cli {

struct AdminClientFlags {
  std::string admin = "127.0.0.1:8002";  // or a URL
  std::string key;
  TlsFiles tls;
};

// --admin, --admin-key, --ca, --cert, --key.
void AddAdminClientFlags(CLI::App* app, AdminClientFlags* flags);

// https for an address without a scheme when a CA or a certificate is given, else http.
absl::StatusOr<HttpUrl> AdminUrl(const AdminClientFlags& flags);

}  // namespace baton::cli
