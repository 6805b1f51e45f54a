#pragma once

#include "common/clock.h"

namespace baton::cli {

// Takes SIGINT and SIGTERM out of their usual ways for this thread and all that it starts later,
// and ignores SIGPIPE. Call before any thread starts.
void BlockSignals();

// Waits up to `timeout` for SIGINT or SIGTERM: true when one came.
bool WaitForSignal(Duration timeout);
// Waits until one comes.
void WaitForSignal();

}  // namespace baton::cli
