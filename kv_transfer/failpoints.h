#pragma once

// The failpoints of the handoff: one before and one after each message goes out, one when it has
// come and is not acted on yet, and some between. docs/development.md has the table.
//
// A message that fails is lost. A test may arm them by name; see common/failpoint.h.

#include <span>

#include "common/failpoint.h"
#include "kv_transfer/messages.h"

namespace baton::kv_transfer {

// True when the message is lost on its way out, or as it comes.
[[nodiscard]] bool FailsBeforeSending(const MessageBody& body);
void ReachAfterSending(const MessageBody& body);
[[nodiscard]] bool FailsOnArrival(const MessageBody& body);

// Target: one run of blocks is here and not looked at yet; it was copied and verified; TargetDone
// is out.
void ReachBeforeVerify();
void ReachAfterVerify();
void ReachTargetDone();
// Source: one run of blocks goes out as data; SourceDone is out.
void ReachBeforeData();
void ReachAfterData();
void ReachSourceDone();

// All of them, for ArmFailpoint.
std::span<Failpoint* const> HandoffFailpoints();

}  // namespace baton::kv_transfer
