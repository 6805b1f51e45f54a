#pragma once

// How long one choice of workers takes, in a fleet of so many.

#include <cstdint>

#include "bench/timing.h"

namespace baton::bench {

// Median microseconds of one placement that is accounted for before the next. A quarter of the
// workers decode; all have unlike loads.
double PlacementMicroseconds(int32_t workers, const Repeats& repeats);

}  // namespace baton::bench
