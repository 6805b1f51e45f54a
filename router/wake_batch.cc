#include "router/wake_batch.h"

#include <algorithm>
#include <utility>

namespace baton::router {
namespace {

thread_local WakeBatch* this_threads_batch = nullptr;

}  // namespace

WakeBatch::WakeBatch() : outermost_(this_threads_batch == nullptr) {
  if (outermost_) this_threads_batch = this;
}

WakeBatch::~WakeBatch() {
  if (!outermost_) return;
  this_threads_batch = nullptr;
  for (const std::shared_ptr<Wakeable>& target : targets_) target->Wake();
}

void WakeBatch::Wake(std::shared_ptr<Wakeable> target) {
  if (this_threads_batch == nullptr) {
    target->Wake();
    return;
  }
  auto& targets = this_threads_batch->targets_;
  if (std::ranges::find(targets, target) == targets.end()) targets.push_back(std::move(target));
}

}  // namespace baton::router
