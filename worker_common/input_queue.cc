#include "worker_common/input_queue.h"

#include <utility>

namespace baton::worker_common {

using worker_link::LinkCommand;

bool InputQueue::PushLink(worker_link::LinkInput input) {
  {
    const std::lock_guard lock(mutex_);
    if (const auto* command = std::get_if<LinkCommand>(&input)) {
      const bool request = worker_link::IsRequest(command->command);
      size_t& count = request ? requests_ : notices_;
      if (count >= (request ? capacity_ : kNoticesPerRequest * capacity_)) return false;
      ++count;
    }
    inputs_.emplace_back(std::move(input));
  }
  changed_.notify_one();
  return true;
}

void InputQueue::PushHandoff(kv_transfer::HandoffEvent event) {
  {
    const std::lock_guard lock(mutex_);
    inputs_.emplace_back(std::move(event));
  }
  changed_.notify_one();
}

void InputQueue::Wake() {
  {
    const std::lock_guard lock(mutex_);
    woken_ = true;
  }
  changed_.notify_one();
}

std::vector<Input> InputQueue::Take(Duration timeout) {
  std::unique_lock lock(mutex_);
  if (timeout > Duration(0)) {
    changed_.wait_for(lock, timeout, [this] { return woken_ || !inputs_.empty(); });
  }
  woken_ = false;
  requests_ = 0;
  notices_ = 0;
  return std::exchange(inputs_, {});
}

}  // namespace baton::worker_common
