#pragma once

// How busy a router's workers are, out of its /metrics. Pure.

#include <optional>
#include <string_view>

namespace baton::bench {

struct RoleLoad {
  int workers = 0;
  int busy = 0;        // of these, with a request running
  double running = 0;  // requests
  double waiting = 0;
  double blocks_held = 0;  // KV blocks
  double blocks_total = 0;
};
struct FleetSample {
  RoleLoad prefill, decode;
};

// Empty when the text has no series of Baton's workers: another server's.
std::optional<FleetSample> FleetSampleOf(std::string_view metrics);

}  // namespace baton::bench
