#pragma once

// Which tokens an answer may go on with. The engine obeys it; the room `grammar` makes it of a
// request's SamplingParams::constraint.

#include <cstdint>
#include <span>

#include "common/ids.h"

namespace baton {

// Of one sequence. What it says is a function of the constraint and `output` alone; `output` only
// grows from call to call. Not thread-safe: the device thread's.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  struct Next {
    std::span<const uint64_t> allowed;  // bit t % 64 of word t / 64: token t may follow
    bool may_end = false;               // `output` satisfies the constraint as it is
    // Nothing may follow: the answer is over, whether it has an end token or not.
    bool must_end = false;
  };
  // `allowed` is valid until the next call of any constraint from the same maker, and empty when
  // must_end. End tokens are not among the allowed ones.
  virtual Next After(std::span<const TokenId> output) = 0;
  // must_end alone, without the work of finding the allowed tokens.
  virtual bool MustEnd(std::span<const TokenId> output) = 0;
};

}  // namespace baton
