#pragma once

// The router's end: a stream to one worker, dialled again whenever it is lost.

#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "common/block_journal.h"
#include "common/tls_files.h"
#include "worker_link/commands.h"

namespace baton::worker_link {

struct WorkerConnected {
  WorkerInfo info;
};
struct WorkerLost {
  absl::Status why;
};  // every attempt on it is lost; a redial is under way
using ClientInput =
    std::variant<WorkerConnected, WorkerLost, WorkerStatus, std::vector<Event>, BlockNews>;

struct ClientSecurity {
  TlsFiles tls;           // with its CA, that the workers' certificates must be from
  std::string peer_name;  // that they must bear; "": the host that is dialled
};

// Dials until destroyed, with growing pauses (50 ms to 2 s). Between WorkerConnected and WorkerLost
// the stream is up. A dial that fails gives WorkerLost too, when its reason is a new one. A worker
// that stops answering is lost within seven seconds.
// Threading: methods are thread-safe and do not block; `on_input` is called on threads of gRPC and
// of the client, one call at a time, in order; it must not block or destroy the client. The
// destructor drops what was not sent yet, and no call of `on_input` outlives it.
class LinkClient {
 public:
  static std::unique_ptr<LinkClient> Create(std::string address, std::string router_name,
                                            std::function<void(ClientInput)> on_input,
                                            const ClientSecurity& security = {});
  virtual ~LinkClient() = default;

  // False when the stream is down or has more than 64 MiB waiting: nothing was sent.
  virtual bool Send(Command command) = 0;
  virtual const std::string& address() const = 0;
};

}  // namespace baton::worker_link
