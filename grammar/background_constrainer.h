#pragma once

// A TokenConstrainer on a thread of its own, so that no constraint, however costly, holds up the
// device thread.

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "common/token_constraint.h"

namespace baton::grammar {

// Compiling a constraint, reading output, and finding the tokens that may follow happen on the
// thread, one piece of bounded work at a time; constraints whose last piece was long wait behind
// the others. What a constraint says does not depend on any of this. Thread-safe.
class BackgroundConstrainer {
 public:
  // As TokenConstrainer.
  BackgroundConstrainer(const std::vector<std::string_view>& token_texts, bool drops_first_space);
  ~BackgroundConstrainer();
  BackgroundConstrainer(const BackgroundConstrainer&) = delete;
  BackgroundConstrainer& operator=(const BackgroundConstrainer&) = delete;

  // Never blocks: that a description is unsound is the constraint's status(). Its Ready asks the
  // thread and does not wait; its After is only called once Ready was true for the same output, and
  // its sets are valid until the next Ready. It may outlive this object, and is then never ready.
  std::unique_ptr<TokenConstraint> Create(std::string description);

 private:
  class Worker;
  class Constraint;

  const std::shared_ptr<Worker> worker_;
};

}  // namespace baton::grammar
