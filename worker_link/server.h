#pragma once

// The worker's end: a gRPC server that takes routers' streams.

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "common/block_journal.h"
#include "common/tls_files.h"
#include "worker_link/commands.h"

namespace baton::worker_link {

// One connected router; never reused.
using LinkId = uint64_t;

struct LinkOpened { LinkId link; std::string router_name; };
struct LinkCommand { LinkId link; Command command; };
struct LinkLost { LinkId link; };  // its attempts are to be cancelled; sends to it are dropped
using LinkInput = std::variant<LinkOpened, LinkCommand, LinkLost>;

// Threading: all methods are thread-safe and do not block. `on_input` is called on gRPC's threads,
// for one link in order (LinkOpened first, LinkLost last). It returns false when a command cannot
// be taken (queue full): the server then answers the attempt with Failed(ResourceExhausted) itself,
// or, since a cancel must not be lost, closes the stream. LinkOpened and LinkLost must be taken. It
// is not called any more once the destructor has returned.
class LinkServer {
 public:
  // Listens on `address` ("127.0.0.1:0" takes a free port) for WorkerLink, standard health and
  // reflection. Unavailable when the port is taken, with the address. With `tls`, only routers
  // whose certificate is from its CA are served. `journal`, which outlives the server, is read to
  // those that ask what the caches hold; null: nothing is told.
  static absl::StatusOr<std::unique_ptr<LinkServer>> Create(
      const std::string& address, const WorkerInfo& info,
      std::function<bool(LinkInput)> on_input, const TlsFiles& tls = {},
      const BlockJournal* journal = nullptr);
  // Closes all streams after what was sent has been written, or after a second.
  virtual ~LinkServer() = default;

  virtual std::string address() const = 0;  // with the real port

  // Sends the events of one step to one router. A router that does not read (more than
  // 64 MiB waiting) is cut off: LinkLost.
  virtual void Send(LinkId link, std::vector<Event> events) = 0;
  // To every router, and to those that connect later.
  virtual void SetStatus(const WorkerStatus& status) = 0;
  // The journal has changed: those who asked for it are told, each as fast as it reads.
  virtual void TellBlocks() = 0;
};

}  // namespace baton::worker_link
