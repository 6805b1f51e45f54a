#pragma once

// The flags of etcd, which routers and workers share, and the address that a worker puts there.

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "discovery/etcd_options.h"

namespace CLI {
class App;
}

namespace baton::cli {

void AddEtcdFlags(CLI::App* app, discovery::EtcdOptions* options);

// Ok without --etcd when no other flag of it is given. PermissionDenied for what would go
// unencrypted to another machine, unless `insecure`: who writes there says where prompts go.
absl::Status CheckEtcdFlags(const discovery::EtcdOptions& options, bool insecure);

// Where routers find a worker that listens at `listen_host`:`port`: `advertise`, HOST or HOST:PORT,
// or the listened address itself. InvalidArgument for one that nobody could dial.
absl::StatusOr<std::string> AdvertisedAddress(const std::string& advertise,
                                              const std::string& listen_host, uint16_t port);

}  // namespace baton::cli
