#pragma once

// The ways that KV comes to this worker, as routers are told of them.

#include <vector>

#include "kv_transfer/handoff.h"
#include "worker_link/commands.h"

namespace baton::worker_common {

// In order of source and transport, each pair once, and at most kMaxKvPaths: where there are more,
// those in use before the others, and of these the ones that are slowest for their kind.
std::vector<worker_link::KvPath> KvPathsOf(const std::vector<kv_transfer::MeasuredPath>& measured);

}  // namespace baton::worker_common
