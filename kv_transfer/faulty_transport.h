#pragma once

// A transport around another that does to messages, data and mapped memory what networks and broken
// peers do. For tests: `--transport-faults` of a worker, and the hooks of tests/kv_transfer.

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "kv_transfer/transport.h"
#include "kv_transfer/transport_faults.h"

namespace baton::kv_transfer {

// What becomes of something that is sent. The default: it goes out once, now.
struct Fate {
  Fate(int its_copies = 1) : copies(its_copies) {}  // NOLINT: a number of copies is a fate
  int copies;
  Duration delay{};    // nothing to any peer overtakes it
  bool close = false;  // instead, the connection to the peer is lost as this side sees it
};

// Called on the service's thread. Those that are not set do nothing.
struct Faults {
  // A message about to go out, which it may change. `also` takes others to the same peer, which go
  // out behind it.
  std::function<Fate(PeerId peer, std::string& message, std::vector<std::string>& also)> on_send;
  // Data about to go out. With no copies it is lost, and reported as sent.
  std::function<Fate()> on_send_data;
  // Pulled data that came, before it is handed on; it may be changed and cut.
  std::function<void(std::string& data)> on_data;
  // A copy of mapped memory that is being read.
  std::function<void(std::span<std::byte> bytes)> on_read;
  bool refuse_mapping = false;  // blocks have to be pulled
  bool swallow_data = false;    // what is sent as data is never done with
};

// The faults that happen at random; the seed is logged.
Faults RandomFaults(const TransportFaults& faults);

std::unique_ptr<Transport> WithFaults(std::unique_ptr<Transport> inner, Faults faults);

}  // namespace baton::kv_transfer
