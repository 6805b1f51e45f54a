#pragma once

#include <cstdint>

#include "absl/status/statusor.h"
#include "engine/executor.h"

namespace baton::engine {

// A checksum of the KV that this build computes, on this machine, for a short fixed text: unlike
// values mean unlike arithmetic, whatever fingerprints and versions say. For those who keep KV
// beyond the life of a process. Leaves nothing in the pool; takes four blocks of it at most. The
// executor runs no sequence meanwhile.
absl::StatusOr<uint64_t> ProbeKv(Executor* executor);

}  // namespace baton::engine
