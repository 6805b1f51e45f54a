#include "router/circuit.h"

#include <algorithm>
#include <utility>

namespace baton::router {

void Circuit::OnFailure(TimePoint now, bool may_open) {
  ++failures_;
  const bool probe_failed = std::exchange(probing_, false);
  if (failures_ < kFailuresToOpen || !may_open || (IsOpen(now) && !probe_failed)) return;
  pause_ = pause_ == Duration{} ? kFirstPause : std::min(2 * pause_, kLongestPause);
  open_until_ = now + pause_;
}

void Circuit::OnRequest(TimePoint now) {
  if (pause_ == Duration{} || IsOpen(now)) return;
  open_until_ = now + pause_;
  probing_ = true;
}

}  // namespace baton::router
