#include "cli/etcd_flags.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>

#include "cli/router_flags.h"
#include "common/host_port.h"
#include "common/status_macros.h"

namespace baton::cli {

void AddEtcdFlags(CLI::App* app, discovery::EtcdOptions* options) {
  app->add_option("--etcd", options->endpoints,
                  "etcd v3, where workers register and routers find them: http://HOST:PORT or "
                  "https://HOST:PORT, several after each other or with commas")
      ->delimiter(',');
  app->add_option("--etcd-prefix", options->prefix,
                  "of the keys there, one for each model: PREFIXworkers/ADDRESS")
      ->capture_default_str();
  app->add_option("--etcd-ca", options->tls.ca, "for https: PEM CA of etcd's certificate");
  app->add_option("--etcd-cert", options->tls.certificate,
                  "PEM certificate to show to etcd, if it wants one");
  app->add_option("--etcd-key", options->tls.key, "its private key");
  app->add_option("--etcd-user", options->user, "etcd's user, if it wants one");
  app->add_option("--etcd-password-file", options->password_file,
                  "file whose first line is the user's password");
}

absl::Status CheckEtcdFlags(const discovery::EtcdOptions& options, bool insecure) {
  if (!options.on()) {
    if (options.tls.paths().empty() && options.user.empty() && options.password_file.empty()) {
      return absl::OkStatus();
    }
    return absl::InvalidArgumentError("the other --etcd flags need --etcd");
  }
  BATON_RETURN_IF_ERROR(CheckEtcdOptions(options));
  for (const std::string& endpoint : options.endpoints) {
    BATON_RETURN_IF_ERROR(CheckAddress("--etcd", discovery::DialAddress(endpoint),
                                       options.encrypted(), insecure, "https and --etcd-ca"));
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> AdvertisedAddress(const std::string& advertise,
                                              const std::string& listen_host, uint16_t port) {
  if (advertise.empty()) {
    if (listen_host != "0.0.0.0" && listen_host != "[::]") {
      return fmt::format("{}:{}", listen_host, port);
    }
    return absl::InvalidArgumentError(
        fmt::format("--listen {} is all addresses of this machine, none that routers could dial: "
                    "give --advertise HOST or HOST:PORT beside --etcd",
                    listen_host));
  }
  for (const std::string& address : {advertise, fmt::format("{}:{}", advertise, port)}) {
    if (CheckHostPort(address).ok()) return address;
  }
  return absl::InvalidArgumentError(
      fmt::format("--advertise must be HOST or HOST:PORT, but is '{}'", advertise));
}

}  // namespace baton::cli
