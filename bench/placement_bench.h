#pragma once

// How long one choice of workers takes, in a fleet of so many.

#include <cstdint>

#include "bench/timing.h"

namespace baton::bench {

// Median microseconds of one placement that is accounted for before the next: finding who holds
// which part of a prompt of 2,000 tokens, and choosing. A quarter of the workers decode; all have
// unlike loads, and hold together four million KV blocks that the index knows: 32 of the prompt's
// everywhere, 96 of them at two.
double PlacementMicroseconds(int32_t workers, const Repeats& repeats);

}  // namespace baton::bench
