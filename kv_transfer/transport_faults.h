#pragma once

// Faults at random on what a handoff service sends and reads, for tests (`--transport-faults`).

#include <cstdint>
#include <string>
#include <string_view>

#include "absl/status/statusor.h"
#include "common/clock.h"

namespace baton::kv_transfer {

// Probabilities from 0 to 1, for each message sent, and for data where it is said.
struct TransportFaults {
  double drop = 0;       // it, or a run of data, is lost
  double duplicate = 0;  // it, or a run of data, goes out twice
  double corrupt = 0;   // one bit of it is flipped; likewise of a run of data or mapped blocks read
  double truncate = 0;  // it, or a run of data, is cut short
  double replay = 0;    // an earlier one to the same peer goes out once more behind it
  double forge = 0;     // a sound copy of it goes along, with an older epoch or another incarnation
  double close = 0;     // the connection is lost, as this side sees it
  double stall = 0;     // nothing goes out for stall_time
  Duration stall_time = std::chrono::milliseconds(500);
  Duration delay{};   // everything goes out this much later, in order
  uint64_t seed = 0;  // 0: a random one
};

// From "drop=0.01,delay-ms=5,seed=7"; keys are the fields, times in whole milliseconds as delay-ms
// and stall-ms, at most 60,000. InvalidArgument names the nearest key and the numbers allowed.
absl::StatusOr<TransportFaults> TransportFaultsFromText(std::string_view text);
// All that is not zero, in the same form.
std::string ToText(const TransportFaults& faults);

}  // namespace baton::kv_transfer
