#pragma once

// One wake-up of another thread for everything that a batch of events brings it. Waking it at the
// first would make the two threads take turns, event by event.

#include <memory>
#include <vector>

namespace baton::router {

// Something whose thread looks at what waits for it once it is woken. Thread-safe.
class Wakeable {
 public:
  virtual ~Wakeable() = default;
  virtual void Wake() = 0;
};

// While one lives, wake-ups that its thread asks for wait until its end, each target's once. May be
// nested: the outermost counts. Belongs on the stack.
class WakeBatch {
 public:
  WakeBatch();
  ~WakeBatch();
  WakeBatch(const WakeBatch&) = delete;
  WakeBatch& operator=(const WakeBatch&) = delete;

  // At once when this thread has no batch.
  static void Wake(std::shared_ptr<Wakeable> target);

 private:
  bool outermost_ = false;
  std::vector<std::shared_ptr<Wakeable>> targets_;
};

}  // namespace baton::router
