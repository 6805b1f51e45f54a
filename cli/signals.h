#pragma once

#include <functional>

#include "common/clock.h"

namespace baton::cli {

// Takes SIGINT and SIGTERM out of their usual ways for this thread and all that it starts later,
// and ignores SIGPIPE and SIGXFSZ. Call before any thread starts.
void BlockSignals();

// Waits up to `timeout` for SIGINT or SIGTERM: true when one came.
bool WaitForSignal(Duration timeout);
// Waits until one comes.
void WaitForSignal();

// The same for SIGHUP, which else ends the process: call it after BlockSignals, and before
// any thread starts. From then on the waits above call `on_hangup` for each that comes.
void CatchHangups(std::function<void()> on_hangup);

// For commands that compute and look up now and then: from here on the first SIGINT or SIGTERM only
// makes StopAsked true, and a second one ends the process as usual.
void CatchStopSignals();
bool StopAsked();

}  // namespace baton::cli
