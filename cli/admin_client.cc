#include "cli/admin_client.h"

#include <CLI/CLI.hpp>

#include "common/status_macros.h"

namespace baton::cli {

void AddAdminClientFlags(CLI::App* app, AdminClientFlags* flags) {
  app->add_option("--admin", flags->admin,
                  "the admin API of a router: the address of its --admin, or https://HOST:PORT")
      ->capture_default_str();
  app->add_option("--admin-key", flags->key,
                  "key of the admin API; better by BATON_ADMIN_KEY, which others of the machine do "
                  "not see");
  app->add_option("--ca", flags->tls.ca,
                  "PEM CA that an https router's certificate must be from; the system's when not "
                  "given");
  app->add_option("--cert", flags->tls.certificate,
                  "PEM certificate for a router that asks for one");
  app->add_option("--key", flags->tls.key, "its private key");
}

absl::StatusOr<HttpUrl> AdminUrl(const AdminClientFlags& flags) {
  const bool has_scheme = flags.admin.find("://") != std::string::npos;
  const bool tls = flags.tls.on() || !flags.tls.ca.empty();
  const std::string scheme = has_scheme ? "" : tls ? "https://" : "http://";
  BATON_ASSIGN_OR_RETURN(HttpUrl url, ParseUrl(scheme + flags.admin));
  url.files = flags.tls;
  url.api_key = flags.key;
  return url;
}

}  // namespace baton::cli
