#pragma once

// The requests that a load consists of: when each comes, how long it is, and what it begins with.
// Pure: equal options and seeds give equal loads.

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "bench/arrivals.h"
#include "planner/workload.h"

namespace baton::bench {

// Texts that a prompt is made of, one after the other: equal seeds are equal texts, so prompts that
// begin with the same seeds share a prefix.
struct PromptPart {
  uint64_t seed = 0;
  int64_t words = 0;
};
struct ServeRequest {
  double due_s = 0;
  std::vector<PromptPart> prompt;
  int64_t output_tokens = 1;

  int64_t words() const;
};
std::string PromptText(const ServeRequest& request);

struct LengthOptions {
  double mean = 1;
  double cv = 0;  // 0: all equal; else lognormal
};
struct ServeLoadOptions {
  ArrivalOptions arrivals;
  int64_t requests = 100;
  LengthOptions input{256, 0};
  LengthOptions output{64, 0};
  int64_t shared_prefix = 0;  // tokens that all prompts of a group begin with
  int64_t prefix_groups = 1;
  int64_t longest_input = 1 << 20;  // what is longer is cut
  int64_t longest_output = 1 << 20;
};
// InvalidArgument for numbers that make no sense.
absl::StatusOr<std::vector<ServeRequest>> MakeServeLoad(const ServeLoadOptions& options);

struct TraceLoadOptions {
  double speed = 1;        // 2: twice as fast as the trace
  double token_scale = 1;  // of all lengths
  int64_t requests = 0;    // the trace's first so many; 0: all
  int64_t longest_input = 1 << 20;
  int64_t longest_output = 1 << 20;
  uint64_t seed = 1;
};
// Requests that share leading blocks in the trace share that much of their prompts.
absl::StatusOr<std::vector<ServeRequest>> MakeTraceLoad(const planner::Trace& trace,
                                                        const TraceLoadOptions& options);

}  // namespace baton::bench
