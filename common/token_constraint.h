#pragma once

// Which tokens an answer may go on with. The engine obeys it; the room `grammar` makes it of a
// request's SamplingParams::constraint.

#include <cstdint>
#include <span>

#include "absl/status/status.h"
#include "common/ids.h"

namespace baton {

// Of one sequence. What it says is a function of the constraint and `output` alone; `output` only
// grows from call to call. Not thread-safe: the device thread's.
class TokenConstraint {
 public:
  virtual ~TokenConstraint() = default;

  struct Next {
    std::span<const uint64_t> allowed;  // bit t % 64 of word t / 64: token t may follow
    std::span<const uint64_t> last;     // likewise: token t may follow, and then nothing more
    bool may_end = false;               // `output` satisfies the constraint as it is
    // Nothing may follow: the answer is over, whether it has an end token or not.
    bool must_end = false;
  };
  // Whether After(output) answers without long work. If not, some of the work is done here or
  // begins elsewhere: ask again.
  virtual bool Ready(std::span<const TokenId> output) = 0;
  // Why there is no such constraint. Known once Ready is true.
  virtual absl::Status status() const { return absl::OkStatus(); }
  // The sets are valid until the next call of any constraint from the same maker, and empty when
  // must_end. End tokens are not among the allowed ones.
  virtual Next After(std::span<const TokenId> output) = 0;
};

inline bool HasToken(std::span<const uint64_t> set, TokenId token) {
  const size_t word = static_cast<size_t>(token) / 64;
  return word < set.size() && (set[word] >> (static_cast<size_t>(token) % 64) & 1) != 0;
}

}  // namespace baton
