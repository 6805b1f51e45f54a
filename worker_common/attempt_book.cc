#include "worker_common/attempt_book.h"

#include <fmt/format.h>

#include <algorithm>

namespace baton::worker_common {

absl::Status AttemptBook::Enter(const Attempt& attempt, worker_link::LinkId link, TimePoint now,
                                Duration timeout) {
  if (WasEntered(attempt)) {
    return absl::FailedPreconditionError(
        fmt::format("attempt {} comes after epoch {} of its request", ToString(attempt),
                    newest_epoch_.at(attempt.request)));
  }
  if (timeout <= Duration(0)) return absl::DeadlineExceededError("no time is left for the request");
  if (entries_.size() >= capacity_) {
    return absl::ResourceExhaustedError(fmt::format(
        "the worker has {} requests, at most {} are taken", entries_.size(), capacity_));
  }
  entries_[attempt] = {.link = link, .received = now, .deadline = now + timeout, .answered = false};
  RememberEpoch(attempt);
  return absl::OkStatus();
}

void AttemptBook::RememberEpoch(const Attempt& attempt) {
  const bool fresh = newest_epoch_.insert_or_assign(attempt.request, attempt.epoch).second;
  if (!fresh) return;
  remembered_.push_back(attempt.request);
  if (remembered_.size() <= std::max(kRemembered, 2 * capacity_)) return;
  newest_epoch_.erase(remembered_.front());
  remembered_.pop_front();
}

AttemptBook::Entry* AttemptBook::Find(const Attempt& attempt) {
  const auto found = entries_.find(attempt);
  return found == entries_.end() ? nullptr : &found->second;
}

bool AttemptBook::WasEntered(const Attempt& attempt) const {
  const auto newest = newest_epoch_.find(attempt.request);
  return newest != newest_epoch_.end() && newest->second >= attempt.epoch;
}

template <typename Predicate>
std::vector<Attempt> AttemptBook::Unanswered(Predicate predicate) const {
  std::vector<Attempt> attempts;
  for (const auto& [attempt, entry] : entries_) {
    if (!entry.answered && predicate(attempt, entry)) attempts.push_back(attempt);
  }
  std::sort(attempts.begin(), attempts.end());  // the same order in every run
  return attempts;
}

std::vector<Attempt> AttemptBook::OlderThan(const Attempt& attempt) const {
  return Unanswered([&](const Attempt& other, const Entry&) {
    return other.request == attempt.request && other.epoch < attempt.epoch;
  });
}

std::vector<Attempt> AttemptBook::OfLink(worker_link::LinkId link) const {
  return Unanswered([&](const Attempt&, const Entry& entry) { return entry.link == link; });
}

std::vector<Attempt> AttemptBook::Expired(TimePoint now) const {
  return Unanswered([&](const Attempt&, const Entry& entry) { return entry.deadline <= now; });
}

}  // namespace baton::worker_common
